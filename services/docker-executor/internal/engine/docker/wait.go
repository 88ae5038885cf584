package docker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// Wait returns how a started container ended. The wait call of the engine only
// says when to look; what counts is what inspecting the container shows. So an
// exit cannot be missed, whenever the connection breaks.
func (e *Engine) Wait(ctx context.Context, id string, began engine.Run) (engine.Exit, error) {
	since := time.Now()
	lost := false // the connection broke
	var w *witness
	if began.ID == "" {
		w = e.newWitness(ctx, id)
		defer w.close()
	}
	pause := eager()
	var removing time.Time // since when
	for {
		err := e.untilStopped(ctx, id)
		if ctx.Err() != nil {
			return engine.Exit{}, e.wrap(ctx, "wait for", subject(id), ctx.Err())
		}
		lost = lost || err != nil && disconnected(err)
		state, inspectErr := e.inspectPatiently(ctx, id)
		if inspectErr != nil {
			return engine.Exit{}, e.wrap(ctx, "wait for", subject(id), inspectErr)
		}
		switch stateOf(state.Status) {
		case engine.Created:
			return engine.Exit{}, &engine.Error{Op: "wait for", Subject: subject(id), Kind: engine.ErrFailed, Detail: "it was never started"}
		case engine.Exited:
			exit := e.withNotRun(ctx, id, e.withLateOOM(ctx, id, exitOf(state)))
			switch {
			case began.ID != "":
				if exit.EngineLost, err = e.endedWith(ctx, began, exit.FinishedAt); err != nil {
					return engine.Exit{}, e.wrap(ctx, "wait for", subject(id), err)
				}
			case lost:
				// When it broke is not known, only when that was seen. While it held, the
				// engine told of every end.
				exit.EngineLost = !exit.FinishedAt.Before(since)
			default:
				exit.EngineLost = e.stopping(ctx, w)
			}
			return exit, nil
		case engine.Running:
			removing = time.Time{}
		case engine.Removing:
			// It has stopped, so that asking to wait for it takes no time. One whose
			// removal failed stays so.
			if removing.IsZero() {
				removing = time.Now()
			}
			if time.Since(removing) > e.cfg.UnavailableLimit {
				return engine.Exit{}, &engine.Error{Op: "wait for", Subject: subject(id), Kind: engine.ErrFailed, Detail: "its removal began and does not end"}
			}
			if err := sleep(ctx, pause.NextBackOff()); err != nil {
				return engine.Exit{}, e.wrap(ctx, "wait for", subject(id), err)
			}
			continue
		}
		if err == nil {
			pause.Reset()
			continue
		}
		if err := sleep(ctx, pause.NextBackOff()); err != nil {
			return engine.Exit{}, e.wrap(ctx, "wait for", subject(id), err)
		}
	}
}

// untilStopped returns when the engine says that the container has stopped, when
// the connection breaks, or after the probe interval: a connection may be dead
// without saying so.
func (e *Engine) untilStopped(ctx context.Context, id string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	probe := time.NewTimer(e.cfg.ProbeInterval)
	defer probe.Stop()
	stopped, broken := e.api().ContainerWait(ctx, id, container.WaitConditionNotRunning)
	select {
	case <-stopped:
		return nil
	case err := <-broken:
		return err
	case <-probe.C:
	}
	cancel()
	select { // the client's goroutine hands over one of the two, or it would stay
	case <-stopped:
	case <-broken:
	}
	return nil
}

// inspectPatiently asks for a container's state, again and again while the
// engine does not answer, or fails at it, up to the limit. A container that is
// gone is engine.ErrNotFound.
func (e *Engine) inspectPatiently(ctx context.Context, id string) (*container.State, error) {
	look := func() (*container.State, error) {
		call, cancel := e.bounded(ctx)
		defer cancel()
		found, err := e.api().ContainerInspect(call, id)
		if err == nil {
			return found.State, nil
		}
		switch kindOf(err) {
		case engine.ErrNotFound, engine.ErrRefused:
			return nil, backoff.Permanent(err)
		}
		e.renew(ctx, err)
		return nil, err
	}
	state, err := backoff.Retry(ctx, look, backoff.WithBackOff(eager()), backoff.WithMaxElapsedTime(e.cfg.UnavailableLimit))
	if err != nil && errors.Is(kindOf(err), engine.ErrUnavailable) {
		return nil, fmt.Errorf("no answer for %s: %w", e.cfg.UnavailableLimit, err)
	}
	return state, err
}

func exitOf(state *container.State) engine.Exit {
	exit := engine.Exit{
		Code: state.ExitCode, OOMKilled: state.OOMKilled, Error: state.Error,
		Signal: engine.SignalOf(state.ExitCode),
	}
	if at, err := time.Parse(time.RFC3339Nano, state.FinishedAt); err == nil {
		exit.FinishedAt = at
	}
	return exit
}

// stopping reports whether the engine is on its way down, or was restarted, now
// that a container has ended. An engine that stops takes no new connections,
// then ends its containers, and answers on its old connections meanwhile: so a
// new one has to be made. Where it is answered by the engine's successor, as
// with a socket that systemd keeps open, the witness is gone.
func (e *Engine) stopping(ctx context.Context, w *witness) bool {
	_, err := e.askAnew(ctx, func(ctx context.Context, fresh *client.Client) (bool, error) {
		_, err := fresh.Ping(ctx)
		return err == nil, err
	})
	if err != nil {
		return ctx.Err() == nil
	}
	return w.broke()
}

// newTries is how often an engine is asked that does not answer on a new
// connection. That takes some two seconds: for less, one that is well may be out
// of reach.
const newTries = 9

// askAnew asks the engine, each time on a new connection, until it answers. One
// that is on its way down stays away, or its successor answers. The one error
// that ends it at once is that of a call's time limit.
func (e *Engine) askAnew(ctx context.Context, ask func(ctx context.Context, fresh *client.Client) (bool, error)) (bool, error) {
	try := func() (bool, error) {
		fresh, err := connect(e.cfg)
		if err != nil {
			return false, backoff.Permanent(err)
		}
		defer fresh.Close() //nolint:errcheck // only its idle connections are closed
		call, cancel := e.bounded(ctx)
		defer cancel()
		answer, err := ask(call, fresh)
		if errors.Is(err, context.DeadlineExceeded) {
			return false, backoff.Permanent(err)
		}
		return answer, err
	}
	return backoff.Retry(ctx, try, backoff.WithBackOff(eager()), backoff.WithMaxTries(newTries))
}

// witness is a request that stays open until the container is removed, or the
// engine's process ends.
type witness struct {
	cancel context.CancelFunc
	ended  chan struct{}
	err    error // how it broke; to read when ended is closed
}

func (e *Engine) newWitness(ctx context.Context, id string) *witness {
	ctx, cancel := context.WithCancel(ctx)
	w := &witness{cancel: cancel, ended: make(chan struct{})}
	removed, broken := e.api().ContainerWait(ctx, id, container.WaitConditionRemoved)
	go func() {
		defer close(w.ended)
		select {
		case <-removed:
		case w.err = <-broken:
		}
	}()
	return w
}

func (w *witness) broke() bool {
	select {
	case <-w.ended:
		return w.err != nil && disconnected(w.err)
	default:
		return false
	}
}

func (w *witness) close() {
	w.cancel()
	<-w.ended
}

// sleep waits for d, or for the end of ctx, which it returns.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
