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

	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/transfer/internal/cache"
	"github.com/gantry-worker/gantry/services/transfer/internal/room"
)

// openMode is what a file's mode has to be, whatever the umask says.
const openMode = 0o644

// fetch fills the temporary file, makes it durable unless it is one of many, and
// returns what it is then, with the document of the contents that it has. leave
// lets others have the file, and is called here when they can.
func (s *staging) fetch(ctx context.Context, folder *os.Root, partial *Partial, doc girder.File, leave func()) (girder.File, Local, error) {
	file, err := folder.OpenFile(filepath.Base(string(partial.Temporary)), os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, openMode)
	if err != nil {
		return doc, Local{}, onPlace(filepath.Dir(string(partial.Path)), err)
	}
	d := &download{staging: s, partial: partial, file: file}
	d.expects(doc)
	local, err := d.run(ctx, leave)
	return d.doc, local, errors.Join(err, onVolume(doc.Name, file.Close()))
}

// expects takes a document for that of the bytes that come next.
func (d *download) expects(doc girder.File) {
	d.doc, d.total, d.sum = doc, -1, nil
	if doc.Size != nil {
		d.total = *doc.Size
	}
	if doc.SHA512 != "" {
		d.sum = sha512.New()
	}
}

func (d *download) run(ctx context.Context, leave func()) (Local, error) {
	info, err := d.file.Stat()
	switch {
	case err == nil && !info.Mode().IsRegular():
		err = ErrInTheWay
	case err == nil && info.Mode() != openMode:
		err = d.file.Chmod(openMode)
	}
	if err != nil {
		return Local{}, onVolume(d.doc.Name, err)
	}
	d.had = info.Size()
	if err := d.fill(ctx, leave); err != nil {
		return Local{}, err
	}
	if !d.many {
		if err := d.file.Sync(); err != nil {
			return Local{}, onVolume(d.doc.Name, err)
		}
	}
	return d.whole(*d.partial)
}

// longWait is from which wait before the next try on others may try to fetch the
// file too: else each of them in turn would lose all its patience with a file
// that cannot be had.
const longWait = 2 * time.Second

// fill gets all bytes: from this node, if they are there, else from Girder.
func (d *download) fill(ctx context.Context, leave func()) error {
	if whole, err := d.copyHere(ctx, leave); whole || err != nil {
		return err
	}
	err := d.recover()
	if err == nil {
		err = d.reserve()
	}
	if err == nil {
		err = d.Retry.Do(ctx, func(err error, wait time.Duration) {
			if wait >= longWait {
				leave()
			}
			d.waiting(err, wait)
		}, func() (bool, error) { return d.more(ctx) })
	}
	if err == nil && d.kept(d.doc) {
		d.Cache.Keep(ctx, d.key(d.doc), d.file)
	}
	return err
}

// download is the state of one file on its way to disk.
type download struct {
	*staging
	partial *Partial
	doc     girder.File
	file    *os.File // nil: it is received in memory
	memory  []byte
	sum     hash.Hash // nil where there is nothing to compare with
	had     int64     // when it was opened
	have    int64
	total   int64 // -1: not known
	asked   int64 // of what we have, the disk was asked to take so much
	fails   int   // server errors for a file whose name may be why
	resumed bool  // some bytes came in another answer than those before

	doubts int // times that the bytes were not those of the file
}

// copyHere takes the bytes from the cache, or from where another step of the
// task has brought them, and reports whether it did.
func (d *download) copyHere(ctx context.Context, leave func()) (bool, error) {
	from, still := d.find()
	if from == nil {
		return false, nil
	}
	defer from.Close()
	leave()
	err := d.copy(ctx, from)
	if err == nil && !still() {
		err = ErrChanged
	}
	if err == nil || context.Cause(ctx) != nil || errors.Is(err, ErrNoSpace) {
		return err == nil, err
	}
	d.Log.Warn().Err(err).Str("file", string(d.doc.ID)).Msg("a file is on this node and cannot be copied, fetched again")
	d.came(d.doc.Name, -d.have, 0, d.total)
	return false, d.empty()
}

// find opens the bytes where they are on this node. still reports whether what
// was opened has not changed since.
func (d *download) find() (from *os.File, still func() bool) {
	if d.cached(d.doc) {
		if from = d.Cache.Find(d.key(d.doc)); from != nil {
			return from, func() bool { return true }
		}
	}
	id, ok := d.shared(d.doc)
	if !ok {
		return nil, nil
	}
	from, at := d.Fetches.find(id)
	return from, func() bool { return at.isAsItWas(from) }
}

func (d *download) copy(ctx context.Context, from *os.File) error {
	if err := d.empty(); err != nil {
		return err
	}
	if cache.Clone(d.file, from) {
		d.have = d.total
		d.came(d.doc.Name, d.have, d.have, d.total)
		return nil
	}
	if err := d.reserve(); err != nil {
		return err
	}
	return onVolume(d.doc.Name, cache.Copy(ctx, d.file, from, d.total, func(n int64) {
		d.have += n
		d.came(d.doc.Name, n, d.have, d.total)
	}))
}

// reserve sets room for what is missing aside. The cache gives way to it.
func (d *download) reserve() error {
	if d.total < 0 || d.file == nil {
		return nil
	}
	err := room.Reserve(d.file, d.total)
	var short *room.Short
	if errors.As(err, &short) && d.Cache.GiveWay(d.file, short.Missing()) {
		err = room.Reserve(d.file, d.total)
	}
	if errors.As(err, &short) {
		return fmt.Errorf("%w %s: %w", ErrNoSpace, d.Volume, short)
	}
	return onVolume(d.doc.Name, err)
}

// recover takes in what an earlier run got; more than there can be is no part of the file.
func (d *download) recover() (err error) {
	switch {
	case d.had == 0:
		return nil
	case d.total >= 0 && d.had > d.total:
		return d.empty()
	case d.sum != nil:
		d.have, err = io.Copy(d.sum, d.file)
	default:
		d.have, err = d.file.Seek(0, io.SeekEnd)
	}
	d.came(d.doc.Name, d.have, d.have, d.total)
	return onVolume(d.doc.Name, err)
}

// whole notes how the complete file is to be known again under its name. It
// only spares a later process the download.
func (d *download) whole(partial Partial) (Local, error) {
	info, err := d.file.Stat()
	if err != nil {
		return Local{}, onVolume(d.doc.Name, err)
	}
	local := localOf(info)
	partial.Whole = &local
	d.noteWhole(partial)
	return local, nil
}

func (d *download) noteWhole(whole Partial) {
	if err := d.note(Note{Partial: &whole}); err != nil {
		d.Log.Warn().Err(err).Msg("not noted that a download is complete")
	}
}

// more gets the bytes behind those that we have, up to the end or an error,
// and reports whether there were any.
func (d *download) more(ctx context.Context) (bool, error) {
	if d.have == d.total {
		return false, d.verify(ctx)
	}
	d.resumed = d.resumed || d.have > 0
	body, err := d.Source.DownloadFile(ctx, d.doc.ID, d.have)
	if err != nil {
		return false, d.nameToBlame(err)
	}
	defer body.Close()
	if body.Size >= 0 && d.total >= 0 && body.Size != d.total {
		return false, d.doubt(fmt.Errorf("%w: %d of %d", ErrIncomplete, body.Size, d.total))
	}
	if d.total < 0 && body.Size >= 0 {
		d.total = body.Size
		if err := d.reserve(); err != nil {
			return false, err
		}
	}
	before := d.have
	err = d.pump(body)
	switch {
	case errors.Is(err, ErrIncomplete): // there is more than there should be
		return true, d.doubt(err)
	case err == nil && d.have < d.total:
		// The connection ended as if all were there: as good as broken.
		err = d.broken(fmt.Errorf("%w: %d of %d", ErrIncomplete, d.have, d.total))
	case err == nil:
		return true, d.verify(ctx)
	}
	return d.have > before, err
}

func (d *download) broken(err error) error {
	return &girder.Unreachable{Method: "GET", Path: "file/" + string(d.doc.ID) + "/download", Err: err}
}

// patienceWithBytes is how many times it takes to believe that Girder, and
// nothing on the way, has other bytes than it says.
const patienceWithBytes = 5

// doubt begins the download anew after bytes that cannot be those of the file.
func (d *download) doubt(err error) error {
	if err == nil {
		return nil
	}
	if d.doubts++; d.doubts == patienceWithBytes {
		return err
	}
	d.moved(d.doc.Name, -d.have, 0, d.total)
	local := d.empty()
	if local == nil {
		local = d.reserve()
	}
	if local != nil {
		return local
	}
	return d.broken(err)
}

// empty begins the file anew.
func (d *download) empty() error {
	d.had, d.have, d.asked, d.resumed = 0, 0, 0, false
	if d.sum != nil {
		d.sum.Reset()
	}
	if d.file == nil {
		d.memory = d.memory[:0]
		return nil
	}
	_, err := d.file.Seek(0, io.SeekStart)
	return onVolume(d.doc.Name, errors.Join(err, d.file.Truncate(0)))
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

// verify makes sure that all bytes are those of one state of the file. Without a
// checksum only its document tells whether it got other contents between two answers.
func (d *download) verify(ctx context.Context) error {
	if d.sum != nil {
		return d.doubt(d.check())
	}
	if !d.resumed {
		return nil
	}
	now, err := d.Source.GetFile(ctx, d.doc.ID)
	if err != nil || d.doc.SameContents(now) {
		return err
	}
	return d.replaced(now)
}

// replaced begins the download of the contents that the file has now. They are
// noted when nothing of those before is on disk: a later process would go on with it.
func (d *download) replaced(now girder.File) error {
	d.expects(now)
	again := d.doubt(ErrReplaced)
	if !girder.IsTemporary(again) { // there have been enough of them, or the disk is full
		return again
	}
	if d.partial == nil { // nothing is noted, or on disk
		return again
	}
	d.partial.Created, d.partial.Updated, d.partial.SHA512 = now.Created, now.Updated, now.SHA512
	if err := d.note(Note{Partial: d.partial}); err != nil {
		return err
	}
	return again
}

func (d *download) check() error {
	if strings.EqualFold(hex.EncodeToString(d.sum.Sum(nil)), d.doc.SHA512) {
		return nil
	}
	return ErrChecksum
}
