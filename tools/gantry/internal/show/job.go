package show

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gantry-worker/gantry/contracts"
)

// Job is everything about one job; a failed job's reason comes first. away says
// that the executor of a job under way is not among the services that run.
func Job(job *contracts.Job, away bool, now time.Time, s Style) string {
	var out strings.Builder
	if job.Message != "" {
		fmt.Fprintf(&out, "%s %s\n\n", s.status(job.Status)+":", cleanLines(job.Message))
	}
	for i, warning := range warnings(job.Warnings) {
		out.WriteString(s.Warn(warning) + "\n")
		if i == len(job.Warnings)-1 {
			out.WriteString("\n")
		}
	}
	out.WriteString(grid(s, nil, facts(job, away, now, s)))
	if len(job.Outputs) > 0 {
		out.WriteString("\n" + s.Bold("Uploaded") + "\n" + outputs(job.Outputs, s))
	}
	if len(job.History) > 0 {
		out.WriteString("\n" + s.Bold("History") + "\n" + history(job.History, s))
	}
	return out.String()
}

func facts(job *contracts.Job, away bool, now time.Time, s Style) [][]string {
	var rows [][]string
	add := func(name, value string) {
		if value != "" {
			rows = append(rows, []string{s.Dim(name), value})
		}
	}
	add("Job", string(job.ID))
	add("Title", Clean(job.Title))
	add("Status", s.status(job.Status)+exit(job))
	add("Task", Clean(job.Task))
	add("Image", Clean(job.Image))
	add("Queue", fmt.Sprintf("%s, priority %d", Clean(string(job.Queue)), job.Priority))
	add("Labels", labels(job.Labels))
	add("Attempts", attempts(job))
	add("Where", where(job))
	if away {
		add("", s.Warn(absence(job)))
	}
	add("Phase", phase(job, away))
	add("Progress", progress(job))
	add("Girder", mirror(job.Girder))
	add("Submitted", moment(job.SubmittedAt, now))
	add("Started", moment(job.StartedAt, now))
	add("Ended", moment(job.EndedAt, now))
	add("Timings", timings(job))
	return rows
}

func exit(job *contracts.Job) string {
	var words []string
	if job.ExitCode != nil {
		words = append(words, fmt.Sprintf("exit code %d", *job.ExitCode))
	}
	if job.Failure != "" {
		words = append(words, "kind "+Clean(string(job.Failure)))
	}
	if words == nil {
		return ""
	}
	return " (" + strings.Join(words, ", ") + ")"
}

func labels(labels map[string]string) string {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		words = append(words, Clean(name+"="+labels[name]))
	}
	return strings.Join(words, " ")
}

func attempts(job *contracts.Job) string {
	out := fmt.Sprint(job.Attempt)
	if job.Crashes > 0 {
		out += ", " + Count(job.Crashes, "crash") + " (of worker, engine or network)"
	}
	if job.Failures > 0 {
		out += ", " + Count(job.Failures, "failure") + " (of the task)"
	}
	return out
}

func where(job *contracts.Job) string {
	var words []string
	if job.Node != "" {
		words = append(words, "node "+Clean(string(job.Node)))
	}
	if job.Executor != "" {
		words = append(words, "executor "+Clean(string(job.Executor)))
	}
	if job.Container != "" {
		words = append(words, "container "+clipID(Clean(job.Container)))
	}
	return strings.Join(words, ", ")
}

// absence says what becomes of a job whose executor is away.
func absence(job *contracts.Job) string {
	words := "this executor is away: "
	if job.Container != "" {
		words += "its container is left running, and "
	}
	return words + "the next executor of the node goes on with it; another node takes over after a while"
}

func clipID(id string) string { return id[:min(len(id), 12)] }

// phase says what a job is busy with. Of one whose executor is away nobody knows
// whether anything moves.
func phase(job *contracts.Job, away bool) string {
	if !tells(job.Phase, job.Status) {
		return ""
	}
	now := *job.Phase
	if away {
		now.Rate, now.Waiting = 0, ""
	}
	return phaseText(&now)
}

func progress(job *contracts.Job) string {
	if job.Progress == nil {
		return ""
	}
	out := Clean(job.Progress.Message)
	if percent, ok := Percent(job.Progress); ok {
		out = strings.TrimSpace(fmt.Sprintf("%d%% %s", percent, out))
	}
	return out
}

func mirror(m *contracts.GirderMirror) string {
	if m == nil {
		return ""
	}
	out := m.Status.String()
	if m.URL != "" {
		out += " at " + Clean(m.URL)
	}
	if m.Problem != "" {
		out += ": " + Clean(m.Problem)
	}
	return out
}

func moment(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s (%s)", t.UTC().Format("2006-01-02 15:04:05 UTC"), ago(t, now))
}

// timings says where the time of a job's last attempt went.
func timings(job *contracts.Job) string {
	t := job.Timings
	steps := []struct {
		name     string
		from, to time.Time
	}{
		{"waited", job.SubmittedAt, t.Claimed},
		{"prepared", t.Claimed, t.Started},
		{"ran", t.Started, t.Exited},
		{"finished", t.Exited, t.Ended},
	}
	var words []string
	for _, step := range steps {
		if !step.from.IsZero() && !step.to.IsZero() {
			words = append(words, step.name+" "+Duration(step.to.Sub(step.from)))
		}
	}
	return strings.Join(words, ", ")
}

func outputs(files []contracts.GirderSent, s Style) string {
	rows := make([][]string, len(files))
	for i, file := range files {
		rows[i] = []string{"  " + Clean(file.Name), Bytes(file.Size), "file " + Clean(file.FileID), "item " + Clean(file.ItemID)}
	}
	return grid(s, nil, rows)
}

func history(entries []contracts.HistoryEntry, s Style) string {
	rows := make([][]string, len(entries))
	for i, entry := range entries {
		attempt := ""
		if entry.Attempt > 0 {
			attempt = fmt.Sprintf("attempt %d", entry.Attempt)
		}
		rows[i] = []string{
			"  " + entry.Time.UTC().Format("15:04:05.000"), Clean(string(entry.Type)), s.Dim(attempt),
			s.Dim(Clean(entry.Source)), Clean(entry.Detail),
		}
	}
	return grid(s, nil, rows)
}
