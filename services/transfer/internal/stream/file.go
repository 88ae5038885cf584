package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/services/internal/fifo"
	"github.com/gantry-worker/gantry/services/internal/girder"
)

// Source is where files come from. Both calls may be made again after an error.
type Source interface {
	GetFile(ctx context.Context, id girder.FileID) (girder.File, error)
	// DownloadFile opens the bytes behind offset; the caller closes them.
	DownloadFile(ctx context.Context, id girder.FileID, offset int64) (*girder.Download, error)
}

// Moved is told how many bytes were moved so far, of total, 0 if that is not known.
type Moved func(bytes, total int64)

// File is one file in Girder.
type File struct {
	source Source
	doc    girder.File
	retry  girder.Retry
	log    zerolog.Logger
	waits  func(why error)
}

// Open reads a file's document. waits, which may be nil, is told why before each
// wait for another try, of this and of what follows.
func Open(ctx context.Context, source Source, id girder.FileID, retry girder.Retry, log zerolog.Logger, waits func(why error)) (*File, error) {
	f := &File{source: source, retry: retry, log: log, waits: waits}
	doc, err := f.document(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("stream file %s: %w", id, err)
	}
	f.doc = doc
	return f, nil
}

// Name is what Girder calls the file.
func (f *File) Name() string { return f.doc.Name }

// Size is how long the file is, 0 if Girder does not say.
func (f *File) Size() int64 {
	if f.doc.Size == nil {
		return 0
	}
	return *f.doc.Size
}

func (f *File) document(ctx context.Context, id girder.FileID) (doc girder.File, err error) {
	err = f.retry.Do(ctx, f.waiting, func() (bool, error) {
		doc, err = f.source.GetFile(ctx, id)
		return false, err
	})
	return doc, err
}

func (f *File) waiting(err error, wait time.Duration) {
	f.log.Warn().Err(err).Stringer("wait", wait).Msg("stream is tried again")
	if f.waits != nil {
		f.waits(err)
	}
}

// Feed writes the file into a pipe and returns how much of it the container got.
// Without an error the container has all of it, or as much as it wanted. A
// context that ends with the cause fifo.ErrLeft says that the container has
// ended. The caller closes the pipe.
func (f *File) Feed(ctx context.Context, pipe *fifo.Writer, moved Moved) (int64, error) {
	defer context.AfterFunc(ctx, func() { pipe.Interrupt(context.Cause(ctx)) })()
	err := f.feed(ctx, pipe, moved)
	switch cause := context.Cause(ctx); {
	case err == nil:
		return f.Size(), nil
	case isWrong(err), IsFailure(err): // also of a file whose container has left
	case errors.Is(err, fifo.ErrLeft), errors.Is(cause, fifo.ErrLeft):
		return pipe.Taken(), nil
	case cause != nil:
		err = cause
	}
	return pipe.Taken(), fmt.Errorf("stream file %s (%s): %w", f.doc.ID, f.doc.Name, err)
}

func (f *File) feed(ctx context.Context, pipe *fifo.Writer, moved Moved) error {
	if err := pipe.Opened(ctx); err != nil {
		return err
	}
	d := &download{file: f, pipe: pipe, moved: moved, total: -1, sum: newSum(f.doc.SHA512 != "")}
	if f.doc.Size != nil {
		d.total = *f.doc.Size
	}
	err := f.retry.Do(ctx, f.waiting, func() (bool, error) { return d.more(ctx) })
	checksum := d.sum.end()
	if err != nil {
		return err
	}
	if f.doc.SHA512 != "" && !strings.EqualFold(checksum, f.doc.SHA512) {
		return ErrChecksum
	}
	now, err := f.document(ctx, f.doc.ID)
	if err == nil {
		err = f.unchanged(now)
	}
	if err != nil {
		return err
	}
	f.doc.Size = &d.have
	if pipe.Taken() > 0 {
		return nil
	}
	// Nothing of a short file was read yet. A pipe that nobody has open at all
	// would lose it with the last of its holders.
	return pipe.Opened(ctx)
}

// unchanged compares with a later document.
func (f *File) unchanged(now girder.File) error {
	if !f.doc.SameContents(now) {
		return ErrChanged
	}
	return nil
}

// download is the state of one file on its way into a pipe.
type download struct {
	file  *File
	pipe  *fifo.Writer
	moved Moved
	sum   *sum
	have  int64
	total int64 // -1: not known
	odd   int   // answers of another size
}

// more moves the bytes behind those that are in the pipe, up to the end or an
// error, and reports whether there were any.
func (d *download) more(ctx context.Context) (bool, error) {
	if d.have == d.total {
		return false, nil
	}
	if d.have > 0 {
		// What follows has to belong to what was written.
		now, err := d.file.source.GetFile(ctx, d.file.doc.ID)
		if err == nil {
			err = d.file.unchanged(now)
		}
		if err != nil {
			return false, err
		}
	}
	body, err := d.file.source.DownloadFile(ctx, d.file.doc.ID, d.have)
	if err != nil {
		return false, err
	}
	defer body.Close() //nolint:errcheck // everything that matters was read
	if body.Size >= 0 && d.total >= 0 && body.Size != d.total {
		return false, d.otherSize(body.Size)
	}
	if d.total < 0 {
		d.total = body.Size
	}
	before := d.have
	err = d.copy(ctx, body)
	if err == nil && d.have < d.total {
		// The connection ended as if all were there: as good as broken.
		err = d.broken(fmt.Errorf("%w: %d of %d", ErrIncomplete, d.have, d.total))
	}
	return d.have > before, err
}

// broken makes an error one that is tried again.
func (d *download) broken(err error) error {
	return &girder.Unreachable{Method: "GET", Path: "file/" + string(d.file.doc.ID) + "/download", Err: err}
}

// oddAnswers is how many answers of another size end a stream. One of them may
// be the fault of something between Girder and us.
const oddAnswers = 5

func (d *download) otherSize(size int64) error {
	err := fmt.Errorf("%w: %d of %d", ErrIncomplete, size, d.total)
	if d.odd++; d.odd < oddAnswers {
		return d.broken(err)
	}
	return err
}

func (d *download) copy(ctx context.Context, body io.Reader) error {
	for {
		p := d.sum.next()
		n, readErr := body.Read(p)
		d.sum.add(p[:n])
		if d.total >= 0 && d.have+int64(n) > d.total {
			return fmt.Errorf("%w: more than %d", ErrIncomplete, d.total)
		}
		if n > 0 {
			// What fails to be written is the stream's end, so the sum may be ahead.
			wrote, err := d.write(ctx, p[:n])
			d.have += int64(wrote)
			d.moved(d.have, max(d.total, 0))
			if err != nil {
				return err
			}
		}
		if errors.Is(readErr, io.EOF) {
			return nil
		}
		if readErr != nil {
			return readErr
		}
	}
}

// write writes all of p. A container that has closed the pipe may open it again:
// whether it has left for good is known when it has ended.
func (d *download) write(ctx context.Context, p []byte) (n int, err error) {
	for {
		m, err := d.pipe.Write(p[n:])
		n += m
		if !errors.Is(err, fifo.ErrLeft) {
			return n, err
		}
		if err := d.pipe.Opened(ctx); err != nil {
			return n, err
		}
	}
}
