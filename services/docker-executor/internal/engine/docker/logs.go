package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// tailRecords is how many records are looked at first, to see whether a follow
// that has ended missed any. At 16 KiB each they fit into 2 MiB.
const tailRecords = 128

// sinceSlack is how far apart the times of records may be that stand side by
// side in the log: two goroutines of the engine stamp them before they queue for
// the file.
const sinceSlack = time.Minute

// maxBroken is how often in a row a log may break off without a new record,
// while the engine answers otherwise.
const maxBroken = 10

// Logs hands every record of the streams behind since to emit until the
// container has ended.
//
// Following alone is not enough: older engines end a follow before the last
// records. So when it ends and the container has too, the log is read once more
// without following, from the position reached, until nothing new comes.
func (e *Engine) Logs(ctx context.Context, id string, streams engine.Streams, since engine.Position, emit func(engine.Frame) error) (engine.Position, error) {
	r := &logReader{engine: e, id: id, streams: streams, pos: since, emit: emit}
	err := r.run(ctx)
	if r.emitErr != nil {
		return r.pos, r.emitErr
	}
	return r.pos, e.wrap(ctx, "read the log of", subject(id), err)
}

// logReader is one call of Logs.
type logReader struct {
	engine  *Engine
	id      string
	streams engine.Streams
	pos     engine.Position
	emit    func(engine.Frame) error
	emitErr error        // what ended it, if it was emit
	taken   atomic.Int64 // records that emit took
}

func (r *logReader) run(ctx context.Context) error {
	pause := eager()
	broken := 0 // times in a row that reading failed and brought nothing
	for {
		before := r.taken.Load()
		ended, err := r.cycle(ctx)
		if ended || r.emitErr != nil || ctx.Err() != nil {
			return err
		}
		switch {
		case r.taken.Load() > before:
			pause.Reset()
			broken = 0
		case err != nil:
			broken++
		}
		if err != nil && (!brokeOff(err) || broken > maxBroken) {
			return err
		}
		if err := sleep(ctx, pause.NextBackOff()); err != nil {
			return err
		}
	}
}

// cycle follows the log, and reports whether the container has ended and all of
// its log was read.
func (r *logReader) cycle(ctx context.Context) (ended bool, err error) {
	err = r.follow(ctx)
	if r.emitErr != nil || ctx.Err() != nil || (err != nil && !brokeOff(err)) {
		return false, err
	}
	state, inspectErr := r.engine.inspectPatiently(ctx, r.id)
	if inspectErr != nil {
		return true, inspectErr
	}
	if stateOf(state.Status) == engine.Running {
		return false, err
	}
	err = r.finish(ctx)
	return err == nil, err
}

// follow reads until the engine ends the stream.
func (r *logReader) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() { r.watch(ctx, cancel) })
	defer watcher.Wait()
	defer cancel(nil)

	err := r.read(ctx, r.streams, container.LogsOptions{Follow: true, Since: r.sinceOption()}, r.resuming())
	if err != nil && errors.Is(context.Cause(ctx), errStuck) {
		return nil
	}
	return err
}

var errStuck = errors.New("the container has ended and its log stream has not")

// watch cancels a follow that brings nothing more although the container has
// ended, or is gone, at two looks in a row.
func (r *logReader) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	ended, before := 0, int64(-1)
	for {
		if sleep(ctx, r.engine.cfg.ProbeInterval) != nil {
			return
		}
		now := r.taken.Load()
		if now != before {
			before, ended = now, 0
			continue
		}
		switch state, err := r.engine.inspectPatiently(ctx, r.id); {
		case err != nil && kindOf(err) == engine.ErrNotFound:
		case err != nil, stateOf(state.Status) == engine.Running:
			ended = 0
			continue
		}
		if ended++; ended == 2 {
			cancel(errStuck)
			return
		}
	}
}

// finish reads what the follow left, from a container that has ended.
func (r *logReader) finish(ctx context.Context) error {
	for {
		before := r.taken.Load()
		complete, err := r.finishTail(ctx)
		if err == nil && !complete {
			err = r.read(ctx, r.streams, container.LogsOptions{Since: r.sinceOption()}, r.resuming())
		}
		if r.emitErr != nil || err != nil {
			return errors.Join(r.emitErr, err)
		}
		if r.taken.Load() == before {
			return nil
		}
	}
}

// finishTail looks at the last records only, which spares the engine to read a
// big log again. It reports false, and has emitted nothing, where they do not
// prove to hold all that is missing.
func (r *logReader) finishTail(ctx context.Context) (bool, error) {
	var tail []engine.Frame
	records := 0 // of both streams: the engine counts them before it picks
	err := r.read(ctx, engine.Both, container.LogsOptions{Tail: fmt.Sprint(tailRecords)}, func(f engine.Frame) error {
		records++
		if r.streams.Has(f.Stream) {
			f.Data = bytes.Clone(f.Data)
			tail = append(tail, f)
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	if records >= tailRecords && !coversEnd(tail, r.pos) {
		return false, nil
	}
	take := r.resuming()
	for _, f := range tail {
		if err := take(f); err != nil {
			return false, err
		}
	}
	return true, nil
}

// coversEnd reports whether the last records of a log hold everything behind
// pos. The log has one order and what was taken is its beginning; so one record
// in the tail that was certainly taken means that nothing before it is missing.
// Besides, no stream may begin in the tail amid the records that its mark
// counts.
func coversEnd(tail []engine.Frame, pos engine.Position) bool {
	anchored := false
	begun := map[engine.Stream]bool{}
	for _, f := range tail {
		mark := pos.Mark(f.Stream)
		if f.Time.Before(mark.Time) {
			anchored = true
		}
		if !begun[f.Stream] && f.Time.Equal(mark.Time) {
			return false
		}
		begun[f.Stream] = true
	}
	return anchored
}

// resuming returns a function that emits the records behind the position and
// moves it.
func (r *logReader) resuming() func(engine.Frame) error {
	resume := engine.NewResume(r.pos)
	return func(f engine.Frame) error {
		if !resume.New(f) {
			return nil
		}
		if err := r.emit(f); err != nil {
			r.emitErr = err
			return err
		}
		r.pos.Advance(f)
		r.taken.Add(1)
		return nil
	}
}

// read hands the records of one log request to take.
func (r *logReader) read(ctx context.Context, streams engine.Streams, opts container.LogsOptions, take func(engine.Frame) error) error {
	opts.ShowStdout, opts.ShowStderr, opts.Timestamps = streams.Has(engine.Stdout), streams.Has(engine.Stderr), true
	body, err := r.engine.api().ContainerLogs(ctx, r.id, opts)
	if err != nil {
		return err
	}
	defer body.Close() //nolint:errcheck // only read from
	if !r.engine.losesNewlines() {
		return demux(body, take)
	}
	var lines newlines
	return demux(body, func(f engine.Frame) error { return take(lines.restore(f)) })
}

// sinceOption is the earliest time that a record behind the position can have.
// The engine leaves out what is older, which saves sending it again.
func (r *logReader) sinceOption() string {
	out, err := r.pos.Stdout.Time, r.pos.Stderr.Time
	switch r.streams {
	case engine.StdoutOnly:
		err = out
	case engine.StderrOnly:
		out = err
	}
	var since time.Time
	switch {
	case out.IsZero() && err.IsZero():
		return ""
	case out.IsZero():
		since = err.Add(-sinceSlack)
	case err.IsZero():
		since = out.Add(-sinceSlack)
	case out.Before(err):
		since = out
	default:
		since = err
	}
	return since.UTC().Format(time.RFC3339Nano)
}
