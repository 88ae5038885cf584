package service

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
)

// movers knows how to end the streams that are moved, so that the end of their
// container finds them.
type movers struct {
	mu   sync.Mutex
	ends map[stepKey]func()
}

func newMovers() *movers { return &movers{ends: map[stepKey]func(){}} }

// enter registers a stream; end is called when its container ends, or at once
// if it has. leave must be called.
func (m *movers) enter(step *contracts.Step, end func(), holds *holds) (leave func()) {
	m.mu.Lock()
	m.ends[keyOf(step)] = end
	m.mu.Unlock()
	// A finish is held before its movers are looked for.
	if holds.finish(step) != nil {
		end()
	}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.ends, keyOf(step))
	}
}

// end ends the streams of an attempt.
func (m *movers) end(of *contracts.Step) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, end := range m.ends {
		if key.job == of.Job && key.attempt == of.Attempt {
			end()
		}
	}
}

// finish does a step of that kind: from now on the attempt's streams take what
// is in their pipes and end. That is known as long as the attempt has a folder.
func (t *transfer) finish(ctx context.Context, step *contracts.Step, folder *folder) error {
	if t.holds.finish(step) == nil {
		if err := t.holds.take(step); err != nil {
			return err
		}
	}
	t.movers.end(step)
	result, err := folder.result()
	if err != nil {
		return err
	}
	if result == nil {
		result = &contracts.StepResult{Version: contracts.Version, Step: step.Step, Outcome: contracts.StepDone, Ended: time.Now().UTC()}
		if err := folder.setHeld(result); err != nil {
			return err
		}
		zerolog.Ctx(ctx).Debug().Msg("the container of the streams has ended")
	}
	t.notes.meter(ctx, step).done(result)
	return nil
}
