// Package retention removes jobs whose time has come: what JOBS, LIVE and the
// bucket of jobs have of them, and the line in the index of each job-tracker.
//
// The job-tracker that leads removes; the others look what is gone, because a
// key that was purged from the bucket is no event that an index could follow.
package retention

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/job-tracker/internal/query"
)

// Sweeper removes jobs that ended longer ago than Keep, 0 for none.
type Sweeper struct {
	Bus   *bus.Bus
	Index *query.Index
	Keep  time.Duration
	Every time.Duration // the time between two sweeps
}

// Remove removes jobs until the context ends. One instance does it at a time.
func (s *Sweeper) Remove(ctx context.Context) error { return s.run(ctx, true) }

// Follow takes jobs out of the index that another instance removed, until the
// context ends.
func (s *Sweeper) Follow(ctx context.Context) error { return s.run(ctx, false) }

func (s *Sweeper) run(ctx context.Context, remove bool) error {
	if s.Keep == 0 {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	ticker := time.NewTicker(s.Every)
	defer ticker.Stop()
	for {
		for _, job := range s.Index.Select(s.outlived) {
			if err := s.visit(ctx, job, remove); err != nil && ctx.Err() == nil {
				zerolog.Ctx(ctx).Warn().Err(err).Str("job", string(job.ID)).Msg("job not removed, the next sweep does it")
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

// visit decides on what the bucket says, which may be newer than the index.
func (s *Sweeper) visit(ctx context.Context, indexed *contracts.Job, remove bool) error {
	job, err := s.Bus.Projection(ctx, indexed.ID)
	switch {
	case errors.Is(err, bus.ErrNoProjection):
		s.Index.Drop(indexed)
		return nil
	case err != nil:
		return err
	case !remove || !s.outlived(job):
		return nil
	}
	if err := s.Bus.DeleteJob(ctx, job.ID); err != nil {
		return err
	}
	s.Index.Drop(indexed)
	return nil
}

// outlived holds for no job whose end Girder is yet to be told.
func (s *Sweeper) outlived(job *contracts.Job) bool {
	return job.Status.Terminal() && (job.Girder == nil || job.Girder.Done) && time.Since(job.EndedAt) > s.Keep
}
