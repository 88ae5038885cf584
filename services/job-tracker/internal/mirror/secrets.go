package mirror

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// sweep deletes secrets whose time has come: those of failed jobs after the
// retention, and those that a crash left.
func (m *Manager) sweep(ctx context.Context) error {
	ticker := time.NewTicker(m.cfg.Sweep)
	defer ticker.Stop()
	for {
		jobs, err := m.bus.JobsWithSecrets(ctx)
		if err != nil && ctx.Err() == nil {
			zerolog.Ctx(ctx).Warn().Err(err).Msg("secrets not listed")
		}
		for _, job := range jobs {
			m.retireByID(ctx, job)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

func (m *Manager) retireByID(ctx context.Context, id contracts.JobID) {
	job, err := m.bus.Projection(ctx, id)
	switch {
	case err == nil:
		m.retire(ctx, job)
	case !errors.Is(err, bus.ErrNoProjection) && ctx.Err() == nil:
		zerolog.Ctx(ctx).Warn().Err(err).Str("job", string(id)).Msg("job not read")
	}
}

// retire deletes the secrets of a job that has ended and needs them no more.
func (m *Manager) retire(ctx context.Context, job *contracts.Job) {
	if !job.Status.Terminal() || job.Girder != nil && !job.Girder.Done {
		return
	}
	if job.Status == contracts.StatusFailed && time.Since(job.EndedAt) < m.cfg.SecretsRetention {
		return
	}
	if err := m.bus.DeleteSecrets(ctx, job.ID); err != nil && ctx.Err() == nil {
		zerolog.Ctx(ctx).Warn().Err(err).Str("job", string(job.ID)).Msg("secrets not deleted, the next sweep does it")
	}
}
