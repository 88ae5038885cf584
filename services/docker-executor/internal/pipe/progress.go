package pipe

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/gantry-worker/gantry/services/internal/fifo"
	"github.com/gantry-worker/gantry/services/internal/volume"
)

// Progress is our side of an open progress pipe.
type Progress struct {
	reader  *fifo.Reader
	ignored int // after Run
}

// OpenProgress opens a pipe that fifo.Make made, also one that an executor left
// that died: what was written meanwhile is in it. From then on a container can
// open and write it without waiting. Run has to be called to close it again.
func OpenProgress(v volume.Volume, rel string) (*Progress, error) {
	reader, err := fifo.OpenReader(v, rel, fifo.Owner)
	if err != nil {
		return nil, err
	}
	return &Progress{reader: reader}, nil
}

// Ended says that the container has ended, so it writes no more. It may be
// called more than once.
func (p *Progress) Ended() { p.reader.End() }

// Run hands the state after each valid line to update, until Ended was called
// and all is read that was written before, or ctx ends. It closes the pipe.
func (p *Progress) Run(ctx context.Context, update func(State)) error {
	stop := context.AfterFunc(ctx, func() { p.reader.Interrupt(context.Cause(ctx)) })
	defer stop()
	parser := NewParser(update)
	_, err := io.CopyBuffer(parser, p.reader, make([]byte, 32<<10))
	if ctx.Err() == nil {
		parser.End()
	}
	p.ignored = parser.Ignored()
	closeErr := p.reader.Close()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := errors.Join(err, closeErr); err != nil {
		return fmt.Errorf("read progress: %w", err)
	}
	return nil
}

// Ignored returns how many lines were no progress. It may be called after Run.
func (p *Progress) Ignored() int { return p.ignored }
