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
	data, ok := queued.Data.(*contracts.Queued)
	if !ok {
		return fmt.Errorf("offer %s: last entry is %s", queued.Job, queued.Type)
	}
	body, err := task.Encode()
	if err != nil {
		return fmt.Errorf("offer %s: %w", queued.Job, err)
	}
	return b.PublishOnce(ctx, contracts.ReadySubject(data.Lane, data.Queue, data.Kind, queued.Job, queued.Offer), body)
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
type Sweeper struct {
	Bus *bus.Bus
	// Interval is how often it looks, and how long a job has been queued then.
	Interval time.Duration

	mu     sync.Mutex
	queued map[contracts.JobID]waiting
}

type waiting struct {
	entry *bus.Seen
	since time.Time
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
	s.queued[last.Job] = waiting{last, time.Now()}
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
	for _, queued := range s.overdue() {
		if err := s.again(ctx, queued); err != nil && ctx.Err() == nil {
			zerolog.Ctx(ctx).Warn().Err(err).Str("job", string(queued.Job)).Msg("job not offered again")
		}
	}
}

func (s *Sweeper) overdue() []*bus.Seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	var overdue []*bus.Seen
	for job, w := range s.queued {
		if time.Since(w.since) >= s.Interval {
			overdue = append(overdue, w.entry)
			s.queued[job] = waiting{w.entry, time.Now()}
		}
	}
	return overdue
}

func (s *Sweeper) again(ctx context.Context, queued *bus.Seen) error {
	submitted, err := s.Bus.Submitted(ctx, queued.Job)
	if err != nil || submitted == nil {
		return err
	}
	last, err := s.Bus.Last(ctx, queued.Job)
	if err != nil || last == nil || last.Seq != queued.Seq {
		return err
	}
	if err := Publish(ctx, s.Bus, queued, submitted.Task); err != nil {
		return err
	}
	return cancel.IfRevoked(ctx, s.Bus, queued.Job)
}
