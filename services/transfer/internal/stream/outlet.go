package stream

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/gantry-worker/gantry/services/internal/fifo"
)

// Outlet is our end of a pipe that a container writes. Its Read ends with the
// pipe's [fifo.Reader.End].
type Outlet struct {
	Pipe  *fifo.Reader
	Moved Moved
	// Complete is asked at the end whether so many bytes are everything; its
	// error comes instead of the end. May be nil.
	Complete func(bytes int64) error

	bytes int64
}

// Bytes is how much was read.
func (o *Outlet) Bytes() int64 { return o.bytes }

// Read waits for what the container writes.
func (o *Outlet) Read(p []byte) (int, error) {
	n, err := o.Pipe.Read(p)
	if n > 0 {
		o.bytes += int64(n)
		o.Moved(o.bytes, 0)
	}
	if errors.Is(err, io.EOF) && o.Complete != nil {
		if refused := o.Complete(o.bytes); refused != nil {
			return n, refused
		}
	}
	return n, err
}

// until interrupts the outlet when the context ends.
func (o *Outlet) until(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { o.Pipe.Interrupt(context.Cause(ctx)) })
}

// Miscounted is what a [Outlet.Complete] returns where other bytes arrived than
// were written.
type Miscounted struct{ Written, Read int64 }

// Error says both.
func (m *Miscounted) Error() string {
	return fmt.Sprintf("%d bytes were written into the pipe and %d came out of it", m.Written, m.Read)
}
