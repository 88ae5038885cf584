package fifo

import (
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// end is what a Reader and a Writer have in common: an open end of a pipe, and
// a reason why nothing waits at it any more.
type end struct {
	file *os.File
	raw  syscall.RawConn
	role Role

	mu          sync.Mutex
	cause       error
	interrupted chan struct{} // closed when there is a cause
	closed      bool
}

func newEnd(file *os.File, role Role) (*end, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &end{file: file, raw: raw, role: role, interrupted: make(chan struct{})}, nil
}

// Interrupt ends every wait, now and from now on, with the first cause that it
// was given. The end stays open. It may be called at any time.
func (e *end) Interrupt(cause error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cause != nil {
		return
	}
	e.cause = cause
	close(e.interrupted)
	e.wake()
}

// wake makes waiting for the other end time out, now and from now on.
func (e *end) wake() {
	_ = e.file.SetDeadline(time.Unix(1, 0)) // fails only for a pipe that is closed
}

// why returns the cause of an interrupt, nil if there was none.
func (e *end) why() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.cause
}

// unread returns how many bytes are in the pipe.
func (e *end) unread() (n int, err error) {
	ctlErr := e.raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	if ctlErr != nil {
		return 0, ctlErr
	}
	return n, err
}

// Close closes the end, after whoever waits at it was interrupted. Closing again
// is no error.
func (e *end) Close() error {
	e.Interrupt(os.ErrClosed)
	e.mu.Lock()
	again := e.closed
	e.closed = true
	e.mu.Unlock()
	switch {
	case again:
		return nil
	case e.role == Owner:
		return disown(e.file)
	default:
		return e.file.Close()
	}
}
