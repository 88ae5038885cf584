package attempt

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/logship"
)

// shipLog stores the job's log as it grows, from where a former owner left
// off, and returns when all of it is stored. What NATS lost is shipped again;
// a full work folder delays the log, which the engine keeps.
func (a *Attempt) shipLog(ctx, watching, lifetime context.Context) error {
	full := false
	for {
		err := a.shipOnce(ctx, watching, lifetime)
		switch {
		case errors.Is(err, logship.ErrLost):
			a.log.Warn().Msg("NATS lost a part of the log, shipping it again")
		case isAny(err, syscall.ENOSPC, syscall.EDQUOT):
			if !full {
				full = true
				a.log.Warn().Err(err).Msg("log waits for space in the work folder")
			}
			pause(lifetime, logRetry)
		default:
			return err
		}
		if isLeft(ctx, lifetime) || full && ctx.Err() != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (a *Attempt) shipOnce(ctx, watching, lifetime context.Context) error {
	a.shippedOn = a.tools.Bus.ConnectedSince()
	shipper, err := logship.Open(lifetime, a.tools.Bus, a.folder.Path(), a.folder.Job, a.folder.Attempt,
		logship.Config{Limit: a.tools.LogLimit, Labels: a.plan.labels(), Spools: a.spools})
	if err != nil {
		return err
	}
	reading, cut := context.WithCancelCause(watching)
	defer cut(nil)
	beside, stop := context.WithCancel(lifetime)
	var group sync.WaitGroup
	group.Go(func() { shipper.Run(beside, lifetime) })
	group.Go(func() { a.verifyLog(beside, shipper, cut) })
	err = a.readLog(reading, a.plan.plain(), shipper.Position(), func(frame engine.Frame) error { return shipper.Write(lifetime, frame) })
	if err == nil {
		select {
		case <-a.moved:
		case <-reading.Done():
			err = context.Cause(reading)
		}
	}
	stop()
	group.Wait()
	if cause := context.Cause(reading); errors.Is(cause, logship.ErrLost) || isLeft(ctx, lifetime) {
		return errors.Join(cause, shipper.Leave())
	}
	last, shipErr := shipper.Close(lifetime)
	a.logSeq = last
	return errors.Join(err, shipErr)
}

// lookForLoss is how often a new connection to NATS is looked for.
const lookForLoss = time.Second

// verifyLog looks after each reconnect whether NATS still has what it
// acknowledged, and cuts the reading off where it has not.
func (a *Attempt) verifyLog(ctx context.Context, shipper *logship.Shipper, cut context.CancelCauseFunc) {
	verified := a.shippedOn
	ticker := time.NewTicker(lookForLoss)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		since := a.tools.Bus.ConnectedSince()
		if since.Equal(verified) {
			continue
		}
		switch err := shipper.Verify(ctx); {
		case errors.Is(err, logship.ErrLost):
			cut(err)
			return
		case err == nil:
			verified = since
		}
	}
}

// settleLog ships again what NATS lost since the log was stored. It is asked
// right before the end, when the container has ended and is still there to be
// read; the log of one that runs on would have no end.
func (a *Attempt) settleLog(lifetime context.Context) {
	for a.exited && !a.tools.Bus.ConnectedSince().Equal(a.shippedOn) {
		if err := a.shipLog(lifetime, lifetime, lifetime); err != nil {
			a.log.Warn().Err(err).Msg("not known whether NATS has all of the log")
			return
		}
	}
}

const (
	// logRetry is the pause before a log whose reading broke is read on.
	logRetry = time.Second
	// logPatience is how long an engine may be away from which the log is read:
	// longer than it is waited for to tell of the container's end.
	logPatience = 5 * time.Minute
)

// readLog reads the container's streams to their end, from wherever an engine
// that went away for a while left off. ctx ends when nothing more is to be heard
// of the container.
func (a *Attempt) readLog(ctx context.Context, streams engine.Streams, position engine.Position, emit func(engine.Frame) error) error {
	if streams == 0 {
		return nil
	}
	var away time.Time // since when the engine is
	for {
		began, before := time.Now(), position
		var err error
		position, err = a.tools.Engine.Logs(ctx, a.container, streams, position, emit)
		if !errors.Is(err, engine.ErrUnavailable) {
			return err
		}
		if away.IsZero() || position != before || time.Since(began) > logPatience || a.tools.Engine.Silence() != nil {
			away = time.Now()
		}
		if time.Since(away) > logPatience {
			return err
		}
		a.log.Warn().Err(err).Msg("log interrupted, going on")
		select {
		case <-ctx.Done():
			return err
		case <-time.After(logRetry):
		}
	}
}
