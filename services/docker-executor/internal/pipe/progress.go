package pipe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/volume"
)

// Progress is our side of an open progress pipe.
type Progress struct {
	read  *os.File
	write *os.File
	ended sync.Once
	err   error // of closing the write end

	ignored int // after Run
}

// OpenProgress opens a pipe that Make made. From then on a container can open
// and write it without waiting. Run has to be called to close it again.
func OpenProgress(v volume.Volume, rel string) (*Progress, error) {
	read, err := open(v, rel, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	write, err := open(v, rel, os.O_WRONLY) // finds the reader above, so it does not fail for want of one
	if err != nil {
		return nil, errors.Join(err, read.Close())
	}
	return &Progress{read: read, write: write}, nil
}

// Ended says that the container has ended, so nobody writes any more. It may be
// called more than once.
func (p *Progress) Ended() {
	p.ended.Do(func() { p.err = p.write.Close() })
}

// Run hands the state after each valid line to update, until Ended was called
// and all is read, or ctx ends. It closes the pipe.
func (p *Progress) Run(ctx context.Context, update func(State)) error {
	stop := context.AfterFunc(ctx, func() {
		_ = p.read.SetReadDeadline(time.Unix(1, 0)) // a pipe that is open for reading can have one
	})
	defer stop()
	parser := NewParser(update)
	_, err := io.CopyBuffer(parser, readOnly{p.read}, make([]byte, 32<<10))
	parser.End()
	p.ignored = parser.Ignored()
	p.Ended()
	closeErr := p.read.Close()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := errors.Join(err, closeErr, p.err); err != nil {
		return fmt.Errorf("read progress pipe: %w", err)
	}
	return nil
}

// Ignored returns how many lines were no progress. It may be called after Run.
func (p *Progress) Ignored() int { return p.ignored }

// readOnly hides that a file can also copy itself.
type readOnly struct{ io.Reader }
