package attempt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// stopWhenDone stops the container when the context of the flows ends before the container does, or
// gives up watching one that is left to another executor; before that it sees to
// the task's time limits, which count from the container's start, whoever started
// it. The channel is closed after watching has ended.
func (a *Attempt) stopWhenDone(flows *flows, watching context.Context, giveUp func()) <-chan struct{} {
	ctx := flows.ctx
	if a.folder.Timings.Started.IsZero() { // a former owner died before it noted that
		a.folder.Timings.Started = time.Now().UTC()
	}
	limits := newLimits(a.folder.Timings.Started, a.tools.Policy, a.task)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer limits.stop()
		// Until ctx ends: then there is another reason to stop.
		limited, cancel := context.WithCancel(watching)
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		for {
			select {
			case <-ctx.Done():
				if errors.Is(context.Cause(ctx), ErrStopping) {
					giveUp()
				}
				a.stop(ctx, watching)
				return
			case <-watching.Done():
				return
			case <-limits.softly.C:
				a.endSoftly(limited, limits)
			case <-limits.hardly.C:
				a.log.Info().Dur("limit", limits.hard).Msg("time limit reached, killing container")
				a.timedOut = true
				flows.timeIsOver()
				a.kill(limited)
			}
		}
	}()
	return done
}

// endSoftly asks the container once to end, whoever follows it: an adopter finds
// noted that it was asked.
func (a *Attempt) endSoftly(limited context.Context, limits *limits) {
	if limits.isOver() || a.folder.AskedToEnd {
		return
	}
	a.folder.AskedToEnd = true
	if err := a.note(); err != nil { // an adopter would ask once more
		a.log.Warn().Err(err).Msg("soft time limit not noted")
	}
	signal := a.stopSignal(limited)
	a.say(fmt.Sprintf("Soft time limit of %s reached: the container is asked to end (%s).", brief(limits.soft), signal))
	a.log.Info().Str("signal", signal).Dur("limit", limits.soft).Msg("soft time limit reached, asking container to end")
	if err := a.signal(limited, signal); err != nil {
		a.log.Warn().Err(err).Msg("container not asked to end")
	}
}

// stop sends the stop signal, and SIGKILL when the grace is over. A container
// that is nobody's any more gets SIGKILL at once.
func (a *Attempt) stop(ctx, watching context.Context) {
	signal, grace := "", contracts.DefaultGrace
	var revoked *Revoked
	switch cause := context.Cause(ctx); {
	case watching.Err() != nil:
		return
	case errors.As(cause, &revoked):
		signal, grace = revoked.Signal, revoked.GraceOrDefault()
	case errors.Is(cause, ErrSuperseded):
		a.kill(watching)
		return
	}
	if signal == "" {
		signal = a.stopSignal(watching)
	}
	grace = min(grace, a.tools.MaxGrace)
	a.log.Info().Str("signal", signal).Dur("grace", grace).Msg("asking container to stop")
	if a.askToStop(watching, signal, grace) {
		pause(watching, grace)
	}
	a.kill(watching)
}

// askToStop sends the stop signal, and reports whether the container got it. An
// engine that fails at it may not the next time, within a grace from the first
// failure: it may have been away before. One that does not know the signal, or
// the container, never will.
func (a *Attempt) askToStop(watching context.Context, signal string, grace time.Duration) bool {
	var failing time.Time // since when the engine is
	for ; ; pause(watching, signalRetry) {
		err := a.signal(watching, signal)
		if err == nil {
			return true
		}
		if failing.IsZero() {
			failing = time.Now()
			a.log.Warn().Err(err).Str("signal", signal).Msg("container not asked to stop")
		}
		if errors.Is(err, engine.ErrRefused) || errors.Is(err, engine.ErrNotFound) || time.Since(failing) >= grace {
			return false
		}
	}
}

// stopSignal returns what the container wants to be stopped with: that of its
// options, else of its image, which whoever adopted the container has to ask for.
func (a *Attempt) stopSignal(watching context.Context) string {
	if own := a.tools.Policy.Complete(&a.task.Docker.Options).StopSignal; own != "" {
		return own
	}
	for a.image.ID == "" && watching.Err() == nil {
		image, err := a.tools.Engine.Image(watching, a.task.Docker.Image)
		if err == nil {
			a.image = image
			break
		}
		if !errors.Is(err, engine.ErrUnavailable) || errors.Is(err, engine.ErrSilent) {
			a.log.Warn().Err(err).Msg("stop signal of the image is not known")
			break
		}
		pause(watching, signalRetry)
	}
	return cmp.Or(a.image.StopSignal, contracts.DefaultStopSignal)
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
