package attempt

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/pipe"
)

// follow starts the container, or finds it started, and returns how it ended,
// after its log is stored to the last byte and all of its streams are done.
func (a *Attempt) follow(ctx, lifetime context.Context) (engine.Exit, error) {
	if cause := context.Cause(ctx); cause != nil && (!a.begun || a.container == "") {
		return engine.Exit{}, cause
	}
	if a.container == "" && a.folder.Exit == nil {
		return engine.Exit{}, &Infrastructure{"the container is gone: somebody removed it, or its engine lost it"}
	}
	if err := a.openSpools(); err != nil {
		return engine.Exit{}, err
	}
	flows := a.flow(ctx)
	defer flows.stop()
	exit, err := a.exit(flows, lifetime)
	if err != nil {
		return exit, err
	}
	if a.isTimeout(exit) {
		return exit, nil // a sink that stalls may be why
	}
	err = flows.finish()
	if ctx.Err() == nil && (exit.Code != 0 || exit.EngineLost) {
		return exit, nil // that is the end, whatever became of the streams
	}
	return exit, err
}

// exit returns how the container ended.
func (a *Attempt) exit(flows *flows, lifetime context.Context) (engine.Exit, error) {
	if a.container == "" { // its former owner saw it end
		flows.containerEnded()
		flows.watch()
		return *a.folder.Exit, nil
	}
	exit, err := a.watch(flows, lifetime)
	if err != nil {
		return exit, err
	}
	if a.folder.Exit == nil {
		a.folder.Exit, a.folder.Timings.Exited = &exit, time.Now().UTC()
	}
	a.folder.LogSeq = a.logSeq
	if err := a.note(); err != nil { // an adopter would ask the container once more
		a.log.Warn().Err(err).Msg("end of the container not noted")
	}
	return *a.folder.Exit, nil
}

// watch follows the running container to its end. When the context of the flows
// ends it stops the container first, unless that is left to another executor.
func (a *Attempt) watch(flows *flows, lifetime context.Context) (exit engine.Exit, err error) {
	ctx := flows.ctx
	// From here on everything is followed to the end of the container, also
	// after a revoke: watching is ended by the container, not by ctx.
	watching, giveUp := context.WithCancel(lifetime)
	defer giveUp()
	adopted := a.begun
	ends, err := a.openEnds(flows)
	defer a.closeEnds(ends, giveUp)
	if err == nil {
		err = a.start(ctx)
	}
	if err != nil {
		return exit, err
	}
	a.notes.Phase(contracts.Phase{Phase: contracts.PhaseRunning})
	a.moved = make(chan struct{})
	switch field := a.plan.movedBytes(); {
	case adopted && a.folder.Exit != nil: // noted when everything was moved
		close(a.moved)
	case adopted && field != "": // how much of them is where they go is known to nobody
		close(a.moved)
		flows.fail(errMoverDied(field))
	default:
		a.move(watching, flows, ends)
	}
	flows.watch()
	stopped := a.stopWhenDone(flows, watching, giveUp)
	var group errgroup.Group
	a.readProgress(watching, &group, ends)
	group.Go(func() error { return a.shipLog(ctx, watching, lifetime) })
	group.Go(func() (err error) {
		defer ends.ended()
		if exit, err = a.wait(watching); err != nil {
			giveUp() // nothing will be heard of the container any more
			return err
		}
		a.exited = true
		flows.containerEnded()
		return nil
	})
	all := make(chan error, 1)
	go func() {
		err := group.Wait()
		ends.moving.Wait()
		all <- err
	}()
	err = a.tell(ctx, lifetime, all, giveUp)
	giveUp()
	<-stopped
	if ctx.Err() != nil {
		return exit, context.Cause(ctx)
	}
	if !adopted {
		a.folder.Written = ends.written()
	}
	return exit, err
}

func (a *Attempt) closeEnds(ends *ends, giveUp func()) {
	giveUp()
	if err := ends.close(); err != nil {
		a.log.Warn().Err(err).Msg("named pipe not closed")
	}
}

// start starts the container, unless a former owner did.
func (a *Attempt) start(ctx context.Context) error {
	if a.begun && !a.created {
		return nil
	}
	if err := a.ensureOurs(ctx); err != nil {
		return err
	}
	return a.launch(ctx)
}

// mayBeGone is how long after its last entry an attempt makes sure that it is
// still the job's before it starts the container: nobody takes over sooner.
const mayBeGone = 10 * time.Second

// ensureOurs makes sure that the attempt is still the job's.
func (a *Attempt) ensureOurs(ctx context.Context) error {
	// By the wall clock, which goes on while the machine sleeps.
	if time.Now().Round(0).Sub(a.lastAt.Round(0)) <= mayBeGone {
		return nil
	}
	last, err := a.tools.Bus.Last(ctx, a.last.Job)
	if err != nil {
		return err
	}
	if last == nil || last.Seq != a.last.Seq {
		return ErrSuperseded
	}
	return nil
}

// tell writes what happens while the container runs into the job's life, and
// returns when all that watches the container has ended.
func (a *Attempt) tell(ctx, lifetime context.Context, all <-chan error, giveUp func()) error {
	if err := a.tellStarted(lifetime); err != nil {
		giveUp()
		return errors.Join(err, <-all)
	}
	select {
	case err := <-all:
		return err
	case <-ctx.Done():
	}
	var revoked *Revoked
	if errors.As(context.Cause(ctx), &revoked) {
		if err := a.tellCanceling(lifetime, revoked.By, revoked.Reason); err != nil {
			giveUp()
			return errors.Join(err, <-all)
		}
	}
	return <-all
}

func (a *Attempt) tellStarted(lifetime context.Context) error {
	if a.started || a.canceling != nil {
		return nil
	}
	a.started = true
	if a.folder.Timings.Started.IsZero() { // a former owner died between the start and this entry
		a.folder.Timings.Started = time.Now().UTC()
	}
	return a.append(lifetime, &contracts.Started{Container: a.container, ImageDigest: a.folder.ImageDigest})
}

// readProgress reads the progress pipes until the container has ended and they
// are empty.
func (a *Attempt) readProgress(watching context.Context, group *errgroup.Group, ends *ends) {
	for _, p := range ends.progress {
		group.Go(func() error {
			err := p.Run(watching, a.progress)
			if n := p.Ignored(); n > 0 {
				a.log.Debug().Int("lines", n).Msg("lines of a progress pipe that are no progress were ignored")
			}
			if watching.Err() != nil {
				return nil
			}
			return err
		})
	}
}

func (a *Attempt) progress(state pipe.State) {
	progress := contracts.Progress{Total: state.Total, Current: state.Current}
	if state.Message != nil {
		progress.Message = *state.Message
	}
	a.notes.Progress(progress)
}
