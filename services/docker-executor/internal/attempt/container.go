package attempt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// Labels of every container.
const (
	LabelInstallation = "gantry.installation"
	LabelJob          = "gantry.job"
	LabelAttempt      = "gantry.attempt"
	LabelNode         = "gantry.node"
	LabelExecutor     = "gantry.executor"
)

// ContainerName is the name of an attempt's container.
func ContainerName(job contracts.JobID, attempt int) string {
	return fmt.Sprintf("gantry-%s-%d", job, attempt)
}

// prepare pulls the image, stages the inputs in and has the pipes held, side by
// side, and creates the container.
func (a *Attempt) prepare(ctx context.Context) error {
	var results map[string]*contracts.StepResult
	if len(a.plan.inputs) > 0 {
		a.notes.Phase(contracts.Phase{Phase: contracts.PhaseFetchingInput})
	}
	group, all := errgroup.WithContext(ctx)
	group.Go(func() error { return a.pull(all) })
	group.Go(func() (err error) {
		results, err = a.stageIn(all)
		return err
	})
	group.Go(func() error {
		a.holdPipes(all)
		return nil
	})
	if err := group.Wait(); err != nil {
		return err
	}
	args := make([]string, len(a.plan.args))
	for i, arg := range a.plan.args {
		var err error
		if args[i], err = arg(results); err != nil {
			return fmt.Errorf("docker.args[%d]: %w", i, err)
		}
	}
	if err := a.confirmVolumes(); err != nil {
		return err
	}
	if err := a.note(); err != nil {
		return err // whoever finds the container created starts it
	}
	return a.create(ctx, a.spec(args))
}

// createPatience is how long the engine may still answer a create after the
// attempt was told to stop: an unanswered one may yet leave a container.
const createPatience = 10 * time.Second

func (a *Attempt) create(ctx context.Context, spec engine.Spec) error {
	creating, cancel := outlasting(ctx, createPatience)
	defer cancel()
	id, err := a.tools.Engine.Create(creating, spec)
	if errors.Is(err, engine.ErrNameConflict) {
		// An answer that got lost, so the container is ours, of this very attempt; or
		// another installation on this engine has a job of the same id.
		found, findErr := a.tools.Find(ctx, a.folder)
		if findErr != nil {
			return findErr
		}
		switch {
		case found.ID != "":
			id, err = found.ID, nil
		case spec.Options.Name == "":
			spec.Name += "-" + contracts.NewToken()[:8]
			id, err = a.tools.Engine.Create(creating, spec)
		default:
			return &Failure{fmt.Sprintf("docker.options.name: another container of this node is named %q", spec.Name)}
		}
	}
	if err != nil {
		return err
	}
	a.container, a.folder.ContainerID = id, id
	return nil
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

func (a *Attempt) pull(ctx context.Context) error {
	docker := a.task.Docker
	image, err := a.tools.Images.Ensure(ctx, docker.Image, engine.PullPolicy(docker.PullOrDefault()), func(p engine.PullProgress) {
		a.notes.Phase(contracts.Phase{Phase: contracts.PhasePulling, What: docker.Image, Bytes: p.Done, Of: p.Total})
	})
	if err != nil {
		return err
	}
	a.folder.ImageDigest, a.folder.Timings.Pulled = image.Digest, time.Now().UTC()
	return nil
}

func (a *Attempt) spec(args []string) engine.Spec {
	docker := a.task.Docker
	options := a.tools.Policy.Complete(&docker.Options)
	labels := map[string]string{}
	maps.Copy(labels, options.Labels)
	maps.Copy(labels, map[string]string{
		LabelInstallation: a.tools.Installation,
		LabelJob:          string(a.last.Job),
		LabelAttempt:      strconv.Itoa(a.last.Attempt),
		LabelNode:         string(a.tools.Node),
		LabelExecutor:     string(a.tools.Executor),
	})
	return engine.Spec{
		Name: cmp.Or(options.Name, a.folder.Container), Image: docker.Image, Entrypoint: docker.Entrypoint, Args: args,
		Labels: labels, Mounts: a.mounts(), Options: options,
	}
}
