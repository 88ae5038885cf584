package stage

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/internal/volume"
	"github.com/gantry-worker/gantry/services/transfer/internal/cache"
)

// Source is where files come from. All calls may be made again after an error.
type Source interface {
	GetFile(ctx context.Context, id girder.FileID) (girder.File, error)
	GetItem(ctx context.Context, id girder.ItemID) (girder.Item, error)
	GetFolder(ctx context.Context, id girder.FolderID) (girder.Folder, error)
	// The pages of a list have [girder.PageSize] documents, but for the last.
	FilesPage(ctx context.Context, id girder.ItemID, offset int) ([]girder.File, error)
	ItemsPage(ctx context.Context, id girder.FolderID, offset int) ([]girder.Item, error)
	FoldersPage(ctx context.Context, id girder.FolderID, offset int) ([]girder.Folder, error)
	// DownloadFile opens the bytes behind offset; the caller closes them.
	DownloadFile(ctx context.Context, id girder.FileID, offset int64) (*girder.Download, error)
}

// Progress is told how far a step is: bytes of total of what has that name. The
// total of an item or a folder grows while its files are listed.
type Progress func(what string, bytes, total int64)

// In brings a file, an item or a folder of Girder to a volume. One of the three
// is set.
type In struct {
	Source Source
	File   girder.FileID
	Item   girder.ItemID   // its files, to <item id>/<name>, as Girder's client lays them out
	Folder girder.FolderID // to <folder id>/<FolderName>
	Volume string          // the folder of the volume on this node
	// Filename is the path of a File on the volume; empty: <file id>/<name in Girder>.
	Filename   string
	FolderName string // empty: the folder's name in Girder
	Retry      girder.Retry
	Progress   Progress // may be nil
	// Found is told how many bytes did not have to be fetched, since an earlier Run,
	// another step or the cache has them: just before the Progress that counts them.
	// It may be nil.
	Found func(bytes int64)
	// Waits is told why, before each wait for another try or for another step. May
	// be nil; called by several goroutines at a time.
	Waits    func(why error)
	Memory   Memory   // of an earlier Run, which is continued
	Remember Remember // may be nil
	Log      zerolog.Logger

	// Steps of one Task bring a file of Girder once, also if they run at the same
	// time: the others copy it from the volume that it is on.
	Task    string
	Fetches *Fetches // of this process; nil: nothing is shared
	// Girder tells one from another: its API URL, and how it is reached where that
	// is the task's own way. Files in the Cache are known by it.
	Girder string
	Cache  *cache.Cache // nil: there is none
	// Exposed says that others may write to the volume meanwhile. What is on it is
	// then not taken for what Girder sent: it does not go into the Cache.
	Exposed bool
}

// Staged says where the file, or the folder of files, is.
type Staged struct {
	Path  string // relative to the volume
	Bytes int64
	Found int64 // of them did not have to be fetched
}

// Run returns when everything is complete under its name, or with nothing left
// on the volume but folders, unless it was suspended.
func (in In) Run(ctx context.Context) (Staged, error) {
	s := &staging{In: in, old: maps.Clone(in.Memory.Partials)}
	staged, err := s.run(ctx)
	staged.Found = s.found
	if err == nil {
		err = s.dropOld()
	} else if !errors.Is(err, ErrSuspended) {
		err = errors.Join(err, s.dropOld(), s.dropPlaced())
	}
	if err == nil {
		return staged, nil
	}
	what := string(in.File) + string(in.Item) + string(in.Folder)
	if s.name != "" {
		what += " (" + s.name + ")"
	}
	return Staged{}, fmt.Errorf("stage in %s: %w", what, err)
}

// staging is one Run.
type staging struct {
	In
	root *os.Root
	old  map[NotedPath]Partial // what earlier runs left, by path
	name string                // in Girder
	many bool                  // an item or a folder
	same sameness              // of names, where there are many
	// linking is how little files get their names, where there are many.
	linking linking

	mu           sync.Mutex // guards what follows, and the calls of Remember and Progress
	bytes, total int64
	found        int64
	placed       []string
}

func (s *staging) run(ctx context.Context) (staged Staged, err error) {
	for _, path := range []string{s.Filename, s.FolderName} {
		if path == "" {
			continue
		}
		if err := checkPath(path); err != nil {
			return Staged{}, err
		}
	}
	if s.root, err = volume.OpenRoot(s.Volume); err != nil {
		return Staged{}, err
	}
	defer s.root.Close()
	switch {
	case s.Item != "":
		return s.item(ctx)
	case s.Folder != "":
		return s.folder(ctx)
	}
	doc, err := again(ctx, s, func() (girder.File, error) { return s.Source.GetFile(ctx, s.File) })
	if err != nil {
		return Staged{}, err
	}
	s.name = doc.Name
	path := filepath.Clean(s.Filename)
	if s.Filename == "" {
		path = filepath.Join(localName(string(s.File)), localName(doc.Name))
	}
	if err := makeFolders(s.root, filepath.Dir(path)); err != nil {
		return Staged{}, err
	}
	var in near
	defer in.close()
	size, err := s.file(ctx, &in, path, doc)
	return Staged{Path: path, Bytes: size}, err
}

// again asks with patience.
func again[T any](ctx context.Context, s *staging, ask func() (T, error)) (T, error) {
	var doc T
	err := s.Retry.Do(ctx, s.waiting, func() (bool, error) {
		var err error
		doc, err = ask()
		return false, err
	})
	return doc, err
}

func (s *staging) waiting(err error, wait time.Duration) {
	s.Log.Warn().Err(err).Stringer("wait", wait).Msg("stage in is tried again")
	s.waits(err)
}

func (s *staging) waits(why error) {
	if s.Waits != nil {
		s.Waits(why)
	}
}

func (s *staging) note(n Note) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Remember.note(n)
}

// moved takes in that n more bytes are on disk, of a file that has so many of total now.
func (s *staging) moved(what string, n, have, total int64) { s.progress(what, n, have, total, false) }

// came is moved for bytes that were not fetched.
func (s *staging) came(what string, n, have, total int64) { s.progress(what, n, have, total, true) }

func (s *staging) progress(what string, n, have, total int64, found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes += n
	if found {
		s.found += n
		if s.In.Found != nil && n > 0 {
			s.In.Found(n)
		}
	}
	if s.Progress == nil {
		return
	}
	if s.many {
		what, have, total = s.name, s.bytes, max(s.total, s.bytes)
	}
	s.Progress(what, have, max(total, 0))
}

// file brings one file to its path, whose folder is there.
func (s *staging) file(ctx context.Context, in *near, path string, doc girder.File) (size int64, err error) {
	if s.isLittle(path, doc) {
		doc, err = s.little(ctx, in, path, doc)
		if suspended := context.Cause(ctx); err != nil && errors.Is(suspended, ErrSuspended) {
			return 0, suspended
		}
		if !errors.Is(err, errNotHere) {
			return sizeOf(doc), err
		}
	}
	return s.large(ctx, in, path, doc)
}

func sizeOf(doc girder.File) int64 {
	if doc.Size == nil {
		return 0
	}
	return *doc.Size
}

// large brings a file to its path by way of a temporary name.
func (s *staging) large(ctx context.Context, in *near, path string, doc girder.File) (int64, error) {
	partial, have, err := s.resume(path, doc)
	if err != nil || partial == nil {
		return have, err
	}
	folder, err := in.open(s.root, filepath.Dir(path))
	if err != nil {
		return 0, err
	}
	leave, err := s.turn(ctx, doc)
	if err != nil {
		return 0, s.ended(ctx, string(partial.Temporary), err)
	}
	defer leave()
	doc, local, err := s.fetch(ctx, folder, partial, doc, leave)
	if err == nil {
		err = onPlace(path, place(folder, filepath.Base(string(partial.Temporary)), filepath.Base(path), !s.many))
	}
	if err != nil {
		return 0, s.ended(ctx, string(partial.Temporary), err)
	}
	s.isPlaced(path)
	s.share(folder, filepath.Base(path), doc, path, local)
	return local.Size, nil
}

// ended leaves or removes a part of a file, whose Run ends with an error.
func (s *staging) ended(ctx context.Context, temporary string, err error) error {
	if suspended := context.Cause(ctx); errors.Is(suspended, ErrSuspended) {
		return suspended
	}
	return errors.Join(err, remove(s.root, temporary))
}

func (s *staging) isPlaced(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.placed = append(s.placed, path)
}

// resume finds out what an earlier run left: the file in its place, and then
// no part of it but its size, or a part of it that the download goes on with,
// or nothing of use.
func (s *staging) resume(path string, doc girder.File) (part *Partial, have int64, err error) {
	old, found := s.old[NotedPath(path)]
	temporary := string(old.Temporary)
	if found && old.Created == doc.Created && old.Updated == doc.Updated && old.SHA512 == doc.SHA512 {
		sameRun := old.Boot != "" && old.Boot == boot()
		err := s.isLeft(temporary)
		if err == nil && (doc.SHA512 != "" || sameRun) {
			return &old, 0, nil
		}
		if errors.Is(err, os.ErrNotExist) && old.Whole != nil && (sameRun || !s.many) && isThere(s.root, path, *old.Whole) {
			s.came(doc.Name, old.Whole.Size, old.Whole.Size, old.Whole.Size)
			s.isPlaced(path)
			s.share(s.root, path, doc, path, *old.Whole)
			return nil, old.Whole.Size, nil
		}
	}
	if found {
		if err := remove(s.root, temporary); err != nil {
			return nil, 0, onVolume(temporary, err)
		}
	}
	part = &Partial{
		Path: NotedPath(path), Temporary: NotedPath(filepath.Join(filepath.Dir(path), ".gantry-"+contracts.NewToken())),
		Created: doc.Created, Updated: doc.Updated, SHA512: doc.SHA512, Boot: boot(),
	}
	return part, 0, s.note(Note{Partial: part})
}

// isLeft looks for what an earlier run left under a temporary name, if it had one.
func (s *staging) isLeft(temporary string) error {
	if temporary == "" {
		return os.ErrNotExist
	}
	_, err := s.root.Lstat(temporary)
	return err
}

// dropOld removes the parts that earlier runs left of files that are not
// wanted any more.
func (s *staging) dropOld() error {
	if len(s.old) == 0 {
		return nil
	}
	return Discard(s.Volume, Memory{Partials: s.old})
}

// dropPlaced removes the files that earlier runs gave their names: without the
// others nobody wants them.
func (s *staging) dropPlaced() error {
	if len(s.old) == 0 {
		return nil
	}
	root, err := volume.OpenRoot(s.Volume)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	for noted, old := range s.old {
		if path := string(noted); old.Whole != nil && isThere(root, path, *old.Whole) {
			err = errors.Join(err, onVolume(path, remove(root, path)))
		}
	}
	return err
}

// isThere reports whether a file is in a state that was noted.
func isThere(root *os.Root, path string, noted Local) bool {
	info, err := root.Lstat(path)
	return err == nil && info.Mode().IsRegular() && localOf(info) == noted
}
