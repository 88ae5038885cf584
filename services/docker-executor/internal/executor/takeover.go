package executor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/attempt"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/folder"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

const (
	// askOwner is how often the owner is asked, askWait how long each answer may
	// take: three times in 15 s.
	askOwner = 3
	askWait  = 5 * time.Second
)

// ownerIsGone asks the owner of a claim, which may be slow or cut off: silence
// counts only when its key is gone as well and our own connection has stood
// for TakeoverAfter.
func (e *Executor) ownerIsGone(ctx context.Context, last *bus.Seen) (bool, error) {
	owner, err := e.owner(ctx, last)
	if err != nil {
		return false, err
	}
	for range askOwner {
		began := time.Now()
		asking, cancel := context.WithTimeout(ctx, askWait)
		reply, err := bus.Ask[contracts.OwnsReply](asking, e.Tools.Bus, contracts.OwnsSubject(owner), contracts.OwnsRequest{Job: last.Job, Attempt: last.Attempt})
		cancel()
		if err == nil {
			return !reply.Owns, nil
		}
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		pause(ctx, askWait-time.Since(began))
	}
	present, err := e.Tools.Bus.Present(ctx, "docker-executor", string(owner))
	if err != nil || present {
		return false, err
	}
	return time.Since(e.Tools.Bus.ConnectedSince()) >= e.TakeoverAfter, nil
}

// owner returns the executor of the last claimed or adopted entry.
func (e *Executor) owner(ctx context.Context, last *bus.Seen) (contracts.ExecutorID, error) {
	life, err := e.Tools.Bus.Life(ctx, last.Job)
	if err != nil {
		return "", err
	}
	for i := len(life) - 1; i >= 0; i-- {
		switch data := life[i].Data.(type) {
		case *contracts.Claimed:
			return data.Executor, nil
		case *contracts.Adopted:
			return data.Executor, nil
		}
	}
	return "", fmt.Errorf("life of %s: running without an owner", last.Job)
}

// takeOver runs the job's next attempt in place of one whose owner is gone, or
// ends the job where it was being canceled or crashed too often.
func (e *Executor) takeOver(ctx, lifetime context.Context, msg *bus.Message, last *bus.Seen) (done bool, err error) {
	task, err := contracts.ReadTask(msg.Data)
	if err != nil {
		return e.reject(lifetime, last, err)
	}
	if last.Type == contracts.EntryCanceling || last.Crashes >= task.Retry.Crashes() {
		return true, e.endFor(ctx, last, task, "its executor is gone")
	}
	zerolog.Ctx(ctx).Warn().Str("job", string(last.Job)).Int("attempt", last.Attempt).Msg("owner is gone, taking over")
	return e.claim(ctx, lifetime, msg, last)
}

// endFor writes the end of an attempt whose executor is gone.
func (e *Executor) endFor(ctx context.Context, last *bus.Seen, task *contracts.Task, why string) error {
	var end contracts.EntryData
	if last.Type == contracts.EntryCanceling {
		canceling, _ := last.Data.(*contracts.Canceling)
		end = &contracts.Canceled{By: canceling.By, Reason: canceling.Reason}
	} else {
		failed := &contracts.Failed{Kind: contracts.FailureInfrastructure, Message: fmt.Sprintf("attempt %d was lost: %s", last.Attempt, why)}
		failed.DecideRetry(task.Retry, last.Entry, time.Now())
		end = failed
	}
	_, err := e.Tools.Bus.Append(ctx, last.Job, last, end)
	if errors.Is(err, bus.ErrOvertaken) {
		return nil
	}
	return err
}

// Recover ends every attempt of this node whose executor died, and removes what
// it left. An attempt that had come to its end only has to be removed.
func (e *Executor) Recover(ctx context.Context) error {
	abandoned, err := folder.Abandoned(e.WorkRoot)
	if err != nil {
		zerolog.Ctx(ctx).Error().Err(err).Msg("not every attempt folder is readable")
	}
	var errs []error
	for _, f := range abandoned {
		_, err := e.bury(ctx, f)
		errs = append(errs, err)
	}
	e.setNotReady(errors.Join(errs...))
	return errors.Join(errs...)
}

// bury ends the attempt of a folder whose lock we took: where the attempt's
// owner made the folder, the lock makes the attempt ours. ended says that the
// attempt has ended, so that its ready message has served its purpose.
func (e *Executor) bury(ctx context.Context, f *folder.Folder) (ended bool, err error) {
	if f.Job == "" {
		return false, f.Remove()
	}
	last, owned, err := e.ownedBy(ctx, f)
	if err != nil {
		return false, errors.Join(err, f.Close())
	}
	if !owned {
		// Its executor died before it lost the claim to another one.
		return false, f.Remove()
	}
	if err := e.Tools.Remove(ctx, f.Job, f.Attempt); err != nil {
		return false, errors.Join(fmt.Errorf("remove container of attempt %d of %s: %w", f.Attempt, f.Job, err), f.Close())
	}
	if err := attempt.RemovePipes(f); err != nil {
		zerolog.Ctx(ctx).Warn().Err(err).Str("job", string(f.Job)).Msg("named pipe left on a volume, the next attempt takes it over")
	}
	if ended, err = e.endAbandoned(ctx, f, last); err != nil {
		return false, errors.Join(err, f.Close())
	}
	if err := f.Remove(); err != nil {
		return ended, err
	}
	zerolog.Ctx(ctx).Warn().Str("job", string(f.Job)).Int("attempt", f.Attempt).Msg("removed what an attempt left that did not come to its end")
	return ended, nil
}

// ownedBy reports whether the attempt of a folder was claimed by the executor
// that made the folder. Of a job without a life nobody knows better.
func (e *Executor) ownedBy(ctx context.Context, f *folder.Folder) (last *bus.Seen, owned bool, err error) {
	if last, err = e.Tools.Bus.Last(ctx, f.Job); last == nil || err != nil {
		return nil, true, err
	}
	life, err := e.Tools.Bus.Life(ctx, f.Job)
	if err != nil {
		return nil, false, err
	}
	for _, entry := range life {
		if claimed, ok := entry.Data.(*contracts.Claimed); ok && entry.Attempt == f.Attempt {
			return last, claimed.Executor == f.Executor, nil
		}
	}
	return last, false, nil
}

// endAbandoned ends the attempt in the life, if it has no end yet, and
// acknowledges its ready message. Both are left alone where the life went on:
// the message may be another attempt's by now.
func (e *Executor) endAbandoned(ctx context.Context, f *folder.Folder, last *bus.Seen) (ended bool, err error) {
	if last == nil || last.Attempt != f.Attempt || last.Type == contracts.EntryReleased {
		return false, nil
	}
	if last.Running() {
		submitted, err := e.Tools.Bus.Submitted(ctx, f.Job)
		if err != nil {
			return false, err
		}
		if err := e.endFor(ctx, last, submitted.Task, "its executor ended while it ran"); err != nil {
			return false, err
		}
	}
	// This only saves the wait for the message's lease.
	if err := e.Tools.Bus.Ack(ctx, f.Reply); err != nil {
		zerolog.Ctx(ctx).Debug().Err(err).Msg("ready message of an ended attempt not acknowledged")
	}
	return true, nil
}
