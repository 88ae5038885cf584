package projection

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gantry-worker/gantry/contracts"
)

// apply changes the projection of a job by an entry of its life, whose stream
// sequence is seq. It reports false for an entry that was applied before.
func apply(job *contracts.Job, entry *contracts.Entry, seq uint64) bool {
	if seq <= job.LifeSeq {
		return false
	}
	job.LifeSeq = seq
	phrase := detail(job, entry)
	job.Status = contracts.StatusAfter(job.Status, entry)
	job.Attempt, job.Crashes, job.Failures = entry.Attempt, entry.Crashes, entry.Failures
	applyData(job, entry)
	if entry.Terminal() {
		job.EndedAt = entry.Time
	}
	job.History = append(job.History, contracts.HistoryEntry{
		Type: entry.Type, Attempt: entry.Attempt, Time: entry.Time, Source: entry.Source, Detail: shorten(phrase, maxDetail),
	})
	if extra := len(job.History) - contracts.MaxHistory; extra > 0 {
		job.History = slices.Delete(job.History, 1, 1+extra) // how it began stays
	}
	return true
}

// Bounds of what else may grow: a projection is one message.
const (
	maxDetail  = 500     // bytes of a history line's phrase
	maxMessage = 4 << 10 // bytes of a progress message
	maxOutputs = 1000
	// maxWarnings is their number, and maxWarning the bytes of one.
	maxWarnings, maxWarning = 100, 1000
)

// shorten cuts a text, with a mark.
func shorten(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + " …"
}

func warnings(all []string) []string {
	var some []string
	for _, warning := range all[:min(len(all), maxWarnings)] {
		some = append(some, shorten(warning, maxWarning))
	}
	return some
}

func applyData(job *contracts.Job, entry *contracts.Entry) {
	switch data := entry.Data.(type) {
	case *contracts.Submitted:
		submitted(job, entry, data)
	case *contracts.Queued:
		job.Queue = data.Queue
	case *contracts.Claimed:
		newAttempt(job, data)
	case *contracts.Adopted:
		job.Node, job.Executor = data.Node, data.Executor
	case *contracts.Released:
		job.Node, job.Executor = "", ""
		job.Message = data.Reason
	case *contracts.Started:
		job.Container, job.StartedAt = data.Container, entry.Time
	case *contracts.Pushed:
		job.Outputs = append(job.Outputs, data.Files[:min(len(data.Files), maxOutputs-len(job.Outputs))]...)
	case *contracts.Canceling:
		job.Message = data.Reason
	case *contracts.Succeeded:
		job.ExitCode, job.Timings, job.Warnings = &data.ExitCode, data.Timings, warnings(data.Warnings)
		if data.Outputs != nil {
			job.Outputs = data.Outputs[:min(len(data.Outputs), maxOutputs)]
		}
	case *contracts.Failed:
		job.ExitCode, job.Timings, job.Warnings = data.ExitCode, data.Timings, warnings(data.Warnings)
		job.Failure, job.Message = data.Kind, data.Message
		if data.Outputs != nil {
			job.Outputs = data.Outputs[:min(len(data.Outputs), maxOutputs)]
		}
	case *contracts.Canceled:
		if job.Executor == "" {
			job.Message = "" // why it was given back is not why it ended
		}
		job.Message = cmp.Or(data.Reason, job.Message)
	}
}

func submitted(job *contracts.Job, entry *contracts.Entry, data *contracts.Submitted) {
	task := data.Task
	job.ID, job.Task, job.Title, job.Labels = entry.Job, task.Name, task.Title(), task.Labels
	job.Queue, job.Priority = task.QueueOrDefault(), defaultPriority
	if task.Docker != nil {
		job.Image = task.Docker.Image
	}
	if task.Priority != nil {
		job.Priority = *task.Priority
	}
	job.SubmittedAt = data.SubmittedAt
	if job.SubmittedAt.IsZero() {
		job.SubmittedAt = entry.Time
	}
	if task.HasGirderJob() && job.Girder == nil {
		job.Girder = &contracts.GirderMirror{}
	}
}

// defaultPriority is that of a task which names none.
const defaultPriority = 5

// newAttempt forgets what the attempt before said of itself.
func newAttempt(job *contracts.Job, data *contracts.Claimed) {
	job.Node, job.Executor, job.Container = data.Node, data.Executor, ""
	job.StartedAt = time.Time{}
	job.Phase, job.Progress, job.ExitCode = nil, nil, nil
	job.Failure, job.Message, job.Warnings, job.Outputs = "", "", nil, nil
	job.Timings = contracts.Timings{}
}

// detail says in a phrase what an entry means for a job as it was before.
func detail(job *contracts.Job, entry *contracts.Entry) string {
	switch data := entry.Data.(type) {
	case *contracts.Submitted:
		return data.Task.Title()
	case *contracts.Queued:
		phrase := fmt.Sprintf("in queue %s, priority %s", data.Queue, data.Lane)
		if data.Reason == contracts.QueuedRetry {
			phrase += ", to be tried again"
		}
		return phrase
	case *contracts.Claimed:
		return claimedBy(job, entry, data)
	case *contracts.Adopted:
		return adoptedBy(job, data)
	case *contracts.Released:
		return givenBack(data)
	case *contracts.Started:
		return "container " + data.Container[:min(12, len(data.Container))]
	case *contracts.Canceling:
		return by(data.By, data.Reason)
	case *contracts.Pushing:
		return "outputs on their way to Girder"
	case *contracts.Pushed:
		return fmt.Sprintf("output %d is in Girder (%d files)", data.Index, len(data.Files))
	case *contracts.Succeeded:
		return fmt.Sprintf("exit code %d", data.ExitCode)
	case *contracts.Failed:
		return failure(data)
	case *contracts.Canceled:
		return by(data.By, data.Reason)
	default:
		return "written by a newer version"
	}
}

// claimedBy says whether an attempt was taken over from an owner that is lost.
func claimedBy(job *contracts.Job, entry *contracts.Entry, data *contracts.Claimed) string {
	phrase := fmt.Sprintf("by executor %s on node %s", data.Executor, data.Node)
	if entry.Crashes > job.Crashes && job.Executor != "" {
		phrase += fmt.Sprintf(", which takes over: attempt %d was lost with executor %s on node %s", job.Attempt, job.Executor, job.Node)
	}
	return phrase
}

// adoptedBy says that the attempt goes on, and that its container does.
func adoptedBy(job *contracts.Job, data *contracts.Adopted) string {
	phrase := fmt.Sprintf("executor %s on node %s goes on", data.Executor, data.Node)
	if job.Executor != "" {
		phrase += fmt.Sprintf(" where executor %s stopped", job.Executor)
	}
	if job.Container != "" {
		phrase += ", with the same container"
	}
	return phrase
}

func givenBack(data *contracts.Released) string {
	phrase := fmt.Sprintf("given back by executor %s on node %s before its container started, to be claimed again", data.Executor, data.Node)
	if data.Reason != "" {
		phrase += ": " + shorten(data.Reason, maxDetail-100)
	}
	return phrase
}

func failure(data *contracts.Failed) string {
	phrase := fmt.Sprintf("%s: %s", data.Kind, data.Message)
	if data.Kind == contracts.FailureInfrastructure {
		phrase = fmt.Sprintf("%s, not the task's own failure: %s", data.Kind, data.Message)
	}
	if data.OOMKilled {
		phrase += " (out of memory)"
	}
	if data.WillRetry {
		phrase += ", tried again at " + data.RetryAt.UTC().Format(time.RFC3339)
	}
	return phrase
}

func by(who, reason string) string {
	switch {
	case who == "":
		return reason
	case reason == "":
		return "by " + who
	default:
		return fmt.Sprintf("by %s: %s", who, reason)
	}
}
