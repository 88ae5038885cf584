package attempt

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/pipe"
	"github.com/gantry-worker/gantry/services/internal/volume"
)

// follow starts the container, or finds it started, and returns how it ended,
// after its log is stored to the last byte.
func (a *Attempt) follow(ctx, lifetime context.Context) (engine.Exit, error) {
	if cause := context.Cause(ctx); cause != nil && (!a.begun || a.container == "") {
		return engine.Exit{}, cause
	}
	if a.container == "" {
		if a.folder.Exit != nil {
			return *a.folder.Exit, nil
		}
		return engine.Exit{}, &Infrastructure{"the container is gone: somebody removed it, or its engine lost it"}
	}
	exit, err := a.watch(ctx, lifetime)
	if err != nil {
		return exit, err
	}
	if a.folder.Exit == nil {
		a.folder.Exit, a.folder.Timings.Exited = &exit, time.Now().UTC()
	}
	if err := a.note(); err != nil { // an adopter would ask the container once more
		a.log.Warn().Err(err).Msg("end of the container not noted")
	}
	return *a.folder.Exit, nil
}

// watch follows the running container to its end. When ctx ends it stops the
// container first, unless that is left to another executor.
func (a *Attempt) watch(ctx, lifetime context.Context) (exit engine.Exit, err error) {
	// From here on everything is followed to the end of the container, also
	// after a revoke: watching is ended by the container, not by ctx.
	watching, giveUp := context.WithCancel(lifetime)
	defer giveUp()
	var group errgroup.Group
	ended, err := a.readPipes(watching, &group)
	if err == nil {
		err = a.start(ctx)
	}
	if err != nil {
		giveUp()
		ended()
		_ = group.Wait() // the pipes have nothing to say
		return exit, err
	}
	a.notes.Phase(contracts.Phase{Phase: contracts.PhaseRunning})
	stopped := a.stopWhenDone(ctx, watching, giveUp)
	group.Go(func() error { return a.shipLog(ctx, watching, lifetime) })
	group.Go(func() (err error) {
		defer ended()
		if exit, err = a.tools.Engine.Wait(watching, a.container, a.folder.EngineRun); err != nil {
			giveUp() // nothing will be heard of the container any more
		}
		a.exited = err == nil
		return err
	})
	all := make(chan error, 1)
	go func() { all <- group.Wait() }()
	err = a.tell(ctx, lifetime, all, giveUp)
	giveUp()
	<-stopped
	if ctx.Err() != nil {
		return exit, context.Cause(ctx)
	}
	return exit, err
}

// mayBeGone is how long after its last entry an attempt makes sure that it is
// still the job's before it starts the container: nobody takes over sooner.
const mayBeGone = 10 * time.Second

// start starts the container, unless a former owner did.
func (a *Attempt) start(ctx context.Context) error {
	if a.begun && !a.created {
		return nil
	}
	// By the wall clock, which goes on while the machine sleeps.
	if time.Now().Round(0).Sub(a.lastAt.Round(0)) > mayBeGone {
		last, err := a.tools.Bus.Last(ctx, a.last.Job)
		if err != nil {
			return err
		}
		if last == nil || last.Seq != a.last.Seq {
			return ErrSuperseded
		}
	}
	var err error
	if a.folder.EngineRun, err = a.tools.Engine.Run(ctx); err != nil {
		return err
	}
	if err := a.note(); err != nil {
		return err // whoever adopts the container has to know it
	}
	a.begun = true
	if err := a.tools.Engine.Start(ctx, a.container); err != nil {
		return err
	}
	a.folder.Timings.Started = time.Now().UTC()
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

// readPipes reads the progress pipes until ended is called and they are empty.
func (a *Attempt) readPipes(watching context.Context, group *errgroup.Group) (ended func(), err error) {
	var pipes []*pipe.Progress
	ended = func() {
		for _, p := range pipes {
			p.Ended()
		}
	}
	for _, at := range a.plan.pipes {
		p, err := pipe.OpenProgress(volume.Volume{Host: at.Volume}, at.Name)
		if err != nil && a.begun {
			a.log.Warn().Err(err).Msg("progress pipe of a running container is gone, its progress is not told any more")
			continue
		}
		if err != nil {
			return ended, &Infrastructure{err.Error()}
		}
		pipes = append(pipes, p)
		group.Go(func() error {
			err := p.Run(watching, a.progress)
			if watching.Err() != nil {
				return nil
			}
			return err
		})
	}
	return ended, nil
}

func (a *Attempt) progress(state pipe.State) {
	progress := contracts.Progress{Total: state.Total, Current: state.Current}
	if state.Message != nil {
		progress.Message = *state.Message
	}
	a.notes.Progress(progress)
}
