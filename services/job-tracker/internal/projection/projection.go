// Package projection builds, from lives and notes, what queries answer: one
// value per job in the bucket of jobs.
//
// A message on JOBS is taken as word that a job's life went on. Whoever handles
// it reads the life from the last entry that was applied, in order, so that
// neither a redelivery nor a message that was overtaken changes the order or
// leaves anything out. Phase and progress come from notes, which are hints: they
// are collected and stored twice a second at most.
package projection

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// workers is how many jobs are brought up to date at a time.
const workers = 64

// settle is how long a job's life may go on before it is read: the entries of
// a quick succession are stored as one change.
const settle = 25 * time.Millisecond

// Run keeps the projection until the context ends. One instance runs it at a
// time; should there be two, none undoes what the other did.
func Run(ctx context.Context, b *bus.Bus) error {
	connected := b.ConnectedSince() // from here on a loss is one to be looked after
	if err := rebuild(ctx, b); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return b.WorkSubjects(ctx, contracts.ProjectionConsumer, workers, func(ctx context.Context, subject string) error {
			job := contracts.JobOfSubject(subject)
			if subject != contracts.LifeSubject(job) {
				return nil // the mirror wrote it, and what it means
			}
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(settle):
			}
			return CatchUp(ctx, b, job)
		})
	})
	group.Go(func() error { return newNotes(b).run(ctx) })
	group.Go(func() error { return keepFresh(ctx, b, connected) })
	return group.Wait()
}

// freshLook is how often it is looked whether the connection is another one.
const freshLook = time.Second

// keepFresh looks after the projections at the start and after each reconnect: the
// server may have lost some that it had stored. Those that were missing were made
// over the connection that was made at the time rebuilt. Until a look succeeds it is
// tried again, while the projections go on.
func keepFresh(ctx context.Context, b *bus.Bus, rebuilt time.Time) error {
	ticker := time.NewTicker(freshLook)
	defer ticker.Stop()
	var fresh time.Time // when the connection was made that was looked after
	said := ""          // what keeps it is told once, not at each try
	for {
		if since := b.ConnectedSince(); !since.Equal(fresh) && b.Connected() == nil {
			err := lookAfter(ctx, b, since.Equal(rebuilt))
			switch {
			case err == nil:
				fresh, said = since, ""
			case errors.Is(err, client.ErrNotPermitted):
				return err
			case ctx.Err() == nil && err.Error() != said:
				said = err.Error()
				zerolog.Ctx(ctx).Warn().Err(err).Msg("projections not looked after, trying again")
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

func lookAfter(ctx context.Context, b *bus.Bus, isRebuilt bool) error {
	if isRebuilt {
		return refresh(ctx, b)
	}
	return errors.Join(rebuild(ctx, b), refresh(ctx, b))
}

// rebuild makes the projections that are not there, of jobs that have a life: the
// bucket may have been deleted.
func rebuild(ctx context.Context, b *bus.Bus) error {
	missing, err := b.Unprojected(ctx)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(workers)
	for _, job := range missing {
		group.Go(func() error { return CatchUp(ctx, b, job) })
	}
	return group.Wait()
}

// refreshers is how many jobs are looked at at a time when a tracker begins.
const refreshers = 16

// refresh brings the jobs up to date that have not ended: a message that a
// tracker died with comes again only when its lease is over.
func refresh(ctx context.Context, b *bus.Bus) error {
	group, working := errgroup.WithContext(ctx)
	group.SetLimit(refreshers)
	for job, err := range b.Projections(ctx) {
		if job == nil { // all that were there, or none are readable
			return errors.Join(err, group.Wait())
		}
		if !job.Status.Terminal() {
			group.Go(func() error { return CatchUp(working, b, job.ID) })
		}
	}
	return errors.Join(group.Wait(), context.Cause(ctx))
}

// CatchUp applies every entry of a job's life that was not applied yet. Several
// may do so at once: each entry is applied by one of them.
func CatchUp(ctx context.Context, b *bus.Bus, job contracts.JobID) error {
	var unread error
	_, err := b.UpdateProjection(ctx, job, func(projection *contracts.Job) bool {
		changed := false
		if unread = startOver(ctx, b, projection); unread != nil {
			return false
		}
		for {
			var next *bus.Seen
			if next, unread = b.EntryAfter(ctx, job, projection.LifeSeq); unread != nil {
				return changed
			}
			if next == nil {
				break
			}
			changed = apply(projection, next.Entry, next.Seq) || changed
		}
		if changed && projection.Girder != nil && !projection.Girder.Done && projection.Status.Terminal() {
			unread = recall(ctx, b, projection)
		}
		return changed && unread == nil
	})
	if err = errors.Join(err, unread); err != nil {
		return fmt.Errorf("project %s: %w", job, err)
	}
	return nil
}

// startOver forgets what was applied of a life that is not the same any more: the
// server has lost its last entries. How far the mirror is stays, Girder has it.
func startOver(ctx context.Context, b *bus.Bus, projection *contracts.Job) error {
	last := len(projection.History) - 1
	if last < 0 {
		return nil
	}
	applied := projection.History[last]
	held, err := b.Holds(ctx, projection.ID, projection.LifeSeq, func(entry *contracts.Entry) bool {
		return entry.Type == applied.Type && entry.Attempt == applied.Attempt && entry.Source == applied.Source && entry.Time.Equal(applied.Time)
	})
	if err == nil && !held {
		zerolog.Ctx(ctx).Warn().Str("job", string(projection.ID)).Msg("the server has lost entries of the job's life, its projection is made anew")
		*projection = contracts.Job{ID: projection.ID, Girder: projection.Girder}
	}
	return err
}

// recall takes over how the mirror of a job ended, where it has: a projection
// that is made anew, or that went back, must not start another one.
func recall(ctx context.Context, b *bus.Bus, projection *contracts.Job) error {
	ref, _, err := b.GirderJob(ctx, projection.ID)
	if err == nil && ref != nil && ref.Mirror != nil {
		projection.Girder = ref.Mirror
	}
	return err
}
