package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"

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
// 5 MiB and takes at most 100 MiB.
const DefaultChunk = 16 << 20

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
	Progress  Progress // may be nil
	Memory    Memory   // of an earlier Run, which is continued
	Remember  Remember // may be nil
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
// suspended; files that were complete before stay and are returned.
func (o Out) Run(ctx context.Context) ([]contracts.GirderSent, error) {
	if o.Chunk == 0 {
		o.Chunk = DefaultChunk
	}
	s := &sending{Out: o, taken: map[girder.ItemID]bool{}}
	err := s.onVolume(func() error { return s.run(ctx) })
	if err != nil {
		return s.sent, fmt.Errorf("stage out %s: %w", o.Path, err)
	}
	return s.sent, nil
}

// Delete removes what Run put into Girder from the volume. It is safe to call
// more than once; a volume itself is never removed.
func (o Out) Delete() error {
	s := &sending{Out: o}
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

// sending is one Run.
type sending struct {
	Out
	root *os.Root // the volume
	path string   // Path in its shortest form

	names map[string]string // in Girder, of what was listed and is called otherwise there, by path

	taken       map[girder.ItemID]bool // items of files that were sent
	sent        []contracts.GirderSent
	looked      bool                   // what was attached before was asked for
	known       map[girder.FileID]bool // that, and what was since; nil: not known
	done, total int64
}

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

func (s *sending) run(ctx context.Context) error {
	info, err := s.root.Lstat(s.path)
	if err := onVolume(s.path, err); err != nil {
		if errors.Is(err, ErrMissing) && !s.MustExist {
			return nil
		}
		return err
	}
	for _, sent := range s.Memory.Sent {
		s.taken[girder.ItemID(sent.File.ItemID)] = true
	}
	if !info.IsDir() {
		s.total = info.Size()
		return s.single(ctx)
	}
	if s.total, err = s.measure(s.path); err != nil {
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
	var into *Target
	if s.Item == "" {
		var err error
		// The target's path is the file's folder, as it is for files of a folder.
		if into, err = s.target(ctx, filepath.Dir(s.path), "", nil); err != nil {
			return err
		}
	}
	return s.files(ctx, []string{s.path}, into)
}

func (s *sending) files(ctx context.Context, paths []string, into *Target) error {
	for _, path := range paths {
		one, err := s.file(ctx, path, into)
		if err != nil {
			return err
		}
		s.sent = append(s.sent, one)
		s.taken[girder.ItemID(one.ItemID)] = true
		s.done += one.Size
	}
	return nil
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

func (s *sending) file(ctx context.Context, path string, into *Target) (contracts.GirderSent, error) {
	file, local, err := open(s.root, path)
	if path != s.path && errors.Is(err, ErrMissing) {
		err = about(path, ErrVanished)
	}
	if err != nil {
		return contracts.GirderSent{}, err
	}
	defer file.Close()
	if sent, ok := s.Memory.Sent[NotedPath(path)]; ok && sent.Local == local {
		return sent.File, nil
	}
	name := s.nameOf(path)
	u := &upload{sending: s, path: path, name: name, into: into, size: local.Size, local: local, content: newContent(file)}
	before := s.done
	u.moved = func(bytes int64) {
		if s.Progress != nil {
			s.Progress(name, before+bytes, s.total)
		}
	}
	if err := u.resume(ctx); err != nil {
		return contracts.GirderSent{}, about(path, err)
	}
	doc, err := u.run(ctx)
	if err == nil {
		err = u.unchanged()
	}
	if err != nil {
		return contracts.GirderSent{}, about(path, err)
	}
	sent := contracts.GirderSent{
		Name: doc.Name, FileID: string(doc.ID), ItemID: string(doc.ItemID), Size: local.Size, SHA512: u.content.checksum(),
	}
	if err := s.Remember.note(Note{Sent: &Sent{Path: NotedPath(path), Local: local, File: sent}}); err != nil {
		s.Log.Warn().Err(err).Msg("not noted that an upload is complete")
	}
	return sent, nil
}

func (s *sending) allowed(ctx context.Context) error {
	if s.Allowed == nil {
		return nil
	}
	return s.Allowed(ctx)
}

func (s *sending) waiting(err error, wait time.Duration) {
	s.Log.Warn().Err(err).Stringer("wait", wait).Msg("stage out is tried again")
}

func (s *sending) warn(text string) {
	s.Log.Warn().Msg(text)
	if s.Warn != nil {
		s.Warn(text)
	}
}
