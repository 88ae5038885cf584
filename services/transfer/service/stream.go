package service

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/transfer/internal/stage"
)

// What becomes of a stream whose mover has gone: how much of it the container
// had is not known, so nobody goes on with it.
var (
	errLost    = errors.New("the stream lost its mover: transfer was ended while it ran")
	errStopped = errors.New("the stream lost its mover: transfer was stopped while it ran")
)

// checkRoute wants a route that this transfer knows.
func checkRoute(route *contracts.Route) error {
	if route == nil {
		return &taskFault{errors.New("the stream has no route")}
	}
	toPipe := route.From.FileID != "" && route.To.Pipe != nil && route.To.Pipe.End == contracts.PipeWrite
	fromPipe := route.From.Pipe != nil && route.From.Pipe.End == contracts.PipeRead &&
		(route.To.URL != "" || route.To.ItemID != "" || route.To.FolderID != "")
	if !toPipe && !fromPipe {
		return &taskFault{errors.New("this transfer does not know such a stream")}
	}
	return nil
}

// isUpload reports whether a step is the stream of an upload.
func isUpload(step *contracts.Step) bool {
	return step.Stream != nil && (step.Stream.To.ItemID != "" || step.Stream.To.FolderID != "")
}

// stream does a step of that kind. It needs no place among the steps that move
// files: a container waits for it, and there are no more of them than containers.
//
// Our end of the pipe stays open until everything was moved and the result says
// so on disk, or else until the attempt's folder is gone.
func (w *work) stream(ctx, inside context.Context, folder *folder) error {
	result, err := folder.result()
	if err != nil {
		return err
	}
	if result == nil {
		w.taken()
		if result, err = w.streamed(ctx, inside, folder); err != nil || result == nil {
			return err
		}
		if err := w.store(folder, result); err != nil {
			w.unstored.keep(keyOf(w.step), result)
			return err
		}
	}
	w.unstored.drop(keyOf(w.step))
	w.settle(ctx, folder, result)
	w.meter.done(result)
	return nil
}

// store writes the result. Where the disk is full, it is full of the spool,
// which nobody needs any more.
func (w *work) store(folder *folder, result *contracts.StepResult) error {
	err := folder.setResult(result)
	if err == nil || folder.dropSpool() != nil {
		return err
	}
	return folder.setResult(result)
}

// settle lets go what a stream with a result does not need any more.
func (w *work) settle(ctx context.Context, folder *folder, result *contracts.StepResult) {
	if err := folder.dropSpool(); err != nil {
		zerolog.Ctx(ctx).Warn().Err(err).Msg("the spool of a stream stays")
	}
	if result.Outcome == contracts.StepDone {
		w.holds.release(ctx, w.step)
		w.forget(ctx)
		return
	}
	w.holds.settle(w.step)
}

// streamed moves the stream, unless it was moved before and only its result
// could not be stored, or it was begun before by a process that is gone. It is
// nil for a stream that nobody waits for.
func (w *work) streamed(ctx, inside context.Context, folder *folder) (*contracts.StepResult, error) {
	if result := w.unstored.get(keyOf(w.step)); result != nil {
		return result, nil
	}
	began := time.Now()
	marked, err := folder.marked()
	if err != nil {
		return nil, err
	}
	result := &contracts.StepResult{}
	if marked {
		result, err = w.goOn(inside)
	} else {
		result, err = w.run(inside, folder)
	}
	if aborted := context.Cause(inside); aborted != nil && err != nil && !errors.Is(err, errStopped) {
		err = aborted
	}
	var outage unreadable
	switch {
	case errors.As(err, &outage), errors.Is(err, stage.ErrSuspended):
		return nil, err
	case errors.Is(err, errNotCurrent) && !w.begun(folder):
		zerolog.Ctx(ctx).Info().Msg("stream of an attempt that has ended, dropped")
		w.holds.release(ctx, w.step)
		w.forget(ctx)
		return nil, nil
	}
	result = w.ended(ctx, began, result, err)
	if w.step.Stream != nil && (result.Outcome == contracts.StepFailure || result.Outcome == contracts.StepInfrastructure) {
		result.Message = w.step.Stream.Field + ": " + result.Message
	}
	return result, nil
}

// begun reports whether a container may have the other end of the pipe.
func (w *work) begun(folder *folder) bool {
	marked, err := folder.marked()
	return marked || err != nil
}

// goOn does what can be done of a stream that another process began: an upload
// of which everything is spooled.
func (w *work) goOn(ctx context.Context) (*contracts.StepResult, error) {
	entry, err := w.journal.Find(w.step)
	if err != nil {
		return &contracts.StepResult{}, unreadable{err}
	}
	if entry == nil || !entry.Spooled {
		if entry != nil {
			err = entry.Close()
		}
		return &contracts.StepResult{}, errors.Join(errLost, err)
	}
	return w.upload(ctx, entry)
}
