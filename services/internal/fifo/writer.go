package fifo

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/services/internal/volume"
)

// Writer is our end of a pipe that a container reads. From its opening on the
// container can open the pipe without waiting, and finds one that will get data.
//
// One goroutine writes; End, Interrupt and Close may be called beside it, at any
// time and more than once. For a context:
//
//	defer context.AfterFunc(ctx, func() { w.Interrupt(context.Cause(ctx)) })()
type Writer struct {
	*end
	name    string
	before  int64 // in the pipe when it was opened
	written atomic.Int64
	taken   atomic.Int64
}

// OpenWriter opens the write end of a pipe, whether somebody has it open for
// reading or not.
func OpenWriter(v volume.Volume, rel string, role Role) (*Writer, error) {
	file, err := openOn(v, rel, unix.O_WRONLY, role)
	if err != nil {
		return nil, fmt.Errorf("open pipe %s: %w", rel, err)
	}
	w := &Writer{name: rel}
	if w.end, err = newEnd(file, role); err != nil {
		return nil, errors.Join(fmt.Errorf("open pipe %s: %w", rel, err), file.Close())
	}
	before, err := w.unread()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open pipe %s: %w", rel, err), w.Close())
	}
	w.before = int64(before)
	return w, nil
}

// Opened waits until the container has the pipe open for reading.
func (w *Writer) Opened(ctx context.Context) error {
	for {
		if err := w.await(ctx); err != nil {
			return err
		}
		// It may have left again, or was somebody who opened a hold (openWriteEnd).
		if read, err := w.isRead(); read || err != nil {
			return err
		}
	}
}

// Write writes all of p, as fast as the container reads, and waits for a
// container that has not opened the pipe yet. It returns ErrLeft when the
// container took something and then closed the pipe, and the cause of an
// Interrupt; n is then what went into the pipe.
func (w *Writer) Write(p []byte) (n int, err error) {
	for {
		m, err := w.file.Write(p[n:])
		n += m
		w.written.Add(int64(m))
		switch {
		case err == nil:
			return n, nil
		case w.why() != nil:
			return n, w.why()
		case !errors.Is(err, unix.EPIPE):
			return n, fmt.Errorf("write pipe %s: %w", w.name, err)
		}
		left, err := w.left()
		if err != nil {
			return n, err
		}
		if left {
			return n, ErrLeft
		}
		if err := w.await(context.Background()); err != nil {
			return n, err
		}
	}
}

// left reports, after nobody was there to read, whether the container is gone.
// Who opens the pipe for a hold looks like a reader that came and left, but takes
// nothing. What was taken meanwhile is a container's that has come since, and is
// there: so it is looked for after that.
func (w *Writer) left() (bool, error) {
	if w.Taken() == 0 {
		return false, nil
	}
	read, err := w.isRead()
	return !read, err
}

// Taken returns how much of what was written is out of the pipe again: the
// container has it. After Close it stays as it was.
func (w *Writer) Taken() int64 {
	// A moment in which more is written only makes it less than it is.
	written := w.before + w.written.Load()
	if unread, err := w.unread(); err == nil {
		w.taken.Store(max(0, written-int64(unread)))
	}
	return w.taken.Load()
}

// End says that the container has ended: every wait ends with ErrLeft.
func (w *Writer) End() { w.Interrupt(ErrLeft) }

// Close closes the end: where nobody else holds it, the container reads what is
// in the pipe and then an end of file.
func (w *Writer) Close() error {
	w.Taken()
	return w.end.Close()
}

// lookForReaders is how often Finish looks for one who came late.
const lookForReaders = 100 * time.Millisecond

// Finish closes the end like Close, and until ctx ends gives an end of file also
// to whoever opens the pipe after that: without a writer such an open would wait
// for ever.
func (w *Writer) Finish(ctx context.Context) (err error) {
	place := -1
	ctlErr := w.raw.Control(func(fd uintptr) { place, err = reopen(int(fd), unix.O_PATH) })
	if err := errors.Join(ctlErr, err, w.Close()); err != nil {
		if place >= 0 {
			_ = unix.Close(place) // it stands for a place and has nothing to flush
		}
		return fmt.Errorf("finish pipe %s: %w", w.name, err)
	}
	defer unix.Close(place) //nolint:errcheck // as above
	ticker := time.NewTicker(lookForReaders)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		// It succeeds where somebody reads, or waits to. For those who still read
		// what is in the pipe a writer that comes and goes changes nothing.
		if fd, err := reopen(place, unix.O_WRONLY|unix.O_NONBLOCK); err == nil {
			_ = unix.Close(fd) // nothing was written
		}
	}
}

// isRead reports whether somebody has the pipe open for reading.
func (w *Writer) isRead() (read bool, err error) {
	ctlErr := w.raw.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		for {
			_, err = unix.Poll(poll, 0)
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		read = poll[0].Revents&unix.POLLERR == 0
	})
	if cause := w.why(); cause != nil {
		return false, cause
	}
	return read, errors.Join(ctlErr, err)
}

// await waits until somebody opens the pipe for reading, or has it open. The
// kernel tells that in one way only: an open for writing that waits for it.
func (w *Writer) await(ctx context.Context) error {
	if cause := w.why(); cause != nil {
		return cause
	}
	var err error
	// In Control, so that Close waits until the descriptor is not used any more.
	ctlErr := w.raw.Control(func(fd uintptr) { err = w.awaitOpen(ctx, int(fd)) })
	switch {
	case w.why() != nil:
		return w.why()
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case ctlErr != nil || err != nil:
		return fmt.Errorf("wait for the reader of pipe %s: %w", w.name, errors.Join(ctlErr, err))
	}
	return nil
}

func (w *Writer) awaitOpen(ctx context.Context, fd int) error {
	opened := make(chan error, 1)
	go func() { opened <- openAndClose(fd) }()
	select {
	case err := <-opened:
		return err
	case <-ctx.Done():
	case <-w.interrupted:
	}
	return wakeOpen(fd, opened)
}

// openAndClose opens the write end, which takes until there is a reader.
func openAndClose(of int) error {
	fd, err := reopen(of, unix.O_WRONLY)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// wakeRetry is the pause before waking is tried again where descriptors are short.
const wakeRetry = 50 * time.Millisecond

// wakeOpen ends an open that waits for a reader: it gets one, until it is awake.
func wakeOpen(fd int, opened <-chan error) error {
	for {
		reader, err := reopen(fd, unix.O_RDONLY|unix.O_NONBLOCK)
		if err == nil {
			<-opened
			return unix.Close(reader)
		}
		select {
		case <-opened:
			return nil
		case <-time.After(wakeRetry):
		}
	}
}
