// Package queues knows which queues there are, and makes the consumers of
// their ready messages. Executors never make one: a work queue admits no two
// consumers with overlapping filters, so they have one maker.
package queues

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// refreshInterval is how often the announced queues are read.
const refreshInterval = 2 * time.Second

// Queues is the set of known queues.
type Queues struct {
	bus  *bus.Bus
	open bool

	mu    sync.Mutex
	known map[contracts.Queue]bool
}

// New returns the set. With open, a queue that nobody has named before becomes
// known with its first task.
func New(b *bus.Bus, open bool) *Queues {
	return &Queues{bus: b, open: open, known: map[contracts.Queue]bool{}}
}

// Recall makes the queues known that were known before: after a restart of
// everything, tasks may come before the executors that announce their queues.
func (q *Queues) Recall(ctx context.Context) error {
	queues, err := q.bus.OfferedQueues(ctx, contracts.KindDocker)
	if err != nil {
		return err
	}
	return q.Require(ctx, queues...)
}

// Require makes queues known, with their consumers.
func (q *Queues) Require(ctx context.Context, queues ...contracts.Queue) error {
	for _, queue := range queues {
		if q.has(queue) {
			continue
		}
		if err := q.declare(ctx, queue); err != nil {
			return err
		}
		q.mu.Lock()
		q.known[queue] = true
		q.mu.Unlock()
		zerolog.Ctx(ctx).Info().Str("queue", string(queue)).Msg("queue known")
	}
	return nil
}

func (q *Queues) declare(ctx context.Context, queue contracts.Queue) error {
	for _, lane := range contracts.Lanes {
		if err := q.bus.DeclareConsumer(ctx, contracts.ReadyConsumer(lane, queue, contracts.KindDocker)); err != nil {
			return fmt.Errorf("queue %s: %w", queue, err)
		}
	}
	return nil
}

// Renew makes the consumers of all known queues again, which a server that was
// given an older copy of its data may not have.
func (q *Queues) Renew(ctx context.Context) error {
	q.mu.Lock()
	known := slices.Collect(maps.Keys(q.known))
	q.mu.Unlock()
	for _, queue := range known {
		if err := q.declare(ctx, queue); err != nil {
			return err
		}
	}
	return nil
}

func (q *Queues) has(queue contracts.Queue) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.known[queue]
}

// Accepts reports whether tasks for a queue are taken. A queue that an executor
// announced a moment ago counts.
func (q *Queues) Accepts(ctx context.Context, queue contracts.Queue) (bool, error) {
	if q.has(queue) {
		return true, nil
	}
	if q.open {
		return true, q.Require(ctx, queue)
	}
	if err := q.refresh(ctx); err != nil {
		return false, err
	}
	return q.has(queue), nil
}

// Run takes in announced queues until the context ends.
func (q *Queues) Run(ctx context.Context) error {
	ticker := time.NewTicker(refreshInterval)
	defer ticker.Stop()
	failed := false // an outage is told once, not at each try
	for {
		err := q.refresh(ctx)
		if err != nil && !failed && ctx.Err() == nil {
			zerolog.Ctx(ctx).Warn().Err(err).Msg("announced queues not read, trying on")
		}
		failed = err != nil
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

func (q *Queues) refresh(ctx context.Context) error {
	instances, err := q.bus.Instances(ctx)
	if err != nil {
		return err
	}
	for _, instance := range instances {
		if err := q.Require(ctx, instance.Queues...); err != nil {
			return err
		}
	}
	return nil
}
