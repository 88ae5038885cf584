package attempt

import (
	"context"
	"errors"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// stopWhenDone stops the container when ctx ends before the container does, or
// gives up watching one that is left to another executor. The channel is closed
// after watching has ended.
func (a *Attempt) stopWhenDone(ctx, watching context.Context, giveUp func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), ErrStopping) {
				giveUp()
			}
			a.stop(ctx, watching)
		case <-watching.Done():
		}
	}()
	return done
}

// stop sends the stop signal, and SIGKILL when the grace is over. A container
// that is nobody's any more gets SIGKILL at once.
func (a *Attempt) stop(ctx, watching context.Context) {
	signal, grace := contracts.DefaultStopSignal, contracts.DefaultGrace
	var revoked *Revoked
	switch cause := context.Cause(ctx); {
	case watching.Err() != nil:
		return
	case errors.As(cause, &revoked):
		signal, grace = revoked.SignalOrDefault(), revoked.GraceOrDefault()
	case errors.Is(cause, ErrSuperseded):
		a.kill(watching)
		return
	}
	grace = min(grace, a.tools.MaxGrace)
	a.log.Info().Str("signal", signal).Dur("grace", grace).Msg("asking container to stop")
	if err := a.signal(watching, signal); err == nil {
		pause(watching, grace)
	}
	a.kill(watching)
}

// kill sends SIGKILL until the container ends or an engine takes it: one that
// fails at it may not the next time, and nothing else ends the container.
func (a *Attempt) kill(watching context.Context) {
	for watching.Err() == nil {
		err := a.signal(watching, "SIGKILL")
		if err == nil {
			return
		}
		a.log.Warn().Err(err).Msg("container not killed, trying again")
		pause(watching, signalRetry)
	}
}

// signalRetry is the pause before a signal is sent again.
const signalRetry = time.Second

// signal sends a signal, also to an engine that is away for a while, as long as
// the container is watched.
func (a *Attempt) signal(watching context.Context, signal string) error {
	for {
		err := a.tools.Engine.Signal(watching, a.container, signal)
		if watching.Err() != nil {
			return nil // the container has ended, or nothing is heard of it any more
		}
		if !errors.Is(err, engine.ErrUnavailable) {
			return err
		}
		pause(watching, signalRetry)
	}
}
