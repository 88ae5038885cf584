package stage

import (
	"cmp"
	"context"
	"errors"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/services/internal/girder"
)

// How much of an item or a folder is asked of Girder at the same time.
const (
	listers   = 8
	fetchers  = 16
	fetchLong = 4  // of them may fetch a file that takes more than one piece
	waitItems = 64 // items, and files, that wait for their turn
)

// oneByOne is how many files are made durable each by itself: for more of them
// the file system does it in one go, with whatever else it has to do.
const oneByOne = 64

// How far a Girder that does not tell the truth is believed: no folder has more
// entries, and no path that a program can name is longer.
const (
	mostListed = 500_000
	maxPath    = unix.PathMax
)

// placedItem is an item and where it goes.
type placedItem struct {
	path string
	doc  girder.Item
}

// placedFile is a file and where it goes.
type placedFile struct {
	path string
	doc  girder.File
}

// item stages the files of one item.
func (s *staging) item(ctx context.Context) (Staged, error) {
	doc, err := again(ctx, s, func() (girder.Item, error) { return s.Source.GetItem(ctx, s.Item) })
	if err != nil {
		return Staged{}, err
	}
	s.name = doc.Name
	folder := localName(string(s.Item))
	path := filepath.Join(folder, localName(doc.Name))
	return s.tree(ctx, path, func(ctx context.Context, items chan<- placedItem) error {
		if err := makeFolders(s.root, folder); err != nil {
			return err
		}
		return send(ctx, items, placedItem{path, doc})
	})
}

// folder stages a folder with all that is in it.
func (s *staging) folder(ctx context.Context) (Staged, error) {
	doc, err := again(ctx, s, func() (girder.Folder, error) { return s.Source.GetFolder(ctx, s.Folder) })
	if err != nil {
		return Staged{}, err
	}
	s.name = doc.Name
	name := localName(doc.Name)
	if s.FolderName != "" {
		name = filepath.Clean(s.FolderName)
	}
	path := filepath.Join(localName(string(s.Folder)), name)
	return s.tree(ctx, path, func(ctx context.Context, items chan<- placedItem) error {
		if err := makeFolders(s.root, filepath.Dir(path)); err != nil {
			return err
		}
		return s.walk(ctx, s.Folder, path, items)
	})
}

// tree fetches the files of the items that list sends. Several are listed and
// fetched at a time; what is known of a folder at any time is its own list and
// those of the folders above it.
func (s *staging) tree(ctx context.Context, path string, list func(context.Context, chan<- placedItem) error) (Staged, error) {
	s.many = true
	var err error
	if s.same, err = s.sameness(); err != nil {
		return Staged{}, err
	}
	items, files := make(chan placedItem, waitItems), make(chan placedFile, waitItems)
	group, inside := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(items)
		return list(inside, items)
	})
	group.Go(func() error {
		defer close(files)
		listing, inside := errgroup.WithContext(inside)
		for range listers {
			listing.Go(func() error {
				return each(inside, items, func(item placedItem) error { return s.list(inside, item, files) })
			})
		}
		return listing.Wait()
	})
	long := make(chan struct{}, fetchLong)
	for range fetchers {
		group.Go(func() error {
			var in near
			defer in.close()
			return each(inside, files, func(file placedFile) error { return s.oneOfMany(inside, &in, file, long) })
		})
	}
	err = group.Wait()
	if err == nil {
		err = s.sync()
	}
	if suspended := context.Cause(ctx); err != nil && errors.Is(suspended, ErrSuspended) {
		return Staged{}, suspended
	}
	if err != nil {
		return Staged{}, errors.Join(err, s.clear())
	}
	return Staged{Path: path, Bytes: s.bytes}, nil
}

// oneOfMany fetches a file, and with it a long one only if there are not so
// many that their pieces would fill the memory.
func (s *staging) oneOfMany(ctx context.Context, in *near, file placedFile, long chan struct{}) error {
	if file.doc.Size == nil || *file.doc.Size > pieceSize {
		if err := send(ctx, long, struct{}{}); err != nil {
			return err
		}
		defer func() { <-long }()
	}
	_, err := s.file(ctx, in, file.path, file.doc)
	return about(file.doc.Name, err)
}

// send hands something on, unless the context ends.
func send[T any](ctx context.Context, to chan<- T, what T) error {
	select {
	case to <- what:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// each does something with all that comes, until the context ends.
func each[T any](ctx context.Context, from <-chan T, do func(T) error) error {
	for {
		select {
		case what, ok := <-from:
			if !ok {
				return nil
			}
			if err := do(what); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// walk makes a folder and those in it, and sends their items on.
func (s *staging) walk(ctx context.Context, id girder.FolderID, path string, items chan<- placedItem) error {
	if len(path) >= maxPath {
		return about(string(id), ErrBadName)
	}
	if err := makeFolders(s.root, path); err != nil {
		return err
	}
	folders, err := pages(ctx, s, func(offset int) ([]girder.Folder, error) { return s.Source.FoldersPage(ctx, id, offset) },
		func(folder girder.Folder) string { return string(folder.ID) })
	if err != nil {
		return about(path, err)
	}
	inside, err := pages(ctx, s, func(offset int) ([]girder.Item, error) { return s.Source.ItemsPage(ctx, id, offset) },
		func(item girder.Item) string { return string(item.ID) })
	if err != nil {
		return about(path, err)
	}
	// The order decides who keeps a name, now and in a later run.
	slices.SortFunc(folders, func(a, b girder.Folder) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	slices.SortFunc(inside, func(a, b girder.Item) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	names := make([]string, 0, len(folders)+len(inside))
	for _, folder := range folders {
		names = append(names, folder.Name)
	}
	for _, item := range inside {
		names = append(names, item.Name)
	}
	names = localNames(names, s.same)
	for i, item := range inside {
		if err := send(ctx, items, placedItem{filepath.Join(path, names[len(folders)+i]), item}); err != nil {
			return err
		}
	}
	for i, folder := range folders {
		if err := s.walk(ctx, folder.ID, filepath.Join(path, names[i]), items); err != nil {
			return err
		}
	}
	return nil
}

// list sends the files of an item on. One file of the item's name takes the
// item's place; any others go into a folder there.
func (s *staging) list(ctx context.Context, item placedItem, files chan<- placedFile) error {
	docs, err := pages(ctx, s, func(offset int) ([]girder.File, error) { return s.Source.FilesPage(ctx, item.doc.ID, offset) },
		func(file girder.File) string { return string(file.ID) })
	if err != nil {
		return about(item.doc.Name, err)
	}
	s.expect(docs)
	if len(docs) == 1 && docs[0].Name == item.doc.Name {
		return send(ctx, files, placedFile{item.path, docs[0]})
	}
	if err := makeFolders(s.root, item.path); err != nil {
		return err
	}
	slices.SortFunc(docs, func(a, b girder.File) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	names := make([]string, len(docs))
	for i, doc := range docs {
		names[i] = doc.Name
	}
	for i, name := range localNames(names, s.same) {
		if err := send(ctx, files, placedFile{filepath.Join(item.path, name), docs[i]}); err != nil {
			return err
		}
	}
	return nil
}

// expect adds files to the total.
func (s *staging) expect(docs []girder.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, doc := range docs {
		if doc.Size != nil {
			s.total += *doc.Size
		}
	}
}

// errMoved means that what a list begins with was removed while it was read.
var errMoved = errors.New("the list changed while it was read")

// pages collects a list page by page, each with patience. Each page begins with
// the last document of the one before: one that was removed meanwhile moves those
// behind it, and one of them would be missed, so the list is read anew.
func pages[T any](ctx context.Context, s *staging, ask func(offset int) ([]T, error), id func(T) string) ([]T, error) {
	var all []T
	err := s.Retry.Do(ctx, s.waiting, func() (progress bool, err error) {
		for {
			page, err := ask(max(0, len(all)-1))
			if err != nil {
				return progress, err
			}
			whole := len(page) < girder.PageSize
			if len(all) > 0 {
				if len(page) == 0 || id(page[0]) != id(all[len(all)-1]) {
					all = nil
					return false, &girder.Unreachable{Method: "GET", Path: "list", Err: errMoved}
				}
				page = page[1:]
			}
			all, progress = append(all, page...), true
			if whole {
				return true, nil
			}
			if len(all) > mostListed {
				return true, ErrTooMany
			}
		}
	})
	return all, err
}

// sync makes all that was staged durable.
func (s *staging) sync() error {
	if len(s.placed) > oneByOne {
		folder, err := s.root.Open(".")
		if err != nil {
			return err
		}
		return onVolume(".", errors.Join(unix.Syncfs(int(folder.Fd())), folder.Close()))
	}
	var group errgroup.Group
	group.SetLimit(fetchers)
	folders := map[string]bool{}
	for _, path := range s.placed {
		folders[filepath.Dir(path)] = true
		group.Go(func() error { return onVolume(path, syncAt(s.root, path)) })
	}
	for path := range folders {
		group.Go(func() error { return onVolume(path, syncAt(s.root, path)) })
	}
	return group.Wait()
}

// clear removes the files that are complete: without the others nobody wants them.
func (s *staging) clear() error {
	var err error
	for _, path := range s.placed {
		err = errors.Join(err, onVolume(path, remove(s.root, path)))
	}
	return err
}
