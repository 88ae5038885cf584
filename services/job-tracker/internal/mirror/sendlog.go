package mirror

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/girder"
)

// sendLog appends one entry to Girder's log, exactly once, and with it what is
// new of the progress.
func (m *mirror) sendLog(ctx context.Context, entry string) error {
	if m.box.Crowded() {
		if err := m.joinLog(ctx); err != nil {
			return err
		}
		entry = m.box.Next(true) // it may be larger now
	}
	update := girder.JobUpdate{Log: entry}
	news := m.bar.news()
	if news {
		update.Progress = m.bar.next()
	}
	unknown := false
	job, err := m.withLog(ctx, func(ctx context.Context) (girder.Job, error) {
		if unknown {
			job, err := m.client.Get(ctx)
			if err != nil || m.box.Found(job.Log, entry) {
				return job, err
			}
		}
		unknown = true
		job, err := m.client.Update(ctx, update)
		if err == nil {
			m.box.Sent(entry)
		}
		return job, err
	})
	var refused *logRefusedError
	switch {
	case errors.As(err, &refused):
		return m.refuseLog(ctx, refused, entry)
	case err != nil:
		return err
	}
	if news {
		m.bar.sent()
	}
	m.saw(ctx, job.Status)
	return nil
}

// joinLog puts all entries of Girder's log into one: the more there are, the
// smaller a new one must be for Girder to keep them all.
func (m *mirror) joinLog(ctx context.Context) error {
	job, err := m.patiently(ctx, m.client.Get)
	if err != nil {
		return err
	}
	all := strings.Join(job.Log, "")
	_, err = m.withLog(ctx, func(ctx context.Context) (girder.Job, error) {
		return m.client.Update(ctx, girder.JobUpdate{Log: all, Overwrite: true, Retry: true})
	})
	var refused *logRefusedError
	switch {
	case errors.As(err, &refused):
		m.box.StayApart()
		return nil
	case err != nil:
		return fmt.Errorf("join log: %w", err)
	}
	m.box.Joined(int64(utf8.RuneCountInString(all)))
	return nil
}

// logRefusedError says that Girder, or what stands before it, does not take an
// update for the log in it.
type logRefusedError struct {
	status int
	cause  string
}

func (e *logRefusedError) Error() string { return "the log is not taken: " + e.cause }

// logTries is how often in a row an update with log has to fail with an error of
// the server, and one without log to be answered, to blame the log.
const logTries = 4

// withLog sends a request with log in it, as patiently does. Where only the log
// can be the reason that it fails, the error is a [*logRefusedError]: a log is
// not worth a job's status.
func (m *mirror) withLog(ctx context.Context, request func(context.Context) (girder.Job, error)) (girder.Job, error) {
	blamed := 0
	return m.patiently(ctx, func(ctx context.Context) (girder.Job, error) {
		job, err := request(ctx)
		var refusal *girder.Error
		if err == nil || !errors.As(err, &refusal) || !mayBeTheLog(err) {
			return job, err
		}
		if girder.IsOutage(err) {
			if blamed++; !m.answersWithoutLog(ctx) {
				blamed = 0
			}
			if blamed < logTries {
				return job, err
			}
		}
		return job, &logRefusedError{refusal.Status, err.Error()}
	})
}

// otherRefusals are errors that say that nothing is taken, with log or without.
var otherRefusals = []error{girder.ErrUnauthorized, girder.ErrForbidden, girder.ErrNotFound, girder.ErrNoRoute, girder.ErrRateLimited}

func mayBeTheLog(err error) bool {
	return !slices.ContainsFunc(otherRefusals, func(class error) bool { return errors.Is(err, class) })
}

func (m *mirror) answersWithoutLog(ctx context.Context) bool {
	_, err := m.client.Update(ctx, girder.JobUpdate{Retry: true})
	return err == nil
}

// refuseLog goes on after an entry that was not taken: with smaller ones where
// it was too large, else without log.
func (m *mirror) refuseLog(ctx context.Context, refused *logRefusedError, entry string) error {
	if refused.status == http.StatusRequestEntityTooLarge && m.box.Shrink(entry) {
		return nil
	}
	m.box.Refuse()
	m.logProblem = fmt.Sprintf("Girder takes no more of the log, 'gantry logs %s' shows all of it: %s", m.job, refused.cause)
	zerolog.Ctx(ctx).Error().Err(refused).Msg("log no longer mirrored")
	return m.note(ctx, func(g *contracts.GirderMirror) { g.Problem = m.logProblem })
}
