package attempt

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/pipe"
	"github.com/gantry-worker/gantry/services/internal/fifo"
	"github.com/gantry-worker/gantry/services/internal/volume"
)

// ends are our ends of an attempt's named pipes, while its container runs.
type ends struct {
	progress []*pipe.Progress
	logged   []*fifo.Reader          // as in the plan
	feeds    map[string]*fifo.Writer // into the pipes between us and transfer, by step
	fed      map[string]*feeder      // what moves into them
	holds    []io.Closer
	moving   sync.WaitGroup // for the movers
}

// openEnds opens them: from then on the container can open its own without
// waiting for us, and sees neither a false end of file nor SIGPIPE when the
// other one of the two who hold them dies. Those of a running container may be
// gone.
func (a *Attempt) openEnds(flows *flows) (*ends, error) {
	e := &ends{feeds: map[string]*fifo.Writer{}, fed: map[string]*feeder{}}
	for _, at := range a.plan.progress {
		p, err := pipe.OpenProgress(volume.Volume{Host: at.Volume}, at.Name)
		if err == nil {
			e.progress = append(e.progress, p)
			continue
		}
		if err := a.goneIfRunning("progress pipe", err); err != nil {
			return e, err
		}
	}
	for i := range a.plan.streams {
		if err := a.holdStream(e, flows, &a.plan.streams[i]); err != nil {
			return e, err
		}
	}
	if a.begun { // what the executor moves, it moves from the start, or not at all
		return e, nil
	}
	for _, l := range a.plan.logged {
		reader, err := fifo.OpenReader(volume.Volume{Host: l.pipe.Volume}, l.pipe.Name, fifo.Owner)
		if err != nil {
			return e, &Infrastructure{err.Error()}
		}
		e.logged = append(e.logged, reader)
	}
	return e, nil
}

// holdStream takes hold of a stream's pipe beside transfer.
func (a *Attempt) holdStream(e *ends, flows *flows, s *stream) error {
	at := volume.Volume{Host: s.pipe.Volume}
	switch {
	case s.from != 0 && a.begun:
		return nil
	case s.from != 0:
		writer, err := fifo.OpenWriter(at, s.pipe.Name, fifo.Owner)
		if err != nil {
			return &Infrastructure{err.Error()}
		}
		e.feeds[s.step.Step] = writer
		e.holds = append(e.holds, writer)
		return nil
	}
	if !s.takesInput() {
		reader, err := fifo.OpenReader(at, s.pipe.Name, fifo.Owner)
		if err != nil {
			return a.goneIfRunning("pipe of a stream", err)
		}
		e.holds = append(e.holds, reader)
		return nil
	}
	writer, err := fifo.OpenWriter(at, s.pipe.Name, fifo.Owner)
	if err != nil {
		return a.goneIfRunning("pipe of a stream", err)
	}
	e.holds = append(e.holds, writer)
	flows.hold(s.step.Step, func(ctx context.Context) {
		// A pipe whose holders are all gone keeps who opens it then waiting for ever.
		if writer.Opened(ctx) != nil {
			return // the container has ended, or is to end
		}
		if err := writer.Finish(ctx); err != nil {
			a.log.Warn().Err(err).Msg("end of an input pipe not closed")
		}
	})
	return nil
}

// goneIfRunning turns the lack of a pipe into a line of the executor's own log
// where the container runs: a task may have removed it by then.
func (a *Attempt) goneIfRunning(what string, err error) error {
	if !a.begun {
		return &Infrastructure{err.Error()}
	}
	a.log.Warn().Err(err).Msg(what + " of a running container is gone, going on without it")
	return nil
}

// ended says that the container has ended: what is in its pipes is all there is.
func (e *ends) ended() {
	for _, p := range e.progress {
		p.Ended()
	}
	for _, reader := range e.logged {
		reader.End()
	}
}

// close waits for the movers and closes everything, also what nobody came to
// read.
func (e *ends) close() error {
	e.moving.Wait()
	over, cancel := context.WithCancel(context.Background())
	cancel()
	var errs []error
	for _, p := range e.progress {
		_ = p.Run(over, func(pipe.State) {}) // that closes it
	}
	for _, reader := range e.logged {
		errs = append(errs, reader.Close())
	}
	for _, held := range e.holds {
		errs = append(errs, held.Close())
	}
	return errors.Join(errs...)
}

// written returns how much of the container's standard streams went to transfer,
// by step.
func (e *ends) written() map[string]int64 {
	written := map[string]int64{}
	for step, feed := range e.fed {
		written[step] = feed.written
	}
	return written
}
