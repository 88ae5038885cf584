package attempt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/policy"
	"github.com/gantry-worker/gantry/services/internal/pace"
)

// Labels of every container.
const (
	LabelInstallation = "gantry.installation"
	LabelJob          = "gantry.job"
	LabelAttempt      = "gantry.attempt"
	LabelNode         = "gantry.node"
	LabelExecutor     = "gantry.executor"
	// LabelKeep is on containers that stay, stopped, when their attempt is over.
	LabelKeep = "gantry.keep"
)

// ContainerName is the name of an attempt's container.
func ContainerName(job contracts.JobID, attempt int) string {
	return fmt.Sprintf("gantry-%s-%d", job, attempt)
}

// prepare pulls the image, stages the inputs in, has the streams begun and the
// pipes held, side by side, and creates the container.
func (a *Attempt) prepare(ctx context.Context) error {
	var image engine.Image
	in := &provided{girderURL: a.tools.GirderAPIURL}
	busy := &preparing{tell: a.notes.Phase}
	if len(a.plan.inputs) > 0 {
		busy.fetch(contracts.Phase{Phase: contracts.PhaseFetchingInput})
	}
	group, all := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		image, err = a.pull(all, busy.pull)
		busy.pulled()
		return err
	})
	group.Go(func() (err error) {
		in.results, err = a.stageIn(all, busy.fetch)
		busy.fetched()
		return err
	})
	group.Go(func() error { return a.beginStreams(all, busy.open) })
	group.Go(func() error {
		a.holdPipes(all)
		return nil
	})
	if a.plan.needsSecrets() {
		group.Go(func() (err error) {
			in.secrets, err = a.tools.Bus.Secrets(all, a.last.Job, contracts.SecretContainer)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	args := make([]string, len(a.plan.args))
	for i, arg := range a.plan.args {
		var err error
		if args[i], err = arg.text(in); err != nil {
			return fmt.Errorf("%s: %w", arg.field, err)
		}
	}
	if err := a.confirmVolumes(); err != nil {
		return err
	}
	spec, err := a.spec(args, image.Labels)
	if err != nil {
		return err
	}
	a.ways = waysTo(spec, image.Labels)
	if err := a.note(); err != nil {
		return err // whoever finds the container created starts it
	}
	return a.create(ctx)
}

// createPatience is how long the engine may still answer a create after the
// attempt was told to stop: an unanswered one may yet leave a container.
const createPatience = 10 * time.Second

// create makes the container, in the first way that the engine takes.
func (a *Attempt) create(ctx context.Context) error {
	for {
		err := a.createAs(ctx, a.ways[0])
		if !a.hasOtherWay(err) {
			return err
		}
	}
}

func (a *Attempt) createAs(ctx context.Context, spec engine.Spec) error {
	creating, cancel := outlasting(ctx, createPatience)
	defer cancel()
	var beside sync.WaitGroup
	beside.Go(func() { // that, too, takes its time
		if run, err := a.tools.Engine.Run(creating); err == nil {
			a.folder.EngineRun = run
		}
	})
	id, err := a.tools.Engine.Create(creating, spec)
	beside.Wait()
	if errors.Is(err, engine.ErrNameConflict) {
		id, err = a.createNamed(creating, spec)
	}
	if err != nil {
		return err
	}
	a.container, a.folder.ContainerID = id, id
	return nil
}

// createNamed makes a container whose name is taken: by an answer that got lost,
// so the container is ours, of this very attempt; by an earlier attempt of the
// job; or by somebody else, for example another installation on this engine that
// has a job of the same id.
func (a *Attempt) createNamed(ctx context.Context, spec engine.Spec) (id string, err error) {
	found, err := a.tools.Find(ctx, a.folder)
	if err != nil {
		return "", err
	}
	if found.ID != "" {
		return found.ID, nil
	}
	if spec.Options.Name == "" {
		spec.Name += "-" + contracts.NewToken()[:8]
		return a.tools.Engine.Create(ctx, spec)
	}
	freed, err := a.tools.freeName(ctx, a.last.Job, a.last.Attempt, spec.Name)
	if err != nil {
		return "", err
	}
	if freed {
		id, err = a.tools.Engine.Create(ctx, spec)
	}
	if !freed || errors.Is(err, engine.ErrNameConflict) {
		return "", &Failure{fmt.Sprintf("docker.options.name: another container of this node is named %q", spec.Name)}
	}
	return id, err
}

// launch starts the container that was created, in another way where the engine
// refuses the one that was tried.
func (a *Attempt) launch(ctx context.Context) error {
	for {
		err := a.startOnce(ctx)
		if err == nil {
			a.folder.Timings.Started = time.Now().UTC()
			return nil
		}
		if a.folder.OtherWays && len(a.ways) == 0 && errors.Is(err, engine.ErrNoDriver) {
			return &Infrastructure{"its former owner died while it looked for a way to a GPU: " + err.Error()}
		}
		if !a.hasOtherWay(err) {
			return err
		}
		if err := a.createAgain(ctx); err != nil {
			return err
		}
	}
}

func (a *Attempt) startOnce(ctx context.Context) error {
	if a.created || a.folder.EngineRun.ID == "" { // a run that a former owner noted may be over
		if err := a.patiently(ctx, func() error { return a.noteRun(ctx) }); err != nil {
			return err
		}
	}
	a.folder.OtherWays = a.folder.OtherWays || len(a.ways) > 1
	if err := a.note(); err != nil {
		return err // whoever adopts the container has to know it
	}
	a.begun = true
	// The run that was noted stays, since the container may have begun, and ended,
	// with it. One that was started before is left alone.
	return a.patiently(ctx, func() error { return a.tools.Engine.Start(ctx, a.container) })
}

func (a *Attempt) noteRun(ctx context.Context) error {
	run, err := a.tools.Engine.Run(ctx)
	if err == nil {
		a.folder.EngineRun = run
	}
	return err
}

const (
	// startRetry is the pause before a container is started again.
	startRetry = time.Second
	// startPatience is how long an engine may be away that is to start one.
	startPatience = 2 * time.Minute
)

// patiently makes a call that the start of an attempt's container takes. Of one
// that has begun it is made again on an engine that goes away, or locks up, over
// it, as long as the attempt is the job's; any other one is given back.
func (a *Attempt) patiently(ctx context.Context, call func() error) error {
	var away time.Time // since when the engine is
	for {
		err := call()
		switch {
		case !a.begun, ctx.Err() != nil:
			return err
		case a.outlasts(ctx, err):
			away = time.Time{}
		case !errors.Is(err, engine.ErrUnavailable), errors.Is(err, engine.ErrSilent):
			return err
		case away.IsZero():
			away = time.Now()
			a.log.Warn().Err(err).Msg("container not started, trying again")
		case time.Since(away) > startPatience:
			return err
		}
		pause(ctx, startRetry)
		if err := a.ensureOurs(ctx); err != nil {
			return err
		}
	}
}

// createAgain puts another container in the place of one that never ran.
func (a *Attempt) createAgain(ctx context.Context) error {
	if err := a.patiently(ctx, func() error { return a.tools.Engine.Remove(ctx, a.container) }); err != nil {
		return err
	}
	a.container, a.begun = "", false
	a.folder.ContainerID, a.folder.EngineRun = "", engine.Run{}
	if err := a.note(); err != nil {
		return err
	}
	return a.create(ctx)
}

// hasOtherWay reports whether the engine refused a GPU in the way that was tried
// and there is another one, which is next then.
func (a *Attempt) hasOtherWay(err error) bool {
	if !errors.Is(err, engine.ErrNoDriver) || len(a.ways) < 2 {
		return false
	}
	a.ways = a.ways[1:]
	a.log.Info().Err(err).Msg("engine gives the container no GPU in this way, trying the next")
	return true
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

// pull makes sure that the image is there. tell is told how far that is.
func (a *Attempt) pull(ctx context.Context, tell func(contracts.Phase)) (engine.Image, error) {
	docker := a.task.Docker
	var speed pace.Pace
	image, err := a.tools.Images.Ensure(ctx, docker.Image, engine.PullPolicy(docker.PullOrDefault()), func(p engine.PullProgress) {
		now := time.Now()
		speed.At(now, p.Done)
		tell(contracts.Phase{Phase: contracts.PhasePulling, What: docker.Image, Bytes: p.Done, Of: p.Total, Rate: speed.Rate(now)})
	})
	if err != nil {
		return image, err
	}
	a.image = image
	a.folder.ImageDigest, a.folder.Timings.Pulled = image.Digest, time.Now().UTC()
	return image, nil
}

func (a *Attempt) spec(args []string, ofImage map[string]string) (engine.Spec, error) {
	docker := a.task.Docker
	own := docker.Options
	own.Mounts = slices.Clone(own.Mounts)
	for i := range own.Mounts {
		m := &own.Mounts[i]
		if m.Type != "bind" {
			continue
		}
		host, err := a.tools.OnHost(m.Source)
		if err != nil {
			return engine.Spec{}, &policy.Refusal{What: fmt.Sprintf("docker.options.mounts[%d]: host path %q", i, m.Source), Reason: err.Error()}
		}
		m.Source = host
	}
	options := a.tools.Policy.Complete(&own)
	if options.NetworkOrMode() == "" && !options.NetworkDisabled {
		options.NetworkMode = a.tools.Network
	}
	mounts, err := a.mounts()
	if err != nil {
		return engine.Spec{}, err
	}
	labels := map[string]string{}
	maps.Copy(labels, options.Labels)
	isOurs := func(name string) bool { return strings.HasPrefix(name, "gantry.") }
	maps.DeleteFunc(labels, func(name, _ string) bool { return isOurs(name) }) // those are ours to give
	for name := range ofImage {                                                // a container has its image's labels too
		if isOurs(name) {
			labels[name] = ""
		}
	}
	maps.Copy(labels, map[string]string{
		LabelInstallation: a.tools.Installation,
		LabelJob:          string(a.last.Job),
		LabelAttempt:      strconv.Itoa(a.last.Attempt),
		LabelNode:         string(a.tools.Node),
		LabelExecutor:     string(a.tools.Executor),
	})
	if keep := docker.RemoveContainer; keep != nil && !*keep {
		labels[LabelKeep] = "true"
	}
	return engine.Spec{
		Name: cmp.Or(options.Name, a.folder.Container), Image: docker.Image, Entrypoint: docker.Entrypoint, Args: args,
		Labels: labels, Mounts: mounts, Options: options,
	}, nil
}
