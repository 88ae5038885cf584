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

	"github.com/gantry-worker/gantry/services/internal/girder"
)

// fetch downloads what is missing of the temporary file and makes it durable.
func (s *staging) fetch(ctx context.Context, partial *Partial, doc girder.File, durably bool) (int64, error) {
	file, err := s.root.OpenFile(string(partial.Temporary), os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o644)
	if err != nil {
		return 0, onPlace(filepath.Dir(string(partial.Path)), err)
	}
	d := &download{staging: s, doc: doc, file: file, total: -1}
	if doc.Size != nil {
		d.total = *doc.Size
	}
	if doc.SHA512 != "" {
		d.sum = sha512.New()
	}
	err = d.recover()
	if err == nil {
		err = s.Retry.Do(ctx, s.waiting, func() (bool, error) { return d.more(ctx) })
	}
	if err == nil {
		err = d.check()
	}
	if err == nil {
		err = onVolume(doc.Name, file.Chmod(0o644)) // whatever the umask says
	}
	if err == nil && durably {
		err = onVolume(doc.Name, file.Sync())
	}
	if err == nil {
		d.whole(*partial)
	}
	return d.have, errors.Join(err, onVolume(doc.Name, file.Close()))
}

// download is the state of one file on its way to disk.
type download struct {
	*staging
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
	d.moved(d.doc.Name, d.have, d.have, d.total)
	return onVolume(d.doc.Name, err)
}

// whole notes how the complete file is to be known again under its name. It
// only spares a later process the download.
func (d *download) whole(partial Partial) {
	info, err := d.file.Stat()
	if err == nil {
		local := localOf(info)
		partial.Whole = &local
		err = d.note(Note{Partial: &partial})
	}
	if err != nil {
		d.Log.Warn().Err(err).Msg("not noted that a download is complete")
	}
}

// more gets the bytes behind those that we have, up to the end or an error,
// and reports whether there were any.
func (d *download) more(ctx context.Context) (bool, error) {
	if d.have == d.total {
		return false, nil
	}
	body, err := d.Source.DownloadFile(ctx, d.doc.ID, d.have)
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
	d.moved(d.doc.Name, int64(n), d.have, d.total)
	return n, onVolume(d.doc.Name, err)
}

func (d *download) check() error {
	if d.sum == nil || strings.EqualFold(hex.EncodeToString(d.sum.Sum(nil)), d.doc.SHA512) {
		return nil
	}
	return ErrChecksum
}
