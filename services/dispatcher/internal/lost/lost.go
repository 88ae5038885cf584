// Package lost ends attempts whose executor has been gone for long. Executors
// that are left take such jobs over by themselves, and much earlier; this is
// for queues that nobody serves any more.
//
// It is decided by what is the case, not by an event or a timer of each job: as
// long as an attempt stands in a life and its executor is gone, it is looked at
// again, by whichever dispatcher runs.
package lost

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// Presence says for how long an instance has not been seen.
type Presence interface {
	Unseen(service, id string) time.Duration
}

// Watch knows the attempts that run, and ends those that are lost.
type Watch struct {
	Bus      *bus.Bus
	Presence Presence
	// After is how long an executor has been gone when its attempts are lost.
	After time.Duration
	// AskPause is the time between two questions to an executor, and how long
	// the answer to one may take.
	AskPause time.Duration
	// Look is how often attempts are looked at.
	Look time.Duration

	mu      sync.Mutex
	running map[contracts.JobID]*bus.Seen
}

const (
	// AskPause and Look are the usual values of the fields of [Watch].
	AskPause = 5 * time.Second
	Look     = 5 * time.Second
	// asks is how often an executor is asked before its silence counts.
	asks = 3
	// askedAtOnce bounds how many executors are asked at the same time.
	askedAtOnce = 8
)

// Observe takes note of the last entry of a job's life.
func (w *Watch) Observe(last *bus.Seen) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !last.Running() {
		delete(w.running, last.Job)
		return
	}
	if w.running == nil {
		w.running = map[contracts.JobID]*bus.Seen{}
	}
	w.running[last.Job] = last
}

// Forget drops all that was observed.
func (w *Watch) Forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running = nil
}

// Run looks for lost attempts until the context ends.
func (w *Watch) Run(ctx context.Context) error {
	ticker := time.NewTicker(w.Look)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
			w.look(ctx)
		}
	}
}

// look ends the attempts of all executors that are gone.
func (w *Watch) look(ctx context.Context) {
	var group errgroup.Group
	group.SetLimit(askedAtOnce)
	for by, jobs := range w.suspects() {
		group.Go(func() error {
			if !w.silent(ctx, by, jobs[0]) {
				return nil
			}
			for _, last := range jobs {
				if err := w.end(ctx, last); err != nil && ctx.Err() == nil {
					zerolog.Ctx(ctx).Error().Err(err).Str("job", string(last.Job)).Msg("lost attempt not ended")
				}
			}
			return nil
		})
	}
	_ = group.Wait()
}

// source is an author of entries: a service and the instance of it.
type source struct{ service, id string }

func sourceOf(entry *contracts.Entry) source {
	service, id, _ := strings.Cut(entry.Source, "/")
	return source{service, id}
}

// suspects returns the running jobs of executors that have not been seen for
// long. Whoever wrote a running job's last entry is its owner, or acted for it.
func (w *Watch) suspects() map[source][]*bus.Seen {
	w.mu.Lock()
	defer w.mu.Unlock()
	suspects := map[source][]*bus.Seen{}
	for _, last := range w.running {
		if by := sourceOf(last.Entry); w.Presence.Unseen(by.service, by.id) >= w.After {
			suspects[by] = append(suspects[by], last)
		}
	}
	return suspects
}

// silent asks an executor for one of its attempts. Any answer shows that it is
// there: what it then does with its attempts is its own.
func (w *Watch) silent(ctx context.Context, by source, last *bus.Seen) bool {
	subject := contracts.OwnsSubject(contracts.ExecutorID(by.id))
	for range asks {
		asking, cancel := context.WithTimeout(ctx, w.AskPause)
		_, err := bus.Ask[contracts.OwnsReply](asking, w.Bus, subject, contracts.OwnsRequest{Job: last.Job, Attempt: last.Attempt})
		if err == nil {
			cancel()
			return false
		}
		<-asking.Done() // where nobody listens the error comes at once
		cancel()
		if ctx.Err() != nil {
			return false
		}
	}
	return w.Presence.Unseen(by.service, by.id) >= w.After
}

// end writes the end of an attempt, unless its life went on.
func (w *Watch) end(ctx context.Context, seen *bus.Seen) error {
	last, err := w.Bus.Last(ctx, seen.Job)
	if err != nil || last == nil || last.Seq != seen.Seq {
		return err
	}
	life, err := w.Bus.Life(ctx, seen.Job)
	if err != nil {
		return err
	}
	gone, owner := w.owner(life)
	if gone < w.After {
		return nil // somebody else wrote the last entry
	}
	task := life[0].Data.(*contracts.Submitted).Task
	if last, err = w.cancelIfRevoked(ctx, last); err == nil {
		_, err = w.Bus.Append(ctx, last.Job, last, endOf(last, task, fmt.Sprintf("%s has been gone for %s", owner, gone.Round(time.Second))))
	}
	if errors.Is(err, bus.ErrOvertaken) {
		return nil
	}
	if err != nil {
		return err
	}
	zerolog.Ctx(ctx).Warn().Str("job", string(last.Job)).Int("attempt", last.Attempt).Dur("gone", gone).Msg("executor is gone, attempt ended")
	// It would come to an executor that can only acknowledge it.
	ready := contracts.ReadySubject(task.Lane(), task.QueueOrDefault(), task.Kind(), last.Job, last.Offer)
	return w.Bus.Purge(ctx, contracts.StreamReady, ready)
}

// owner returns for how long the owner of a life's last attempt has not been
// seen, and who that is.
func (w *Watch) owner(life []*contracts.Entry) (gone time.Duration, name string) {
	for _, entry := range slices.Backward(life) {
		switch data := entry.Data.(type) {
		case *contracts.Claimed:
			return w.Presence.Unseen(sourceOf(entry).service, string(data.Executor)), fmt.Sprintf("its executor %s on node %s", data.Executor, data.Node)
		case *contracts.Adopted:
			return w.Presence.Unseen(sourceOf(entry).service, string(data.Executor)), fmt.Sprintf("its executor %s on node %s", data.Executor, data.Node)
		}
	}
	return 0, ""
}

// cancelIfRevoked does what the owner did not come to do where there is a
// revoke. It returns the last entry then.
func (w *Watch) cancelIfRevoked(ctx context.Context, last *bus.Seen) (*bus.Seen, error) {
	revoke, err := w.Bus.LastRevoke(ctx, last.Job)
	if err != nil || revoke == nil || last.Type == contracts.EntryCanceling {
		return last, err
	}
	return w.Bus.Append(ctx, last.Job, last, &contracts.Canceling{By: revoke.By, Reason: revoke.Reason})
}

func endOf(last *bus.Seen, task *contracts.Task, why string) contracts.EntryData {
	if canceling, ok := last.Data.(*contracts.Canceling); ok {
		return &contracts.Canceled{By: canceling.By, Reason: canceling.Reason}
	}
	failed := &contracts.Failed{Kind: contracts.FailureInfrastructure, Message: why}
	failed.DecideRetry(task.Retry, last.Entry, time.Now())
	return failed
}
