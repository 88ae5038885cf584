package executor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
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
func (e *Executor) takeOver(ctx, lifetime context.Context, msg jetstream.Msg, last *bus.Seen) (done bool, err error) {
	task, err := contracts.ReadTask(msg.Data())
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
	for _, f := range abandoned {
		if err := e.bury(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// bury ends the attempt of a folder whose lock we took: the lock makes it ours.
func (e *Executor) bury(ctx context.Context, f *folder.Folder) error {
	if f.Job == "" {
		return f.Remove()
	}
	if err := e.Tools.Engine.Remove(ctx, f.Container); err != nil {
		return errors.Join(fmt.Errorf("remove container of attempt %d of %s: %w", f.Attempt, f.Job, err), f.Close())
	}
	if err := e.endAbandoned(ctx, f); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := attempt.Clean(ctx, e.Tools.Engine, f, ""); err != nil {
		return err
	}
	zerolog.Ctx(ctx).Warn().Str("job", string(f.Job)).Int("attempt", f.Attempt).Msg("attempt of an executor that died was ended")
	return nil
}

func (e *Executor) endAbandoned(ctx context.Context, f *folder.Folder) error {
	last, err := e.Tools.Bus.Last(ctx, f.Job)
	if err != nil {
		return err
	}
	if last != nil && last.Attempt == f.Attempt && last.Running() {
		submitted, err := e.Tools.Bus.Submitted(ctx, f.Job)
		if err != nil {
			return err
		}
		if err := e.endFor(ctx, last, submitted.Task, "its executor ended while it ran"); err != nil {
			return err
		}
	}
	// The message may be gone, or somebody else's by now; then it tells itself
	// from the life, and this only saves the wait for its lease.
	if err := e.Tools.Bus.Ack(ctx, f.Reply); err != nil {
		zerolog.Ctx(ctx).Debug().Err(err).Msg("ready message of an ended attempt not acknowledged")
	}
	return nil
}
