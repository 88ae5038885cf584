package executor

import (
	"context"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/attempt"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

const (
	// lookAtOwnership is how often it is looked at what may have cost us our
	// attempts.
	lookAtOwnership = time.Second
	// stoodStill is how much later than expected a look may come before it counts
	// as a time in which this process did not run.
	stoodStill = 5 * time.Second
)

// watchOwnership looks whether our attempts are still ours after each reconnect
// to NATS, and after this process stood still: meanwhile somebody may have taken
// them over.
func (e *Executor) watchOwnership(ctx context.Context) {
	connected, looked := e.Tools.Bus.ConnectedSince(), wallClock()
	reached := looked // when NATS was last there
	announced, doubted := false, false
	ticker := time.NewTicker(lookAtOwnership)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := wallClock()
		stood := now.Sub(looked) > lookAtOwnership+stoodStill
		looked = now
		if since := e.Tools.Bus.ConnectedSince(); stood || !since.Equal(connected) {
			connected, doubted = since, true
		}
		doubted = doubted && !e.confirm(ctx)
		if e.Tools.Bus.Ready(ctx) == nil {
			reached, announced = now, true
		} else if e.StopOnLostLease && silence(now.Sub(reached), announced && e.Tools.Bus.Connected() == nil) > e.TakeoverAfter*2/3 {
			e.active.stopAll(attempt.ErrLeaseLost)
		}
	}
}

// silence returns for how long NATS has been away, at most, that has been known
// to be so for a while. A connection that only fell silent, after NATS had said
// what it was asked, is known late. One that has yet to say its first word was
// made just now.
func silence(known time.Duration, fell bool) time.Duration {
	if fell {
		known += contracts.InstanceTTL
	}
	return known
}

// wallClock returns the time by the clock that goes on while the machine sleeps.
func wallClock() time.Time { return time.Now().Round(0) }

// confirmPatience is how long NATS may take to say whose the attempts are, before
// it is asked again: meanwhile a lost lease is not looked for.
const confirmPatience = 3 * time.Second

// confirm drops the attempts that are not ours any more. It reports false if
// that is not known of all.
func (e *Executor) confirm(ctx context.Context) bool {
	if e.Tools.Bus.Connected() != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, confirmPatience)
	defer cancel()
	all := true
	for job, number := range e.active.attempts() {
		last, err := e.Tools.Bus.Last(ctx, job)
		if err != nil {
			zerolog.Ctx(ctx).Debug().Err(err).Str("job", string(job)).Msg("not known whether the attempt is still ours, asking again")
			all = false
			continue
		}
		if last != nil && isLost(last, number, e.Tools.Bus.Source) {
			e.active.stop(job, number, attempt.ErrSuperseded)
		}
	}
	return all
}

// isLost reports whether a job went on without its attempt of the given number:
// there is a newer one, or somebody else ended or adopted it, and the job may
// have been queued again since.
func isLost(last *bus.Seen, number int, source string) bool {
	if last.Attempt != number {
		return last.Attempt > number
	}
	gone := !last.Running() || last.Type == contracts.EntryAdopted
	return gone && last.Source != source
}
