package service

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
)

// sweep goes on, until the context ends, with the steps of the journal that
// nobody works on: at the start those of the process before this one, and
// later what an outage stopped or left to be cleared away. It does not wait
// for their messages, which may come after the lease only, or never.
func (t *transfer) sweep(ctx context.Context) error {
	var swept sync.WaitGroup
	defer swept.Wait()
	ticker := time.NewTicker(t.rhythm.sweep)
	defer ticker.Stop()
	for {
		steps, err := t.journal.Steps()
		if err != nil {
			zerolog.Ctx(ctx).Warn().Err(err).Msg("steps that were begun are not known")
		}
		for _, step := range steps {
			if step.Kind == contracts.StepHold || step.Kind == contracts.StepFinish || t.holds.settled(step) || t.running.has(keyOf(step)) {
				continue
			}
			swept.Go(func() {
				if err := t.take(ctx, step); err != nil && ctx.Err() == nil {
					zerolog.Ctx(ctx).Warn().Err(err).Str("job", string(step.Job)).Int("attempt", step.Attempt).Str("step", step.Step).
						Msg("step not continued, tried again")
				}
			})
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}
