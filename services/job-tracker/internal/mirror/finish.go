package mirror

import (
	"context"
	"fmt"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
)

// lateSuccess is the last line of a job that succeeded although Girder says that
// it is to be canceled. Girder lets only an error or a cancel follow then.
const lateSuccess = "The task had succeeded before the cancel reached it."

// finish sends the rest of the log, the last words and the terminal status.
func (m *mirror) finish(ctx context.Context) error {
	if err := m.completeLog(ctx); err != nil {
		return err
	}
	target := finalStatus(m.life.terminal)
	words := lastWords(m.life.terminal)
	if target == contracts.GirderSuccess {
		job, err := m.patiently(ctx, m.readQuickly)
		if err != nil {
			return err
		}
		m.saw(ctx, job.Status)
		if isCancel(m.status) {
			target, words = contracts.GirderCanceled, lateSuccess
		}
	}
	m.add(m.text.End())
	m.box.Finish()
	m.say(words)
	if err := m.flush(ctx, true); err != nil {
		return err
	}
	if err := m.sendStatus(ctx, target); err != nil {
		return err
	}
	if target == contracts.GirderSuccess && m.status == contracts.GirderCanceling {
		// The cancel came between the question and the status.
		m.say(lateSuccess)
		if err := m.flush(ctx, true); err != nil {
			return err
		}
		target = contracts.GirderCanceled
		if err := m.sendStatus(ctx, target); err != nil {
			return err
		}
	}
	return m.done(ctx, target)
}

// lastWords says why a job failed.
func lastWords(terminal *contracts.Entry) string {
	if failed, ok := terminal.Data.(*contracts.Failed); ok {
		return failed.Message
	}
	return ""
}

// say adds an entry of its own to the log. It also ends the last attempt, so
// that a mirror that starts behind it does not say it again.
func (m *mirror) say(words string) {
	if words == "" || m.text.At().Attempt > max(1, m.life.terminal.Attempt) {
		return
	}
	m.box.Break()
	m.add(m.text.EndAttempt(words))
}

func (m *mirror) done(ctx context.Context, target contracts.GirderStatus) error {
	problem := ""
	if m.status != target {
		problem = fmt.Sprintf("Girder says %s and does not take %s", m.status, target)
	}
	zerolog.Ctx(ctx).Info().Stringer("status", m.status).Str("girder_job", m.noted.ID).Msg("mirror done")
	return m.note(ctx, func(g *contracts.GirderMirror) {
		g.Status, g.Cursor, g.Done, g.Problem = m.status, m.box.Cursor(), true, problem
	})
}
