// Package reconcile removes containers that no job's life owns: what a crash, a
// lost answer of the engine or a restored backup left on it.
//
// A container is looked at only if it carries our installation's label, and is
// removed only if its job's life has said for a while that it is nobody's:
// attempts begin and end, and their own executors clean up first.
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/attempt"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// Engine is what containers are found in and removed from.
type Engine interface {
	List(ctx context.Context, labels map[string]string) ([]engine.Container, error)
	attempt.Disposer
}

// Lives reads the last entry of a job's life, nil for a job that has none.
type Lives interface {
	Last(ctx context.Context, job contracts.JobID) (*bus.Seen, error)
}

// Reconciler looks after one engine. It is for one goroutine.
type Reconciler struct {
	Engine       Engine
	Lives        Lives
	Installation string
	// Grace is how long a container has to have been nobody's.
	Grace time.Duration

	orphans map[string]time.Time // by container: since when it is nobody's
}

// Run looks every now and then until the context ends.
func (r *Reconciler) Run(ctx context.Context) error {
	ticker := time.NewTicker(r.Grace / 2)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case now := <-ticker.C:
			if err := r.Look(ctx, now); err != nil && ctx.Err() == nil {
				zerolog.Ctx(ctx).Warn().Err(err).Msg("not known of every container whose it is, looking again")
			}
		}
	}
}

// Look removes the containers that have been nobody's for Grace. Of a
// container that it cannot judge now it knows no more than before.
func (r *Reconciler) Look(ctx context.Context, now time.Time) error {
	containers, err := r.Engine.List(ctx, map[string]string{attempt.LabelInstallation: r.Installation})
	if err != nil {
		return err
	}
	var errs []error
	orphans := make(map[string]time.Time, len(r.orphans))
	for i := range containers {
		container := &containers[i]
		since, known := r.orphans[container.ID]
		switch owned, err := r.isOwned(ctx, container); {
		case err != nil:
			errs = append(errs, err)
		case owned, isKept(container):
			continue
		case !known:
			since, known = now, true
		case now.Sub(since) >= r.graceOf(container):
			errs = append(errs, r.remove(ctx, container))
			continue
		}
		if known {
			orphans[container.ID] = since
		}
	}
	r.orphans = orphans
	return errors.Join(errs...)
}

// startTakes is how long it may take at most from when a helper is created to
// when it is started: one call's time limit, and some.
const startTakes = 5 * time.Minute

// graceOf returns how long a container has to have been nobody's. A helper that
// is about to be started looks like one whose executor died before.
func (r *Reconciler) graceOf(container *engine.Container) time.Duration {
	if container.Labels[engine.LabelHelper] != "" && container.State == engine.Created {
		return max(r.Grace, startTakes)
	}
	return r.Grace
}

// isOwned reports whether a job's life says that the attempt of a container
// runs, on whichever node. A container whose labels are not ours to read is
// somebody's.
func (r *Reconciler) isOwned(ctx context.Context, container *engine.Container) (bool, error) {
	if container.Labels[engine.LabelHelper] != "" {
		return container.State == engine.Running, nil // its own work ends it
	}
	job, err := contracts.ParseJobID(container.Labels[attempt.LabelJob])
	if err != nil {
		return true, nil
	}
	number, err := strconv.Atoi(container.Labels[attempt.LabelAttempt])
	if err != nil {
		return true, nil
	}
	last, err := r.Lives.Last(ctx, job)
	if err != nil {
		return false, err
	}
	return last != nil && last.Running() && last.Attempt == number, nil
}

// isKept reports whether a container has ended and is to stay, as its task asked.
func isKept(container *engine.Container) bool {
	return container.State == engine.Exited && container.Labels[attempt.LabelKeep] != ""
}

func (r *Reconciler) remove(ctx context.Context, container *engine.Container) error {
	if err := attempt.Dispose(ctx, r.Engine, container); err != nil {
		return fmt.Errorf("remove container that is nobody's: %w", err)
	}
	zerolog.Ctx(ctx).Warn().Str("container", container.Name).Str("job", container.Labels[attempt.LabelJob]).
		Str("attempt", container.Labels[attempt.LabelAttempt]).Msg("removed a container that no job owns")
	return nil
}
