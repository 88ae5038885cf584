package attempt

import (
	"context"
	"errors"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// stopWhenDone stops the container when ctx ends before the container does, or
// gives up watching one that is left to another executor. The channel gets one
// value after watching has ended.
func (a *Attempt) stopWhenDone(ctx, watching context.Context, giveUp func()) <-chan error {
	done := make(chan error, 1)
	go func() {
		select {
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), ErrStopping) {
				giveUp()
			}
			done <- a.stop(ctx, watching)
		case <-watching.Done():
			done <- nil
		}
	}()
	return done
}

// stop sends the stop signal, and SIGKILL when the grace is over. A container
// that is nobody's any more gets SIGKILL at once.
func (a *Attempt) stop(ctx, watching context.Context) error {
	signal, grace := contracts.DefaultStopSignal, contracts.DefaultGrace
	var revoked *Revoked
	switch cause := context.Cause(ctx); {
	case watching.Err() != nil:
		return nil
	case errors.As(cause, &revoked):
		signal, grace = revoked.SignalOrDefault(), revoked.GraceOrDefault()
	case errors.Is(cause, ErrSuperseded):
		return a.signal(watching, "SIGKILL")
	}
	grace = min(grace, a.tools.MaxGrace)
	a.log.Info().Str("signal", signal).Dur("grace", grace).Msg("asking container to stop")
	if err := a.signal(watching, signal); err == nil {
		select {
		case <-watching.Done():
			return nil
		case <-time.After(grace):
		}
	}
	return a.signal(watching, "SIGKILL")
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
		select {
		case <-watching.Done():
			return nil
		case <-time.After(signalRetry):
		}
	}
}
