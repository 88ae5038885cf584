package fifo

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/services/internal/volume"
)

// Reader is our end of a pipe that a container writes.
//
// One goroutine reads; End, Interrupt and Close may be called beside it, at any
// time and more than once. For a context:
//
//	defer context.AfterFunc(ctx, func() { r.Interrupt(context.Cause(ctx)) })()
type Reader struct {
	*end
	name string

	ended chan struct{}
	left  int // after the end: what is still to be read, -1 if that is not known yet
}

// OpenReader opens the read end of a pipe. From then on a container can open and
// write it without waiting for us, and without SIGPIPE.
func OpenReader(v volume.Volume, rel string, role Role) (*Reader, error) {
	file, err := openOn(v, rel, unix.O_RDONLY, role)
	if err != nil {
		return nil, fmt.Errorf("open pipe %s: %w", rel, err)
	}
	end, err := newEnd(file, role)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open pipe %s: %w", rel, err), file.Close())
	}
	return &Reader{end: end, name: rel, ended: make(chan struct{}), left: -1}, nil
}

// End says that the container has ended, so it writes no more: what is in the
// pipe is read, and then comes io.EOF. That is as much as was there at the first
// Read after End: on a shared folder somebody else may write on and on.
func (r *Reader) End() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.isEnded() {
		return
	}
	close(r.ended)
	r.wake()
}

func (r *Reader) isEnded() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

// Read waits for bytes, however often the container opens and closes the pipe.
// It returns io.EOF after End, and the cause of an Interrupt.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, r.why()
	}
	if !r.isEnded() {
		n, err := r.wait(p)
		if err == nil {
			return n, nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) && r.why() == nil {
			return 0, fmt.Errorf("read pipe %s: %w", r.name, err)
		}
	}
	if cause := r.why(); cause != nil {
		return 0, cause
	}
	return r.drain(p)
}

// wait reads as soon as there is something. To find nothing, and nobody who has
// the pipe open for writing, are the same: both change by a wake-up.
func (r *Reader) wait(p []byte) (n int, err error) {
	waitErr := r.raw.Read(func(fd uintptr) bool {
		n, err = readNow(int(fd), p)
		return n > 0 || err != nil
	})
	if waitErr != nil {
		return 0, waitErr
	}
	return n, err
}

// drain reads what is there after the end.
func (r *Reader) drain(p []byte) (n int, err error) {
	if r.left < 0 {
		if r.left, err = r.unread(); err != nil {
			r.left = -1
			return 0, fmt.Errorf("read pipe %s: %w", r.name, err)
		}
	}
	ctlErr := r.raw.Control(func(fd uintptr) { n, err = readNow(int(fd), p[:min(len(p), r.left)]) })
	switch {
	case r.why() != nil:
		return 0, r.why()
	case ctlErr != nil || err != nil:
		return 0, fmt.Errorf("read pipe %s: %w", r.name, errors.Join(ctlErr, err))
	case n == 0:
		return 0, io.EOF
	}
	r.left -= n
	return n, nil
}

// readNow reads without waiting; nothing is 0.
func readNow(fd int, p []byte) (int, error) {
	for {
		n, err := unix.Read(fd, p)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return 0, nil
		case err != nil:
			return 0, err
		default:
			return n, nil
		}
	}
}
