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
			connected = since
			e.confirm(ctx)
		}
		if e.Tools.Bus.Ready(ctx) == nil {
			reached = now
		} else if e.StopOnLostLease && e.silence(now.Sub(reached)) > e.TakeoverAfter*2/3 {
			e.active.stopAll(attempt.ErrLeaseLost)
		}
	}
}

// silence returns for how long NATS has been away, at most, that has been known
// to be so for a while. A connection that only fell silent is known late.
func (e *Executor) silence(known time.Duration) time.Duration {
	if e.Tools.Bus.Connected() == nil {
		known += contracts.InstanceTTL
	}
	return known
}

// wallClock returns the time by the clock that goes on while the machine sleeps.
func wallClock() time.Time { return time.Now().Round(0) }

// confirm drops the attempts that are not ours any more.
func (e *Executor) confirm(ctx context.Context) {
	for job, number := range e.active.attempts() {
		last, err := e.Tools.Bus.Last(ctx, job)
		if err != nil {
			zerolog.Ctx(ctx).Warn().Err(err).Str("job", string(job)).Msg("not known whether the attempt is still ours")
			continue
		}
		if last != nil && isLost(last, number, e.Tools.Bus.Source) {
			e.active.stop(job, number, attempt.ErrSuperseded)
		}
	}
}

// isLost reports whether a job went on without its attempt of the given number:
// there is a newer one, or somebody else ended or adopted it.
func isLost(last *bus.Seen, number int, source string) bool {
	if last.Attempt != number {
		return last.Attempt > number
	}
	gone := last.Terminal() || last.Type == contracts.EntryFailed || last.Type == contracts.EntryAdopted
	return gone && last.Source != source
}
