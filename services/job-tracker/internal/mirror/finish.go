package mirror

import (
	"context"
	"fmt"
	"strings"

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
	late := ""
	if target == contracts.GirderSuccess {
		job, err := m.patiently(ctx, m.readQuickly)
		if err != nil {
			return err
		}
		m.saw(ctx, job.Status)
		if isCancel(m.status) {
			target, late = contracts.GirderCanceled, lateSuccess
		}
	}
	m.bar.finish(target)
	m.add(m.text.End())
	m.box.Finish()
	m.say(ofTheEnd, lastWords(m.life.terminal))
	m.say(ofTheCancel, late)
	if err := m.flush(ctx, true); err != nil {
		return err
	}
	if err := m.sendStatus(ctx, target); err != nil {
		return err
	}
	if target == contracts.GirderSuccess && m.status == contracts.GirderCanceling {
		// The cancel came between the question and the status.
		m.say(ofTheCancel, lateSuccess)
		if err := m.flush(ctx, true); err != nil {
			return err
		}
		target = contracts.GirderCanceled
		m.bar.finish(target)
		if err := m.sendStatus(ctx, target); err != nil {
			return err
		}
	}
	return m.done(ctx, target)
}

// lastWords says why a job failed, and what did not go as asked for.
func lastWords(terminal *contracts.Entry) string {
	switch data := terminal.Data.(type) {
	case *contracts.Failed:
		return withWarnings(data.Message, data.Warnings)
	case *contracts.Succeeded:
		return withWarnings("", data.Warnings)
	default:
		return ""
	}
}

// withWarnings puts each warning into a line of its own behind the words.
func withWarnings(words string, warnings []string) string {
	var lines []string
	if words != "" {
		lines = append(lines, strings.TrimRight(words, "\n"))
	}
	for _, warning := range warnings {
		lines = append(lines, "Warning: "+strings.Join(strings.Fields(warning), " "))
	}
	return strings.Join(lines, "\n")
}

// The last words come in this order. Each stands in the log as the end of an
// attempt, the first as that of the last one, the other as that of one more.
const (
	ofTheEnd = iota
	ofTheCancel
)

// say adds an entry of its own to the log. A mirror that starts behind it sees
// by the attempt where the log is that it was said.
func (m *mirror) say(which int, words string) {
	end := max(1, m.life.terminal.Attempt) + which
	if words == "" || m.text.At().Attempt > end {
		return
	}
	m.box.Break()
	for m.text.At().Attempt < end {
		m.add(m.text.EndAttempt(""))
	}
	m.add(m.text.EndAttempt(words))
}

func (m *mirror) done(ctx context.Context, target contracts.GirderStatus) error {
	problem := m.logProblem
	if m.status != target {
		problem = fmt.Sprintf("Girder says %s and does not take %s", m.status, target)
	}
	zerolog.Ctx(ctx).Info().Stringer("status", m.status).Str("girder_job", m.noted.ID).Msg("mirror done")
	return m.note(ctx, func(g *contracts.GirderMirror) {
		g.Status, g.Cursor, g.Done, g.Problem = m.status, m.box.Cursor(), true, problem
	})
}
