package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/girder"
)

// Sink is an item that takes files. What [girder.Client] says of the calls of
// these names holds: reads may be repeated, the rest has an unknown finish
// after an error, which Out resolves.
type Sink interface {
	ListItemFiles(ctx context.Context, id girder.ItemID) iter.Seq2[girder.File, error]
	StartUpload(ctx context.Context, f girder.NewFile) (girder.Upload, error)
	ReplaceContents(ctx context.Context, id girder.FileID, size int64, reference string) (girder.Upload, error)
	UploadChunk(ctx context.Context, id girder.UploadID, offset int64, body io.Reader, length int64) (girder.Upload, error)
	UploadOffset(ctx context.Context, id girder.UploadID) (int64, error)
	CancelUpload(ctx context.Context, id girder.UploadID) error
}

// DefaultChunk is how much of a file one request takes. Girder wants at least
// 5 MiB and takes at most 100 MiB.
const DefaultChunk = 16 << 20

// Out puts a file, or every file directly in a folder, into an item. A file of
// the same name there gets new contents and keeps its id.
type Out struct {
	Sink      Sink
	Item      girder.ItemID
	Volume    string // the folder of the volume on this node
	Path      string // on the volume; "." is the volume itself
	Reference string // handed through to Girder
	MustExist bool   // a missing path is an error
	Chunk     int64  // 0: DefaultChunk
	Retry     girder.Retry
	Progress  Progress // may be nil
	Memory    Memory   // of an earlier Run, which is continued
	Remember  Remember // may be nil
	// Allowed is asked before the request that makes a file appear in Girder;
	// its error ends the Run. May be nil.
	Allowed func(ctx context.Context) error
	Log     zerolog.Logger
}

// Run returns when all of it is in Girder. After an error no upload of it is
// left unfinished there, unless Girder could not be reached or it was
// suspended; files that were complete before stay and are returned.
func (o Out) Run(ctx context.Context) ([]contracts.GirderSent, error) {
	sent, err := o.run(ctx)
	if err != nil {
		return sent, fmt.Errorf("stage out %s: %w", o.Path, err)
	}
	return sent, nil
}

// Delete removes what Run put into Girder from the volume. It is safe to call
// more than once; a volume itself is never removed.
func (o Out) Delete() error {
	path := filepath.Clean(o.Path)
	if err := checkPath(path); err != nil || path == "." {
		return err
	}
	root, err := os.OpenRoot(o.Volume)
	if err != nil {
		return fmt.Errorf("delete %s: %w", path, err)
	}
	defer root.Close()
	return onVolume(path, root.RemoveAll(path))
}

func (o Out) run(ctx context.Context) ([]contracts.GirderSent, error) {
	if err := checkPath(o.Path); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(o.Volume)
	if err != nil {
		return nil, fmt.Errorf("open the volume: %w", err)
	}
	defer root.Close()
	path := filepath.Clean(o.Path)
	info, err := root.Stat(path)
	if err := onVolume(path, err); err != nil {
		if errors.Is(err, ErrMissing) && !o.MustExist {
			return nil, nil
		}
		return nil, err
	}
	paths, total := []string{path}, info.Size()
	if info.IsDir() {
		if paths, total, err = o.list(root, path); err != nil {
			return nil, err
		}
	}
	if o.Chunk == 0 {
		o.Chunk = DefaultChunk
	}
	var sent []contracts.GirderSent
	var done int64
	for _, path := range paths {
		one, err := o.file(ctx, root, path, done, total)
		if err != nil {
			return sent, err
		}
		sent = append(sent, one)
		done += one.Size
	}
	return sent, nil
}

// list finds what to upload from a folder, by name, and how much it is. Only
// files count, and links to files on the same volume: subfolders stay, as do
// pipes and sockets, which have nothing to upload, and links that lead nowhere
// or outside.
func (o Out) list(root *os.Root, path string) ([]string, int64, error) {
	folder, err := root.Open(path)
	if err != nil {
		return nil, 0, onVolume(path, err)
	}
	names, err := folder.Readdirnames(-1)
	if err := errors.Join(err, folder.Close()); err != nil {
		return nil, 0, onVolume(path, err)
	}
	slices.Sort(names)
	var paths []string
	var total int64
	for _, name := range names {
		inside := filepath.Join(path, name)
		info, err := root.Stat(inside)
		if err != nil && isLink(root, inside) {
			o.Log.Warn().Err(onVolume(inside, err)).Msg("a symbolic link is not uploaded")
			continue
		}
		if err != nil {
			return nil, 0, onVolume(inside, err)
		}
		if info.Mode().IsRegular() {
			paths, total = append(paths, inside), total+info.Size()
		}
	}
	return paths, total, nil
}

func isLink(root *os.Root, path string) bool {
	info, err := root.Lstat(path)
	return err == nil && info.Mode()&os.ModeSymlink != 0
}

// open opens a regular file and nothing else. Without blocking, since what was
// a file may be a pipe by now.
func open(root *os.Root, path string) (*os.File, Local, error) {
	file, err := root.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, Local{}, onVolume(path, err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = ErrNotRegular
	}
	if err != nil {
		return nil, Local{}, errors.Join(onVolume(path, err), file.Close())
	}
	return file, localOf(info), nil
}

func (o Out) file(ctx context.Context, root *os.Root, path string, before, total int64) (contracts.GirderSent, error) {
	file, local, err := open(root, path)
	if err != nil {
		return contracts.GirderSent{}, err
	}
	defer file.Close()
	if sent, ok := o.Memory.Sent[path]; ok && sent.Local == local {
		return sent.File, nil
	}
	name := filepath.Base(path)
	if path == "." {
		name = filepath.Base(o.Volume)
	}
	u := newUpload(o, path, strings.ToValidUTF8(name, "\uFFFD"), file, local)
	u.moved = func(bytes int64) {
		if o.Progress != nil {
			o.Progress(name, before+bytes, total)
		}
	}
	if err := o.resume(ctx, u); err != nil {
		return contracts.GirderSent{}, fmt.Errorf("%s: %w", name, err)
	}
	doc, err := u.run(ctx)
	if err != nil {
		return contracts.GirderSent{}, fmt.Errorf("%s: %w", name, err)
	}
	sent := contracts.GirderSent{
		Name: doc.Name, FileID: string(doc.ID), ItemID: string(doc.ItemID), Size: local.Size, SHA512: u.content.checksum(),
	}
	if err := o.Remember.note(Note{Sent: &Sent{Path: path, Local: local, File: sent}}); err != nil {
		o.Log.Warn().Err(err).Msg("not noted that an upload is complete")
	}
	return sent, nil
}

// resume makes an upload continue the one that an earlier process began, or
// cancels that one, if it is of another state of the file.
func (o Out) resume(ctx context.Context, u *upload) error {
	pending := o.Memory.Pending
	if pending == nil || pending.Path != u.path {
		return nil
	}
	u.resume(pending)
	if pending.Local == u.local {
		return nil
	}
	err := u.cancel(ctx)
	*u = upload{out: u.out, path: u.path, name: u.name, size: u.size, local: u.local, content: u.content, moved: u.moved}
	return err
}

func (o Out) allowed(ctx context.Context) error {
	if o.Allowed == nil {
		return nil
	}
	return o.Allowed(ctx)
}

func (o Out) waiting(err error, wait time.Duration) {
	o.Log.Warn().Err(err).Stringer("wait", wait).Msg("stage out is tried again")
}
