package attempt

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/logship"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/pipe"
)

// Labels of every container.
const (
	LabelInstallation = "gantry.installation"
	LabelJob          = "gantry.job"
	LabelAttempt      = "gantry.attempt"
	LabelExecutor     = "gantry.executor"
)

// ContainerName is the name of an attempt's container.
func ContainerName(job contracts.JobID, attempt int) string {
	return fmt.Sprintf("gantry-%s-%d", job, attempt)
}

// prepare pulls the image and stages the inputs in, side by side, and creates
// the container.
func (a *Attempt) prepare(ctx context.Context) (engine.Image, error) {
	var (
		image   engine.Image
		results map[string]*contracts.StepResult
	)
	if len(a.plan.inputs) > 0 {
		a.notes.Phase(contracts.Phase{Phase: contracts.PhaseFetchingInput})
	}
	group, both := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		image, err = a.pull(both)
		return err
	})
	group.Go(func() (err error) {
		results, err = a.stageIn(both)
		if len(a.plan.inputs) > 0 {
			a.timings.StagedIn = time.Now().UTC()
		}
		return err
	})
	if err := group.Wait(); err != nil {
		return image, err
	}
	args := make([]string, len(a.plan.args))
	for i, arg := range a.plan.args {
		var err error
		if args[i], err = arg(results); err != nil {
			return image, fmt.Errorf("docker.args[%d]: %w", i, err)
		}
	}
	if err := a.plan.confirm(a.task.Docker.Volumes, a.tools.Policy); err != nil {
		return image, err
	}
	return image, a.create(ctx, a.spec(args))
}

// createPatience is how long the engine may still answer a create after the
// attempt was told to stop: an unanswered one may yet leave a container.
const createPatience = 10 * time.Second

func (a *Attempt) create(ctx context.Context, spec engine.Spec) error {
	creating, cancel := outlasting(ctx, createPatience)
	defer cancel()
	var err error
	a.container, err = a.tools.Engine.Create(creating, spec)
	if errors.Is(err, engine.ErrNameConflict) {
		// An answer that got lost, so the container is ours, of this very attempt; or
		// another installation on this engine has a job of the same id.
		if err := a.tools.Remove(ctx, a.last.Job, a.last.Attempt); err != nil {
			return err
		}
		spec.Name += "-" + contracts.NewToken()[:8]
		a.container, err = a.tools.Engine.Create(creating, spec)
	}
	return err
}

// outlasting returns a context that ends a while after ctx.
func outlasting(ctx context.Context, patience time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() {
		select {
		case <-longer.Done():
		case <-time.After(patience):
			cancel(context.Cause(ctx))
		}
	})
	return longer, func() { cancel(nil) }
}

func (a *Attempt) pull(ctx context.Context) (engine.Image, error) {
	docker := a.task.Docker
	image, err := a.tools.Images.Ensure(ctx, docker.Image, engine.PullPolicy(docker.PullOrDefault()), func(p engine.PullProgress) {
		a.notes.Phase(contracts.Phase{Phase: contracts.PhasePulling, What: docker.Image, Bytes: p.Done, Of: p.Total})
	})
	if err != nil {
		return image, err
	}
	a.timings.Pulled = time.Now().UTC()
	return image, nil
}

func (a *Attempt) spec(args []string) engine.Spec {
	docker, options := a.task.Docker, &a.task.Docker.Options
	env := make(map[string]string, len(options.Environment))
	for name, value := range options.Environment {
		env[name] = string(value)
	}
	labels := map[string]string{}
	maps.Copy(labels, options.Labels)
	maps.Copy(labels, map[string]string{
		LabelInstallation: a.tools.Installation,
		LabelJob:          string(a.last.Job),
		LabelAttempt:      strconv.Itoa(a.last.Attempt),
		LabelExecutor:     string(a.tools.Executor),
	})
	return engine.Spec{
		Name: a.folder.Container, Image: docker.Image, Entrypoint: docker.Entrypoint, Args: args, Env: env, Labels: labels,
		Mounts: a.plan.mounts, User: string(options.User), WorkingDir: options.WorkingDir, NetworkMode: options.NetworkMode,
		MemoryBytes: int64(options.MemLimit), NanoCPUs: options.NanoCPUs, Init: true,
	}
}

// pipeDrain is how long a progress pipe is read after the container ended. On a
// mounted folder somebody else may hold it open.
const pipeDrain = 5 * time.Second

// runContainer starts the container and returns how it ended, after its log is
// stored to the last byte. When ctx ends it stops the container first.
func (a *Attempt) runContainer(ctx, lifetime context.Context, image engine.Image) (engine.Exit, error) {
	if err := context.Cause(ctx); err != nil {
		return engine.Exit{}, err
	}
	pipes, err := a.openPipes()
	if err != nil {
		return engine.Exit{}, err
	}
	defer func() {
		for _, p := range pipes {
			p.Ended()
		}
	}()
	// From here on everything is followed to the end of the container, also
	// after a revoke: watching is ended by the container, not by ctx.
	watching, cancel := context.WithCancel(lifetime)
	defer cancel()
	reading, cut := context.WithCancel(watching)
	defer cut()
	var group errgroup.Group
	for _, p := range pipes {
		group.Go(func() error {
			err := p.Run(reading, a.progress)
			if reading.Err() != nil {
				return nil
			}
			return err
		})
	}
	a.begun = true
	if err := a.tools.Engine.Start(ctx, a.container); err != nil {
		cancel()
		_ = group.Wait() // the pipes have nothing to say
		return engine.Exit{}, err
	}
	a.timings.Started = time.Now().UTC()
	a.notes.Phase(contracts.Phase{Phase: contracts.PhaseRunning})

	stopping := a.stopWhenDone(ctx, watching)
	var exit engine.Exit
	group.Go(func() error { return a.shipLog(watching, lifetime) })
	group.Go(func() error {
		defer func() {
			for _, p := range pipes {
				p.Ended()
			}
			time.AfterFunc(pipeDrain, cut)
		}()
		var err error
		if exit, err = a.tools.Engine.Wait(watching, a.container); err != nil {
			cancel() // nothing will be heard of the container any more
		}
		return err
	})
	ended := make(chan error, 1)
	go func() { ended <- group.Wait() }()
	err = a.follow(ctx, lifetime, image, ended, cancel)
	cancel()
	stopErr := <-stopping
	if ctx.Err() != nil {
		return exit, errors.Join(context.Cause(ctx), stopErr)
	}
	return exit, err
}

// follow writes what happens while the container runs into the job's life, and
// returns when all that watches the container has ended.
func (a *Attempt) follow(ctx, lifetime context.Context, image engine.Image, ended <-chan error, giveUp func()) error {
	if err := a.append(lifetime, &contracts.Started{Container: a.container, ImageDigest: image.Digest}); err != nil {
		giveUp()
		return errors.Join(err, <-ended)
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	var revoked *Revoked
	if errors.As(context.Cause(ctx), &revoked) {
		if err := a.canceling(lifetime, revoked.By, revoked.Reason); err != nil {
			giveUp()
			return errors.Join(err, <-ended)
		}
	}
	return <-ended
}

func (a *Attempt) openPipes() ([]*pipe.Progress, error) {
	var pipes []*pipe.Progress
	for _, at := range a.plan.pipes {
		p, err := pipe.OpenProgress(at.volume, at.path)
		if err != nil {
			for _, open := range pipes {
				open.Ended()
				_ = open.Run(context.Background(), a.progress) // nobody writes yet: it only closes the pipe
			}
			return nil, &Infrastructure{err.Error()}
		}
		pipes = append(pipes, p)
	}
	return pipes, nil
}

func (a *Attempt) progress(state pipe.State) {
	progress := contracts.Progress{Total: state.Total, Current: state.Current}
	if state.Message != nil {
		progress.Message = *state.Message
	}
	a.notes.Progress(progress)
}

// shipLog stores the container's log as it grows and returns when all of it is
// stored.
func (a *Attempt) shipLog(ctx, lifetime context.Context) error {
	shipper := logship.New(a.tools.Bus, a.folder.Job, a.folder.Attempt, a.tools.LogLimit)
	flushing, stop := context.WithCancel(lifetime)
	flushed := make(chan struct{})
	go func() {
		defer close(flushed)
		shipper.Run(flushing, lifetime)
	}()
	err := a.readLog(ctx, func(frame engine.Frame) error { return shipper.Write(lifetime, frame) })
	stop()
	<-flushed
	last, shipErr := shipper.Close(lifetime)
	a.logSeq = last
	return errors.Join(err, shipErr)
}

// logRetry is the pause before a log whose reading broke is read on.
const logRetry = time.Second

// readLog reads the log to its end, from wherever an engine that went away for
// a while left off. ctx ends when nothing more is to be heard of the container.
func (a *Attempt) readLog(ctx context.Context, emit func(engine.Frame) error) error {
	var position engine.Position
	for {
		var err error
		position, err = a.tools.Engine.Logs(ctx, a.container, position, emit)
		if !errors.Is(err, engine.ErrUnavailable) {
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

// stopWhenDone stops the container when ctx ends before the container does. The
// channel gets one value after watching has ended.
func (a *Attempt) stopWhenDone(ctx, watching context.Context) <-chan error {
	done := make(chan error, 1)
	go func() {
		select {
		case <-ctx.Done():
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
