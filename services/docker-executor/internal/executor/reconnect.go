package executor

import (
	"context"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/attempt"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// lookAtConnection is how often a new connection to NATS is looked for.
const lookAtConnection = time.Second

// watchConnection looks after each reconnect whether our attempts are still
// ours: while we were cut off, somebody may have taken them over.
func (e *Executor) watchConnection(ctx context.Context) {
	since := e.Tools.Bus.ConnectedSince()
	ticker := time.NewTicker(lookAtConnection)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if now := e.Tools.Bus.ConnectedSince(); !now.Equal(since) {
			since = now
			e.confirm(ctx)
		}
	}
}

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
// there is a newer one, or somebody else ended it.
func isLost(last *bus.Seen, number int, source string) bool {
	ended := last.Terminal() || last.Type == contracts.EntryFailed
	return last.Attempt > number || last.Attempt == number && ended && last.Source != source
}
