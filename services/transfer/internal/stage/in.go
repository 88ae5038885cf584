package stage

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/girder"
)

// Source is where files come from. Both calls may be made again after an error.
type Source interface {
	GetFile(ctx context.Context, id girder.FileID) (girder.File, error)
	// DownloadFile opens the bytes behind offset; the caller closes them.
	DownloadFile(ctx context.Context, id girder.FileID, offset int64) (*girder.Download, error)
}

// Progress is told how far a step is: bytes of total of the file with that name.
type Progress func(what string, bytes, total int64)

// In brings one file of Girder to a path on a volume.
type In struct {
	Source   Source
	File     girder.FileID
	Volume   string // the folder of the volume on this node
	Filename string // path on the volume; empty: <file id>/<name in Girder>
	Retry    girder.Retry
	Progress Progress // may be nil
	Memory   Memory   // of an earlier Run, which is continued
	Remember Remember // may be nil
	Log      zerolog.Logger
}

// Staged says where the file is.
type Staged struct {
	Path  string // relative to the volume
	Bytes int64
}

// Run returns when the file is complete under its name, or with nothing left on
// the volume but folders, unless it was suspended.
func (in In) Run(ctx context.Context) (Staged, error) {
	if in.Filename != "" {
		if err := checkPath(in.Filename); err != nil {
			return Staged{}, fmt.Errorf("stage in %s: %w", in.File, err)
		}
	}
	doc, err := in.document(ctx)
	if err != nil {
		return Staged{}, fmt.Errorf("stage in %s: %w", in.File, err)
	}
	root, err := os.OpenRoot(in.Volume)
	if err != nil {
		return Staged{}, fmt.Errorf("stage in %s: open the volume: %w", in.File, err)
	}
	defer root.Close()
	staged, err := in.stage(ctx, root, doc)
	if err != nil {
		return Staged{}, fmt.Errorf("stage in %s (%s): %w", in.File, doc.Name, err)
	}
	return staged, nil
}

func (in In) document(ctx context.Context) (girder.File, error) {
	var doc girder.File
	err := in.Retry.Do(ctx, in.waiting, func() (bool, error) {
		var err error
		doc, err = in.Source.GetFile(ctx, in.File)
		return false, err
	})
	return doc, err
}

func (in In) waiting(err error, wait time.Duration) {
	in.Log.Warn().Err(err).Stringer("wait", wait).Msg("stage in is tried again")
}

func (in In) stage(ctx context.Context, root *os.Root, doc girder.File) (Staged, error) {
	path := filepath.Clean(in.Filename)
	if in.Filename == "" {
		path = filepath.Join(localName(string(in.File)), localName(doc.Name))
	}
	folder := filepath.Dir(path)
	if err := makeFolders(root, folder); err != nil {
		return Staged{}, err
	}
	partial, found, err := in.resume(root, path, doc)
	if err != nil || found.Path != "" {
		return found, err
	}
	size, err := in.fetch(ctx, root, partial, doc)
	if err == nil {
		err = onPlace(path, place(root, partial.Temporary, path))
	}
	if err != nil && errors.Is(context.Cause(ctx), ErrSuspended) {
		return Staged{}, context.Cause(ctx)
	}
	if err != nil {
		return Staged{}, errors.Join(err, remove(root, partial.Temporary))
	}
	return Staged{Path: path, Bytes: size}, nil
}

// resume finds out what an earlier run left: the file in its place, or a part
// of it that the download goes on with, or nothing of use.
func (in In) resume(root *os.Root, path string, doc girder.File) (part *Partial, found Staged, err error) {
	old := in.Memory.Partial
	if old != nil && old.Path == path && old.Created == doc.Created && old.Updated == doc.Updated && old.SHA512 == doc.SHA512 {
		_, err := root.Lstat(old.Temporary)
		if err == nil && (doc.SHA512 != "" || old.Boot != "" && old.Boot == boot()) {
			return old, Staged{}, nil
		}
		if errors.Is(err, os.ErrNotExist) && old.Whole != nil && isThere(root, path, *old.Whole) {
			return nil, Staged{Path: path, Bytes: old.Whole.Size}, nil
		}
	}
	if old != nil {
		if err := remove(root, old.Temporary); err != nil {
			return nil, Staged{}, onVolume(old.Temporary, err)
		}
	}
	part = &Partial{
		Path: path, Temporary: filepath.Join(filepath.Dir(path), ".gantry-"+contracts.NewToken()),
		Created: doc.Created, Updated: doc.Updated, SHA512: doc.SHA512, Boot: boot(),
	}
	return part, Staged{}, in.Remember.note(Note{Partial: part})
}

// isThere reports whether a file is in a state that was noted.
func isThere(root *os.Root, path string, noted Local) bool {
	info, err := root.Lstat(path)
	return err == nil && info.Mode().IsRegular() && localOf(info) == noted
}

// fetch downloads what is missing of the temporary file and makes it durable.
func (in In) fetch(ctx context.Context, root *os.Root, partial *Partial, doc girder.File) (int64, error) {
	file, err := root.OpenFile(partial.Temporary, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o644)
	if err != nil {
		return 0, onPlace(filepath.Dir(partial.Path), err)
	}
	d := &download{in: in, doc: doc, file: file, total: -1}
	if doc.Size != nil {
		d.total = *doc.Size
	}
	if doc.SHA512 != "" {
		d.sum = sha512.New()
	}
	err = d.recover()
	if err == nil {
		err = in.Retry.Do(ctx, in.waiting, func() (bool, error) { return d.more(ctx) })
	}
	if err == nil {
		err = d.check()
	}
	if err == nil {
		err = onVolume(doc.Name, errors.Join(file.Chmod(0o644), file.Sync())) // whatever the umask says
	}
	if err == nil {
		d.whole(*partial)
	}
	return d.have, errors.Join(err, onVolume(doc.Name, file.Close()))
}

// download is the state of one file on its way to disk.
type download struct {
	in    In
	doc   girder.File
	file  *os.File
	sum   hash.Hash // nil where there is nothing to compare with
	have  int64
	total int64 // -1: not known
	fails int   // server errors for a file whose name may be why
}

// recover takes in what an earlier run got; more than there can be is no part of the file.
func (d *download) recover() error {
	info, err := d.file.Stat()
	if err != nil {
		return onVolume(d.doc.Name, err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s: %w", d.doc.Name, ErrInTheWay)
	}
	if d.total >= 0 && info.Size() > d.total {
		return onVolume(d.doc.Name, d.file.Truncate(0))
	}
	if d.sum != nil {
		d.have, err = io.Copy(d.sum, d.file)
	} else {
		d.have, err = d.file.Seek(0, io.SeekEnd)
	}
	return onVolume(d.doc.Name, err)
}

// whole notes how the complete file is to be known again under its name. It
// only spares a later process the download.
func (d *download) whole(partial Partial) {
	info, err := d.file.Stat()
	if err == nil {
		local := localOf(info)
		partial.Whole = &local
		err = d.in.Remember.note(Note{Partial: &partial})
	}
	if err != nil {
		d.in.Log.Warn().Err(err).Msg("not noted that a download is complete")
	}
}

// more gets the bytes behind those that we have, up to the end or an error,
// and reports whether there were any.
func (d *download) more(ctx context.Context) (bool, error) {
	if d.have == d.total {
		return false, nil
	}
	body, err := d.in.Source.DownloadFile(ctx, d.doc.ID, d.have)
	if err != nil {
		return false, d.nameToBlame(err)
	}
	defer body.Close()
	if body.Size >= 0 && d.total >= 0 && body.Size != d.total {
		return false, fmt.Errorf("%w: %d of %d", ErrIncomplete, body.Size, d.total)
	}
	if d.total < 0 {
		d.total = body.Size
	}
	before := d.have
	_, err = io.Copy(d, body)
	if err == nil && d.have < d.total {
		// The connection ended as if all were there: as good as broken.
		err = &girder.Unreachable{
			Method: "GET", Path: "file/" + string(d.doc.ID) + "/download",
			Err: fmt.Errorf("%w: %d of %d", ErrIncomplete, d.have, d.total),
		}
	}
	return d.have > before, err
}

// patienceWithName is how many server errors it takes to believe that they come from the file's name.
const patienceWithName = 5

// nameToBlame ends the tries for a file that Girder will never send.
func (d *download) nameToBlame(err error) error {
	var refusal *girder.Error
	if !errors.As(err, &refusal) || refusal.Status != http.StatusInternalServerError || !strings.ContainsAny(d.doc.Name, unservable) {
		return err
	}
	if d.fails++; d.fails < patienceWithName {
		return err
	}
	return fmt.Errorf("%w (%s)", ErrUnservable, refusal.Error())
}

// Write takes bytes from the network to the disk.
func (d *download) Write(p []byte) (int, error) {
	if d.total >= 0 && d.have+int64(len(p)) > d.total {
		return 0, fmt.Errorf("%w: more than %d", ErrIncomplete, d.total)
	}
	n, err := d.file.Write(p)
	if d.sum != nil {
		d.sum.Write(p[:n])
	}
	d.have += int64(n)
	if d.in.Progress != nil {
		d.in.Progress(d.doc.Name, d.have, max(d.total, 0))
	}
	return n, onVolume(d.doc.Name, err)
}

func (d *download) check() error {
	if d.sum == nil || strings.EqualFold(hex.EncodeToString(d.sum.Sum(nil)), d.doc.SHA512) {
		return nil
	}
	return ErrChecksum
}

// makeFolders makes the missing parts of a path, open to every user of the
// container, and keeps the set-group bit that new folders inherit.
func makeFolders(root *os.Root, path string) error {
	if path == "." {
		return nil
	}
	if err := makeFolders(root, filepath.Dir(path)); err != nil {
		return err
	}
	err := root.Mkdir(path, 0o777)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return onPlace(path, err)
	}
	info, err := root.Stat(path)
	if err == nil {
		err = root.Chmod(path, info.Mode()|0o777)
	}
	return onVolume(path, err)
}

// place gives a complete file its name and makes the name durable.
func place(root *os.Root, temporary, path string) error {
	if err := root.Rename(temporary, path); err != nil {
		return err
	}
	folder, err := root.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

func remove(root *os.Root, path string) error {
	err := root.Remove(path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) { // it was never made
		return nil
	}
	return err
}
