package attempt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/logship"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/slicer"
	"github.com/gantry-worker/gantry/services/internal/fifo"
)

// streaming is what an attempt has while, and after, its container runs.
type streaming struct {
	spools *logship.Spools
	// moved is closed when nothing more comes into the spools from the container.
	moved chan struct{}
}

func (a *Attempt) openSpools() error {
	if a.spools != nil {
		return nil
	}
	var err error
	if a.spools, err = logship.OpenSpools(a.folder.Path()); err != nil {
		return &Infrastructure{err.Error()}
	}
	return nil
}

func (a *Attempt) closeSpools() {
	if a.spools == nil {
		return
	}
	if err := a.spools.Close(); err != nil {
		a.log.Warn().Err(err).Msg("spool of the log not closed")
	}
}

// say puts a line of Gantry's own into the job's log. It is for while the
// container runs.
func (a *Attempt) say(line string) {
	if _, err := a.spools.Append(logship.SpoolStderr, []byte(line+"\n")); err != nil {
		a.log.Warn().Err(err).Str("line", line).Msg("line not put into the log of the job")
	}
}

// spooler writes into a spool, as soon as the disk has space. It waits for that
// no longer than the attempt is wanted, that is until wanted ends.
type spooler struct {
	wanted  context.Context // an io.Writer has no other place for it
	attempt *Attempt
	to      logship.Source
	skip    int64 // bytes to come that a former owner spooled
}

func (w *spooler) Write(data []byte) (int, error) {
	skip := min(w.skip, int64(len(data)))
	w.skip -= skip
	for done, full := int(skip), false; done < len(data); {
		n, err := w.attempt.spools.Append(w.to, data[done:])
		done += n
		switch {
		case err == nil:
		case !isAny(err, syscall.ENOSPC, syscall.EDQUOT):
			return done, err
		case w.wanted.Err() != nil:
			return done, context.Cause(w.wanted)
		default:
			if !full {
				full = true
				w.attempt.log.Warn().Err(err).Msg("stream into the log waits for space in the work folder")
			}
			pause(w.wanted, logRetry)
		}
	}
	return len(data), nil
}

// feeder writes into the pipe that transfer reads, and counts what was to be
// written: where transfer left, that is more than it has.
type feeder struct {
	pipe    *fifo.Writer
	written int64
	left    bool
}

func (w *feeder) Write(data []byte) (int, error) {
	w.written += int64(len(data))
	if w.left { // why is in the result of its step
		return len(data), nil
	}
	_, err := w.pipe.Write(data)
	if errors.Is(err, fifo.ErrLeft) {
		w.left, err = true, nil
	}
	if err != nil {
		return 0, err
	}
	return len(data), nil
}

// move begins what the executor itself moves while the container runs. What goes
// wrong is a failure of the flows; all is moved when a.moved is closed.
func (a *Attempt) move(watching context.Context, flows *flows, ends *ends) {
	var movers sync.WaitGroup
	for i, reader := range ends.logged {
		movers.Go(func() {
			flows.mustMove(a.plan.logged[i].field, a.logPipe(watching, flows, reader, a.plan.logged[i].to))
		})
	}
	for i := range a.plan.standard {
		out := &a.plan.standard[i]
		if out.isPlain() {
			continue
		}
		from := engine.Stdout + engine.Stream(i)
		if out.step == "" {
			movers.Go(func() { flows.mustMove(out.field, a.spoolStandard(watching, flows, from, out)) })
			continue
		}
		feed := &feeder{pipe: ends.feeds[out.step]}
		ends.fed[out.step] = feed
		movers.Go(func() { flows.mustMove(out.field, a.feedStandard(watching, flows, from, out, feed)) })
	}
	moved := a.moved
	ends.moving.Go(func() {
		movers.Wait()
		close(moved)
	})
}

// mustMove says that the executor's part in a stream has ended with err.
func (f *flows) mustMove(field string, err error) {
	if err != nil {
		f.fail(fmt.Errorf("%s: %w", field, err))
	}
}

// logPipe moves what the container writes into a pipe.
func (a *Attempt) logPipe(watching context.Context, flows *flows, from *fifo.Reader, to logship.Source) error {
	defer context.AfterFunc(watching, func() { from.Interrupt(context.Cause(watching)) })()
	_, err := io.CopyBuffer(&spooler{wanted: flows.ctx, attempt: a, to: to}, from, make([]byte, 64<<10))
	if watching.Err() != nil {
		return nil
	}
	return err
}

// spoolStandard moves a standard stream of the container, without the progress
// in it, into the job's log. What a former owner spooled is not spooled again:
// the text follows from the stream.
func (a *Attempt) spoolStandard(watching context.Context, flows *flows, from engine.Stream, out *outlet) error {
	to := &spooler{wanted: flows.ctx, attempt: a, to: logship.SpoolParsed, skip: a.spools.Size(logship.SpoolParsed)}
	if err := a.copyStandard(watching, from, out, to); err != nil && watching.Err() == nil {
		return err
	}
	return nil
}

// feedStandard moves a standard stream of the container into the pipe that
// transfer reads.
func (a *Attempt) feedStandard(watching context.Context, flows *flows, from engine.Stream, out *outlet, to *feeder) error {
	ctx, cancel := context.WithCancelCause(watching)
	defer cancel(nil)
	defer context.AfterFunc(flows.ctx, func() { cancel(context.Cause(flows.ctx)) })()
	defer context.AfterFunc(ctx, func() { to.pipe.Interrupt(context.Cause(ctx)) })()
	fed := make(chan struct{})
	var watch sync.WaitGroup
	defer watch.Wait()
	defer close(fed)
	late := flows.late
	if !a.plan.hasLimit(out.step) {
		late = nil
	}
	watch.Go(func() {
		select {
		case <-late:
			cancel(a.lateStreams())
		case <-fed:
		}
	})
	err := a.copyStandard(ctx, from, out, to)
	var timeout *Timeout
	if errors.As(context.Cause(ctx), &timeout) {
		return timeout
	}
	if ctx.Err() != nil {
		return nil
	}
	return errors.Join(err, to.pipe.Close())
}

// copyStandard writes a standard stream of the container, from its beginning to
// its end.
func (a *Attempt) copyStandard(ctx context.Context, from engine.Stream, out *outlet, to io.Writer) error {
	var filter *slicer.Filter
	if out.parse {
		filter = slicer.NewFilter(to, a.progress)
		to = filter
	}
	err := a.readLog(ctx, engine.Streams(from), engine.Position{}, func(frame engine.Frame) error {
		_, err := to.Write(frame.Data)
		return err
	})
	if err == nil && filter != nil {
		err = filter.End()
	}
	return err
}
