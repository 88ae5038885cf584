package show

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
)

// grid is a table without lines: columns apart by two spaces.
func grid(s Style, header []string, rows [][]string) string {
	w := table.NewWriter()
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	style.Format.Header = text.FormatDefault
	w.SetStyle(style)
	if header != nil {
		w.AppendHeader(cells(header, s.Bold))
	}
	for _, row := range rows {
		w.AppendRow(cells(row, nil))
	}
	var out strings.Builder
	for line := range strings.Lines(w.Render()) {
		out.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return out.String()
}

func cells(row []string, paint func(string) string) table.Row {
	out := make(table.Row, len(row))
	for i, cell := range row {
		if paint != nil {
			cell = paint(cell)
		}
		out[i] = cell
	}
	return out
}

const titleWidth = 40

// Jobs is the table of a page of jobs.
func Jobs(list *contracts.JobList, now time.Time, s Style) string {
	if len(list.Jobs) == 0 {
		return "no jobs\n"
	}
	rows := make([][]string, len(list.Jobs))
	for i := range list.Jobs {
		job := &list.Jobs[i]
		rows[i] = []string{
			string(job.ID), s.status(job.Status), clip(Clean(job.Title), titleWidth), string(job.Queue),
			strconv.Itoa(job.Attempt), jobProgress(job), ago(job.SubmittedAt, now), ranFor(job, now),
		}
	}
	out := grid(s, []string{"ID", "STATUS", "TITLE", "QUEUE", "ATTEMPT", "PROGRESS", "SUBMITTED", "RAN"}, rows)
	if more := list.Total - len(list.Jobs); more > 0 {
		out += s.Dim(fmt.Sprintf("%d more: --limit %d shows them", more, list.Total)) + "\n"
	}
	return out
}

// jobProgress is brief: the phase, a percentage, or the exit code.
func jobProgress(job *contracts.Job) string {
	switch {
	case job.Status.Terminal() && job.ExitCode != nil:
		return "exit " + strconv.Itoa(*job.ExitCode)
	case job.Status.Terminal():
		return "-"
	}
	if tells(job.Phase, job.Status) {
		return phaseBrief(job.Phase)
	}
	if percent, ok := Percent(job.Progress); ok {
		return strconv.Itoa(percent) + "%"
	}
	return "-"
}

func ranFor(job *contracts.Job, now time.Time) string {
	switch {
	case job.StartedAt.IsZero():
		return "-"
	case job.EndedAt.IsZero():
		return Duration(now.Sub(job.StartedAt))
	default:
		return Duration(job.EndedAt.Sub(job.StartedAt))
	}
}

// Workers is the table of running services.
func Workers(instances []contracts.Instance, now time.Time, s Style) string {
	if len(instances) == 0 {
		return "no services run\n"
	}
	rows := make([][]string, len(instances))
	for i, instance := range instances {
		queues := make([]string, len(instance.Queues))
		for j, queue := range instance.Queues {
			queues[j] = string(queue)
		}
		state := s.Good("ready")
		if instance.NotReady != "" {
			state = s.Bad("not ready: " + Clean(instance.NotReady))
		}
		slots := "-"
		if instance.Slots > 0 {
			slots = fmt.Sprintf("%d of %d", instance.Running, instance.Slots)
		}
		version, _, _ := strings.Cut(instance.Version, " ")
		rows[i] = []string{
			Clean(instance.Service), Clean(instance.ID), orDash(string(instance.Node)), orDash(strings.Join(queues, ",")),
			slots, ago(instance.Started, now), Clean(version), state,
		}
	}
	return grid(s, []string{"SERVICE", "INSTANCE", "NODE", "QUEUES", "SLOTS USED", "STARTED", "VERSION", "STATE"}, rows)
}

// Topology is the table of streams and buckets.
func Topology(states []client.StreamState, s Style) string {
	rows := make([][]string, len(states))
	for i, state := range states {
		if state.Missing {
			rows[i] = []string{state.Name, s.Bad("missing"), "", "", "", ""}
			continue
		}
		rows[i] = []string{
			state.Name, strconv.FormatUint(state.Messages, 10), Bytes(int64(state.Bytes)),
			strconv.Itoa(state.Consumers), strconv.Itoa(state.Replicas), Clean(strings.Join(state.Subjects, " ")),
		}
	}
	return grid(s, []string{"STREAM", "MESSAGES", "SIZE", "CONSUMERS", "REPLICAS", "SUBJECTS"}, rows)
}

// DeadLetters is the table of refused submissions.
func DeadLetters(letters []client.NumberedDeadLetter, now time.Time, s Style) string {
	if len(letters) == 0 {
		return "no dead letters\n"
	}
	rows := make([][]string, len(letters))
	for i, letter := range letters {
		rows[i] = []string{
			strconv.FormatUint(letter.Seq, 10), ago(letter.Time, now), Clean(string(letter.Queue)),
			orDash(string(letter.Job)), Clean(letter.Reason),
		}
	}
	return grid(s, []string{"SEQ", "WHEN", "QUEUE", "JOB", "REASON"}, rows)
}

// DeadLetter is all of one refused submission.
func DeadLetter(letter *client.NumberedDeadLetter, now time.Time, s Style) string {
	out := s.Bad("refused: ") + cleanLines(letter.Reason) + "\n\n"
	out += grid(s, nil, [][]string{
		{s.Dim("Seq"), strconv.FormatUint(letter.Seq, 10)},
		{s.Dim("Job"), orDash(string(letter.Job))},
		{s.Dim("Queue"), Clean(string(letter.Queue))},
		{s.Dim("Refused"), moment(letter.Time, now)},
	})
	return out + "\n" + s.Bold("Submitted, without its secrets") + "\n" + cleanLines(letter.Payload) + "\n"
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return Clean(text)
}
