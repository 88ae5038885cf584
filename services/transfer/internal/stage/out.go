package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/internal/volume"
)

// Sink is a Girder that takes files. What [girder.Client] says of the calls of
// these names holds: reads may be repeated, the rest has an unknown finish
// after an error, which Out resolves.
type Sink interface {
	ListItemFiles(ctx context.Context, id girder.ItemID) iter.Seq2[girder.File, error]
	StartUpload(ctx context.Context, f girder.NewFile) (girder.Upload, error)
	ReplaceContents(ctx context.Context, id girder.FileID, size int64, reference string) (girder.Upload, error)
	UploadChunk(ctx context.Context, id girder.UploadID, offset int64, body io.Reader, length int64) (girder.Upload, error)
	UploadOffset(ctx context.Context, id girder.UploadID) (int64, error)
	CancelUpload(ctx context.Context, id girder.UploadID) error

	// What follows is for files that go into a folder.

	GetFile(ctx context.Context, id girder.FileID) (girder.File, error)
	GetItem(ctx context.Context, id girder.ItemID) (girder.Item, error)
	NewestItems(ctx context.Context, id girder.FolderID, offset int) ([]girder.Item, error)
	FilesPage(ctx context.Context, id girder.ItemID, offset int) ([]girder.File, error)
	CreateFolder(ctx context.Context, parent girder.FolderID, name string, reuse bool) (girder.Folder, error)
	DownloadFile(ctx context.Context, id girder.FileID, offset int64) (*girder.Download, error)
}

// DefaultChunk is how much of a file one request takes. Girder wants at least
// 5 MiB and takes at most 100 MiB; its own client sends as much as this, so that
// whatever is before a Girder lets it pass.
const DefaultChunk = 64 << 20

// A file in a folder is hashed to its end before the last chunk of it is sent.
// For that not to cost much, a last chunk is shorter where there is a lot to hash.
const (
	longTail  = 32 << 20
	shortTail = 4 << 20
)

// uploaders is how many files of a step are on their way at a time.
const uploaders = 8

// Out puts a file or a folder into an item or a folder of Girder.
type Out struct {
	Sink Sink
	// Item takes a file, or every file directly in a folder. One of the same name
	// gets new contents and keeps its id.
	Item girder.ItemID
	// Folder, instead of Item, takes a file as a new item of its name, or a folder
	// with all that is in it; folders of the same name are used again. A file that
	// this job put there before gets new contents instead.
	Folder    girder.FolderID
	Flat      bool   // of a folder only the files directly in it go into Folder
	Volume    string // the folder of the volume on this node
	Path      string // on the volume; "." is the volume itself
	Name      string // of a single file in Girder; empty: its own
	Reference string // handed through to Girder
	MustExist bool   // a missing path is an error
	Chunk     int64  // 0: DefaultChunk
	Retry     girder.Retry
	Progress  Progress // may be nil; called by one goroutine at a time, as Found and Allowed are
	// Found is told, before Progress, of bytes that were in Girder already. May be nil.
	Found func(bytes int64)
	// Waits is told why, before each wait for another try. May be nil; called by
	// several goroutines at a time.
	Waits    func(why error)
	Memory   Memory   // of an earlier Run, which is continued
	Remember Remember // may be nil; called by several goroutines at a time
	// Before are files that earlier attempts of the job put into Girder.
	Before []contracts.GirderSent
	// Warn is told, in a sentence, what is left out of a folder. May be nil.
	Warn func(string)
	// Allowed is asked before the request that makes a file appear in Girder;
	// its error ends the Run. May be nil.
	Allowed func(ctx context.Context) error
	Log     zerolog.Logger
}

// Run returns when all of it is in Girder. After an error no upload of it is
// left unfinished there, unless Girder could not be reached or it was
// suspended; files that were complete before stay and are returned, in the
// order of their names.
func (o Out) Run(ctx context.Context) ([]contracts.GirderSent, error) {
	s := newSending(o)
	err := s.onVolume(func() error { return s.run(ctx) })
	if err != nil {
		return s.sent(), fmt.Errorf("stage out %s: %w", o.Path, err)
	}
	return s.sent(), nil
}

// Delete removes what Run put into Girder from the volume. It is safe to call
// more than once; a volume itself is never removed.
func (o Out) Delete() error {
	s := newSending(o)
	err := s.onVolume(func() error {
		if s.path == "." {
			return nil
		}
		return onVolume(s.path, s.root.RemoveAll(s.path))
	})
	if err != nil {
		return fmt.Errorf("delete %s: %w", o.Path, err)
	}
	return nil
}

// sending is one Run. One goroutine walks through what is to be sent; several
// send it.
type sending struct {
	Out
	root  *os.Root // the volume
	path  string   // Path in its shortest form
	whole string   // what a folder is called; empty for a file, and for a volume

	// The walk's own, but that listed is read by all.
	listed   map[string]*girder.File           // what the item had before, by name
	names    map[string]string                 // in Girder, of what was listed and is called otherwise there, by path
	measured map[string]int64                  // the size of the files of a folder, at the first look
	results  []*contracts.GirderSent           // in order; without an id while it is not there
	targets  map[girder.FolderID]NotedPath     // whose files go there
	group    *errgroup.Group                   // of the files that are on their way
	fail     func(error)                       // ends the Run
	earlier  map[string][]contracts.GirderSent // Before, by name
	pathsOf  map[string][]NotedPath            // of files that are noted, by id

	// Of artifacts, which are sent one after the other.
	looked bool                   // what was attached before was asked for
	known  map[girder.FileID]bool // that, and what was since; nil: not known

	mu          sync.Mutex             // guards what follows, and the calls of Progress and Found
	taken       map[girder.ItemID]bool // items of files that were sent
	done, total int64

	asking sync.Mutex // guards the calls of Allowed

	most atomic.Int64 // bytes of a chunk
}

func newSending(o Out) *sending {
	if o.Chunk == 0 {
		o.Chunk = DefaultChunk
	}
	o.Memory = o.Memory.Clone() // what is noted from now on is of this Run
	s := &sending{
		Out: o, group: new(errgroup.Group), fail: func(error) {}, taken: map[girder.ItemID]bool{}, measured: map[string]int64{},
		targets: map[girder.FolderID]NotedPath{}, earlier: map[string][]contracts.GirderSent{}, pathsOf: map[string][]NotedPath{},
	}
	s.most.Store(o.Chunk)
	s.group.SetLimit(uploaders)
	for _, sent := range o.Before {
		s.earlier[sent.Name] = append(s.earlier[sent.Name], sent)
	}
	for _, memory := range s.memories() {
		for path, sent := range memory.Sent {
			s.pathsOf[sent.File.FileID] = append(s.pathsOf[sent.File.FileID], path)
		}
	}
	for _, sent := range o.Memory.Sent {
		s.taken[girder.ItemID(sent.File.ItemID)] = true
	}
	return s
}

// memories are this attempt's and those before it, the latest first.
func (s *sending) memories() []Memory { return append([]Memory{s.Memory}, s.Memory.Earlier...) }

// onVolume calls do with the volume open, where the path is one on it that
// leads over no symbolic link.
func (s *sending) onVolume(do func() error) error {
	if err := checkPath(s.Path); err != nil {
		return err
	}
	return volume.Volume{Host: s.Volume}.Within(filepath.Clean(s.Path), func(root *os.Root, clean string) error {
		s.root, s.path = root, clean
		return do()
	})
}

// run walks, and returns when all that it began has ended. The first error ends
// the others.
func (s *sending) run(ctx context.Context) error {
	ctx, s.fail = context.WithCancelCause(ctx)
	defer s.fail(nil)
	err := s.walk(ctx)
	if err != nil {
		s.fail(err)
	}
	if waited := s.group.Wait(); err == nil {
		err = waited
	}
	if err != nil {
		return context.Cause(ctx)
	}
	return nil
}

func (s *sending) walk(ctx context.Context) error {
	info, err := s.root.Lstat(s.path)
	if err := onVolume(s.path, err); err != nil {
		if errors.Is(err, ErrMissing) && !s.MustExist {
			return nil
		}
		return err
	}
	if !info.IsDir() {
		return s.single(ctx)
	}
	if s.path != "." {
		s.whole = validName(filepath.Base(s.path))
	}
	if err = s.measure(s.path); err != nil {
		return err
	}
	if !s.isFlat() {
		return s.tree(ctx, s.path, "", nil)
	}
	var into *Target
	if s.Item == "" {
		if into, err = s.target(ctx, s.path, "", nil); err != nil {
			return err
		}
	}
	found, err := s.list(s.path, true)
	if err != nil {
		return err
	}
	return s.files(ctx, found.files, into)
}

func (s *sending) isFlat() bool { return s.Flat || s.Item != "" }

func (s *sending) single(ctx context.Context) error {
	file, local, err := open(s.root, s.path) // before anything is asked for
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	s.expect(local.Size)
	var into *Target
	if s.Item == "" {
		// The target's path is the file's folder, as it is for files of a folder.
		if into, err = s.target(ctx, filepath.Dir(s.path), "", nil); err != nil {
			return err
		}
	}
	return s.files(ctx, []output{{path: s.path, size: local.Size}}, into)
}

// files begins with files, some at a time. How they end, run waits for.
func (s *sending) files(ctx context.Context, found []output, into *Target) error {
	if into == nil && len(found) > 0 {
		if err := s.listItem(ctx); err != nil {
			return err
		}
	}
	for i, out := range found {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if into != nil && i%manySmall == 0 {
			if err := s.foretell(found[i:min(i+manySmall, len(found))]); err != nil {
				return err
			}
			out = found[i]
		}
		u := &upload{
			sending: s, path: out.path, name: s.nameOf(out.path), into: into, size: out.size, foretold: out.foretold, to: s.result(),
		}
		s.group.Go(func() error {
			err := u.deliver(ctx)
			if err != nil {
				s.fail(err)
			}
			return err
		})
	}
	return nil
}

// listItem learns what the item has: once for all files, since each looks for
// another name. Of several files of one name the first counts.
func (s *sending) listItem(ctx context.Context) error {
	return s.Retry.Do(ctx, s.waiting, func() (bool, error) {
		s.listed = map[string]*girder.File{}
		for file, err := range s.Sink.ListItemFiles(ctx, s.Item) {
			if err != nil {
				return false, err
			}
			if s.listed[file.Name] == nil {
				s.listed[file.Name] = &file
			}
		}
		return false, nil
	})
}

// settle waits for all files that are on their way.
func (s *sending) settle() error {
	err := s.group.Wait()
	s.group = new(errgroup.Group)
	s.group.SetLimit(uploaders)
	return err
}

// result is the place of the next file among the results.
func (s *sending) result() *contracts.GirderSent {
	s.results = append(s.results, new(contracts.GirderSent))
	return s.results[len(s.results)-1]
}

// sent are the results that are there.
func (s *sending) sent() []contracts.GirderSent {
	var sent []contracts.GirderSent
	for _, one := range s.results {
		if one.FileID != "" {
			sent = append(sent, *one)
		}
	}
	return sent
}

// nameOf is what a file, or a folder, is called in Girder.
func (s *sending) nameOf(path string) string {
	if name, ok := s.names[path]; ok {
		return name
	}
	if path == s.path && s.Name != "" {
		return validName(s.Name)
	}
	return validName(filepath.Base(path))
}

// isTaken reports whether an item is that of a file that was sent.
func (s *sending) isTaken(id girder.ItemID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken[id]
}

// take says that a file is in Girder.
func (s *sending) take(one contracts.GirderSent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken[girder.ItemID(one.ItemID)] = true
}

// what is being sent: a file, or the folder that is.
func (s *sending) what(file string) string {
	if s.whole == "" {
		return file
	}
	return s.whole
}

// expect changes the total, of what turns out to be larger or smaller.
func (s *sending) expect(more int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total += more
}

func (s *sending) allowed(ctx context.Context) error {
	if s.Allowed == nil {
		return nil
	}
	s.asking.Lock()
	defer s.asking.Unlock()
	return s.Allowed(ctx)
}

func (s *sending) waiting(err error, wait time.Duration) {
	s.Log.Warn().Err(err).Stringer("wait", wait).Msg("stage out is tried again")
	if s.Waits != nil {
		s.Waits(err)
	}
}

func (s *sending) warn(text string) {
	s.Log.Warn().Msg(text)
	if s.Warn != nil {
		s.Warn(text)
	}
}
