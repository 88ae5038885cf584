package mirror

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/girder"
)

// singly makes the client send a request once: patience is the mirror's.
var singly = girder.Retry{Total: -1}

// firstPause and longestPause stand between tries.
const (
	firstPause   = 200 * time.Millisecond
	longestPause = 10 * time.Second
)

// once sends one request when it is this host's turn.
func (m *mirror) once(ctx context.Context, request func(context.Context) (girder.Job, error)) (girder.Job, error) {
	if err := m.host.requests.Acquire(ctx, 1); err != nil {
		return girder.Job{}, err
	}
	defer m.host.requests.Release(1)
	return request(ctx)
}

// patiently sends a request about the Girder job until Girder itself answers or
// patience ends. What a proxy says of it does not count.
func (m *mirror) patiently(ctx context.Context, request func(context.Context) (girder.Job, error)) (girder.Job, error) {
	return m.persist(ctx, true, request)
}

// persist sends a request again after errors that are temporary, and where
// foreign says so also after those that something before Girder made.
func (m *mirror) persist(ctx context.Context, foreign bool, request func(context.Context) (girder.Job, error)) (girder.Job, error) {
	var job girder.Job
	retry := girder.Retry{Total: m.manager.cfg.Patience, First: firstPause, Max: longestPause, Foreign: foreign}
	err := retry.Do(ctx, func(err error, _ time.Duration) { m.troubled(ctx, err) }, func() (bool, error) {
		var err error
		job, err = m.once(ctx, request)
		return false, m.outage(err)
	})
	if err != nil {
		return job, err
	}
	if m.problem == "" {
		return job, nil
	}
	m.problem = ""
	return job, m.note(ctx, func(g *contracts.GirderMirror) { g.Problem = m.logProblem })
}

// troubled shows what keeps the mirror waiting.
func (m *mirror) troubled(ctx context.Context, err error) {
	m.settle()
	if m.problem != "" {
		return
	}
	m.problem = "Girder does not answer, tried again: " + err.Error()
	zerolog.Ctx(ctx).Warn().Err(err).Msg("girder does not answer")
	if err := m.note(ctx, func(g *contracts.GirderMirror) { g.Problem = m.problem }); err != nil && ctx.Err() == nil {
		zerolog.Ctx(ctx).Warn().Err(err).Msg("problem not noted")
	}
}

// saw takes in a status that Girder told.
func (m *mirror) saw(ctx context.Context, status contracts.GirderStatus) {
	m.status = status
	m.poll.start()
	if isCancel(status) && m.life.terminal == nil {
		m.revoke(ctx, canceledInGirder)
	}
}

// askStatus asks once; the next poll comes soon enough.
func (m *mirror) askStatus(ctx context.Context) {
	request := m.client.Get
	if m.life.attempted() {
		request = m.readQuickly // there may be a long log
	}
	if job, err := m.once(ctx, request); err == nil {
		m.saw(ctx, job.Status)
	}
}

// readQuickly reads the job without its log.
func (m *mirror) readQuickly(ctx context.Context) (girder.Job, error) {
	return m.client.Update(ctx, girder.JobUpdate{Retry: true})
}

// statusTries bounds how often a status is decided anew; each time somebody
// else has changed it in between.
const statusTries = 10

// sendStatus brings the Girder job to a status, where there is a way.
func (m *mirror) sendStatus(ctx context.Context, target contracts.GirderStatus) error {
	for range statusTries {
		path := contracts.GirderPath(m.handler, m.status, target)
		if len(path) == 0 {
			break
		}
		job, err := m.patiently(ctx, func(ctx context.Context) (girder.Job, error) {
			return m.client.Update(ctx, girder.JobUpdate{Status: &path[0], Progress: m.bar.last(path[0]), Retry: true})
		})
		if errors.Is(err, girder.ErrValidation) {
			job, err = m.patiently(ctx, m.client.Get)
		}
		if err != nil {
			return err
		}
		m.saw(ctx, job.Status)
	}
	return m.note(ctx, func(g *contracts.GirderMirror) { g.Status = m.status })
}

// flush sends the log and progress that Girder does not have. complete says
// that no more log will come.
func (m *mirror) flush(ctx context.Context, complete bool) error {
	m.flushAt = time.Time{}
	for entry := m.box.Next(complete); entry != ""; entry = m.box.Next(complete) {
		if err := m.sendLog(ctx, entry); err != nil {
			return err
		}
	}
	if m.bar.news() {
		progress := m.bar.next()
		job, err := m.patiently(ctx, func(ctx context.Context) (girder.Job, error) {
			return m.client.Update(ctx, girder.JobUpdate{Progress: progress, Retry: true})
		})
		if err != nil {
			return err
		}
		m.bar.sent()
		m.saw(ctx, job.Status)
	}
	return m.note(ctx, func(g *contracts.GirderMirror) { g.Status, g.Cursor = m.status, m.box.Cursor() })
}
