// Package offer puts jobs in front of executors: the ready message of each
// queued entry, published once, and published again where it may be missing.
package offer

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/cancel"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// Publish stores the ready message of a queued entry. It is there once, no
// matter how often it is published.
func Publish(ctx context.Context, b *bus.Bus, queued *bus.Seen, task *contracts.Task) error {
	_, err := publish(ctx, b, queued, task)
	return err
}

// publish reports whether the message was missing.
func publish(ctx context.Context, b *bus.Bus, queued *bus.Seen, task *contracts.Task) (missing bool, err error) {
	data, ok := queued.Data.(*contracts.Queued)
	if !ok {
		return false, fmt.Errorf("offer %s: last entry is %s", queued.Job, queued.Type)
	}
	body, err := task.Encode()
	if err != nil {
		return false, fmt.Errorf("offer %s: %w", queued.Job, err)
	}
	return b.PublishMissing(ctx, contracts.ReadySubject(data.Lane, data.Queue, data.Kind, queued.Job, queued.Offer), body)
}

// Queue appends the queued entry that follows last and publishes its ready
// message.
func Queue(ctx context.Context, b *bus.Bus, last *bus.Seen, task *contracts.Task, reason contracts.QueuedReason) (*bus.Seen, error) {
	queued, err := b.Append(ctx, last.Job, last, &contracts.Queued{
		Lane: task.Lane(), Queue: task.QueueOrDefault(), Kind: task.Kind(), Reason: reason,
	})
	if err != nil {
		return queued, err
	}
	return queued, Publish(ctx, b, queued, task)
}

// Sweeper publishes the ready messages of jobs again that have been queued for
// long: a dispatcher that died between a queued entry and its ready message
// must not strand the job.
//
// What it found to be there is looked at again ever less often, as nothing
// removes it but the executor that takes it: there may be a hundred thousand.
type Sweeper struct {
	Bus *bus.Bus
	// Interval is how often it looks, and how long a job has been queued then.
	Interval time.Duration

	mu     sync.Mutex
	queued map[contracts.JobID]waiting
}

// maxPause is how many intervals lie at most between two looks at a job.
const maxPause = 64

type waiting struct {
	entry *bus.Seen
	next  time.Time
	pause time.Duration // after next
}

// Observe takes note of the last entry of a job's life.
func (s *Sweeper) Observe(last *bus.Seen) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last.Type != contracts.EntryQueued {
		delete(s.queued, last.Job)
		return
	}
	if s.queued == nil {
		s.queued = map[contracts.JobID]waiting{}
	}
	s.queued[last.Job] = waiting{last, time.Now().Add(s.Interval), 2 * s.Interval}
}

// Queued returns how many jobs wait in queues.
func (s *Sweeper) Queued() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queued)
}

// Run sweeps until the context ends.
func (s *Sweeper) Run(ctx context.Context) error {
	ticker := time.NewTicker(s.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
			s.sweep(ctx)
		}
	}
}

func (s *Sweeper) sweep(ctx context.Context) {
	for _, queued := range s.overdue(time.Now()) {
		if !s.waits(queued) {
			continue
		}
		err := s.again(ctx, queued)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			zerolog.Ctx(ctx).Warn().Err(err).Str("job", string(queued.Job)).Msg("job not offered again")
			continue
		}
		s.found(queued)
	}
}

// overdue returns the entries that are to be looked at. Until they are found in
// order they are to be looked at again.
func (s *Sweeper) overdue(now time.Time) []*bus.Seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	var overdue []*bus.Seen
	for _, w := range s.queued {
		if !now.Before(w.next) {
			overdue = append(overdue, w.entry)
		}
	}
	return overdue
}

// waits reports whether an entry is still the last that was seen of its job's
// life.
func (s *Sweeper) waits(queued *bus.Seen) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, ok := s.queued[queued.Job]
	return ok && w.entry.Seq == queued.Seq
}

// found puts off the next look at a job.
func (s *Sweeper) found(queued *bus.Seen) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, ok := s.queued[queued.Job]
	if !ok || w.entry.Seq != queued.Seq {
		return
	}
	w.next, w.pause = time.Now().Add(w.pause), min(2*w.pause, maxPause*s.Interval)
	s.queued[queued.Job] = w
}

// again publishes the ready message of an entry if it is missing. The entry may
// be the last no more: an executor then finds the message to be of no use.
func (s *Sweeper) again(ctx context.Context, queued *bus.Seen) error {
	submitted, err := s.Bus.Submitted(ctx, queued.Job)
	if err != nil || submitted == nil {
		return err
	}
	missing, err := publish(ctx, s.Bus, queued, submitted.Task)
	if err != nil || !missing {
		return err
	}
	zerolog.Ctx(ctx).Info().Str("job", string(queued.Job)).Int("offer", queued.Offer).Msg("job offered again")
	return cancel.IfRevoked(ctx, s.Bus, queued.Job)
}
