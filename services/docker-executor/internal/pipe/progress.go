package pipe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/services/internal/fifo"
	"github.com/gantry-worker/gantry/services/internal/volume"
)

// Progress is our side of an open progress pipe.
type Progress struct {
	file  *os.File
	raw   syscall.RawConn
	ended sync.Once

	ignored int // after Run
}

// OpenProgress opens a pipe that fifo.Make made, also one that an executor left
// that died: what was written meanwhile is in it. From then on a container can
// open and write it without waiting. Run has to be called to close it again.
func OpenProgress(v volume.Volume, rel string) (*Progress, error) {
	file, err := fifo.Open(v, rel)
	if err != nil {
		return nil, err
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open pipe %s: %w", rel, err), file.Close())
	}
	return &Progress{file: file, raw: raw}, nil
}

// Ended says that the container has ended, so it writes no more. It may be
// called more than once.
func (p *Progress) Ended() {
	p.ended.Do(p.wake)
}

// wake ends the waiting for more, now and from now on.
func (p *Progress) wake() {
	_ = p.file.SetReadDeadline(time.Unix(1, 0)) // fails only for a pipe that is closed
}

// Run hands the state after each valid line to update, until Ended was called
// and all is read that was written before, or ctx ends. It closes the pipe.
func (p *Progress) Run(ctx context.Context, update func(State)) error {
	stop := context.AfterFunc(ctx, p.wake)
	defer stop()
	parser := NewParser(update)
	err := p.read(parser)
	if err == nil && ctx.Err() == nil {
		err = p.drain(parser)
	}
	if ctx.Err() == nil {
		parser.End()
	}
	p.ignored = parser.Ignored()
	closeErr := p.file.Close()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := errors.Join(err, closeErr); err != nil {
		return fmt.Errorf("read progress pipe: %w", err)
	}
	return nil
}

// read reads until it is woken. There is no end of file: we have the pipe open
// for writing as well.
func (p *Progress) read(parser *Parser) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := p.file.Read(buf)
		_, _ = parser.Write(buf[:n]) // never fails
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// drain reads what is in the pipe. On a mounted folder somebody else may write
// on and on, so it stops after as much as a pipe can hold: that has everything
// that the container wrote.
func (p *Progress) drain(parser *Parser) error {
	var failed error
	err := p.raw.Control(func(fd uintptr) {
		size, err := unix.FcntlInt(fd, unix.F_GETPIPE_SZ, 0)
		if err != nil {
			failed = err
			return
		}
		buf := make([]byte, 32<<10)
		for left := size; left > 0; {
			n, err := unix.Read(int(fd), buf[:min(left, len(buf))])
			switch {
			case errors.Is(err, unix.EINTR):
				continue
			case errors.Is(err, unix.EAGAIN), err == nil && n == 0:
				return
			case err != nil:
				failed = err
				return
			}
			_, _ = parser.Write(buf[:n]) // never fails
			left -= n
		}
	})
	return errors.Join(err, failed)
}

// Ignored returns how many lines were no progress. It may be called after Run.
func (p *Progress) Ignored() int { return p.ignored }
