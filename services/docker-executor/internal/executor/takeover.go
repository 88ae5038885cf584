package executor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

const (
	// askOwner is how often the owner is asked, askWait how long each answer may
	// take: three times in 15 s.
	askOwner = 3
	askWait  = 5 * time.Second

	// serviceName is what executors announce themselves as.
	serviceName = "docker-executor"
)

// ownerIsGone asks the owner of a claim, which may be slow or cut off: silence
// counts only when the owner has not been seen either, for so long that its key
// has expired and for TakeoverAfter. The key itself proves nothing: a server that
// was killed may forget when it is to expire.
func (e *Executor) ownerIsGone(ctx context.Context, last *bus.Seen) (bool, error) {
	life, err := e.Tools.Bus.Life(ctx, last.Job)
	if err != nil {
		return false, err
	}
	id := ownerOf(life).executor
	if id == "" {
		return false, fmt.Errorf("life of %s: running without an owner", last.Job)
	}
	for range askOwner {
		began := time.Now()
		asking, cancel := context.WithTimeout(ctx, askWait)
		reply, err := bus.Ask[contracts.OwnsReply](asking, e.Tools.Bus, contracts.OwnsSubject(id), contracts.OwnsRequest{Job: last.Job, Attempt: last.Attempt})
		cancel()
		if err == nil {
			return !reply.Owns, nil
		}
		if ctx.Err() != nil {
			return false, nil // another executor finds out
		}
		pause(ctx, askWait-time.Since(began))
	}
	return e.Presence.Unseen(serviceName, string(id)) >= max(e.TakeoverAfter, contracts.InstanceTTL), nil
}

// takeOver runs the job's next attempt in place of one whose owner is gone, or
// ends the job where it was being canceled or crashed too often.
func (e *Executor) takeOver(ctx, lifetime context.Context, msg *bus.Message, last *bus.Seen) (done bool, err error) {
	task, err := contracts.ReadTask(msg.Data)
	if err != nil {
		return e.reject(lifetime, last, err)
	}
	if last.Type == contracts.EntryCanceling || last.Crashes >= task.Retry.Crashes() {
		err := e.endFor(lifetime, last, task, "its executor is gone")
		return err == nil, err
	}
	zerolog.Ctx(ctx).Warn().Str("job", string(last.Job)).Int("attempt", last.Attempt).Msg("owner is gone, taking over")
	return e.claim(ctx, lifetime, msg, last)
}

// endFor writes the end of an attempt whose executor is gone.
func (e *Executor) endFor(lifetime context.Context, last *bus.Seen, task *contracts.Task, why string) error {
	var end contracts.EntryData
	if last.Type == contracts.EntryCanceling {
		canceling, _ := last.Data.(*contracts.Canceling)
		end = &contracts.Canceled{By: canceling.By, Reason: canceling.Reason}
	} else {
		failed := &contracts.Failed{Kind: contracts.FailureInfrastructure, Message: fmt.Sprintf("attempt %d was lost: %s", last.Attempt, why)}
		failed.DecideRetry(task.Retry, last.Entry, time.Now())
		end = failed
	}
	_, err := e.Tools.Bus.Append(lifetime, last.Job, last, end)
	if errors.Is(err, bus.ErrOvertaken) {
		return nil
	}
	return err
}
