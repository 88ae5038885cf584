package contracts

import (
	"fmt"
	"strconv"
	"strings"
)

// Subjects of one job are functions; filters that match those of many jobs are
// constants beside them.
const (
	// SubmitAny is where clients publish tasks; SubmitQueues are its variants
	// for one queue.
	SubmitAny    = "tasks.submit"
	SubmitQueues = "tasks.submit.*"

	ReadyAll    = "tasks.ready.>"
	LaterAll    = "tasks.later.*.*"
	DueAll      = "tasks.due.*.*"
	RevokeAll   = "tasks.revoke.*"
	DeadAll     = "tasks.dead.*"
	TransferAll = "transfers.>"
	JobsAll     = "jobs.*.*"
	LifeAll     = "jobs.*.life"
	GirderAll   = "jobs.*.girder"
	LogsAll     = "logs.*.*"
	NotesAll    = "notes.*"
)

// SubmitSubject is where tasks for one queue are published.
func SubmitSubject(queue Queue) string { return "tasks.submit." + string(queue) }

// SubmittedQueue returns the queue that a submission's subject names, empty
// for [SubmitAny].
func SubmittedQueue(subject string) Queue {
	queue, _ := strings.CutPrefix(subject, SubmitAny+".")
	if queue == subject {
		return ""
	}
	return Queue(queue)
}

// ReadySubject is where the ready message of one offer of a job waits.
func ReadySubject(lane Lane, queue Queue, kind Kind, job JobID, offer int) string {
	return fmt.Sprintf("tasks.ready.%s.%s.%s.%s.%d", lane, queue, kind, job, offer)
}

// ReadyFilter matches the ready messages of one lane, queue and kind.
func ReadyFilter(lane Lane, queue Queue, kind Kind) string {
	return fmt.Sprintf("tasks.ready.%s.%s.%s.*.*", lane, queue, kind)
}

// ReadyJobFilter matches the ready messages of one job.
func ReadyJobFilter(lane Lane, queue Queue, kind Kind, job JobID) string {
	return fmt.Sprintf("tasks.ready.%s.%s.%s.%s.*", lane, queue, kind, job)
}

// ParseReady returns the job and offer that a ready message's subject names.
func ParseReady(subject string) (JobID, int, error) {
	tokens := strings.Split(subject, ".")
	if len(tokens) != 7 || !strings.HasPrefix(subject, "tasks.ready.") {
		return "", 0, fmt.Errorf("%q is not the subject of a ready message", subject)
	}
	job, err := ParseJobID(tokens[5])
	if err != nil {
		return "", 0, fmt.Errorf("%q is not the subject of a ready message: %w", subject, err)
	}
	offer, err := strconv.Atoi(tokens[6])
	if err != nil || offer < 1 || tokens[6] != strconv.Itoa(offer) {
		return "", 0, fmt.Errorf("%q is not the subject of a ready message: its offer is no number from 1", subject)
	}
	return job, offer, nil
}

// LaterWhat says what a scheduled message is for.
type LaterWhat string

// LaterRetry offers a job again.
const LaterRetry LaterWhat = "retry"

// LaterSubject is where a schedule of a job is kept, and DueSubject where the
// server publishes its message when it is due.
func LaterSubject(job JobID, what LaterWhat) string {
	return fmt.Sprintf("tasks.later.%s.%s", job, what)
}

// DueSubject is the target of the schedule at [LaterSubject].
func DueSubject(job JobID, what LaterWhat) string {
	return fmt.Sprintf("tasks.due.%s.%s", job, what)
}

// ParseDue returns the job and purpose that a due message's subject names.
func ParseDue(subject string) (JobID, LaterWhat, error) {
	tokens := strings.Split(subject, ".")
	if len(tokens) != 4 || !strings.HasPrefix(subject, "tasks.due.") || tokens[3] == "" {
		return "", "", fmt.Errorf("%q is not the subject of a due message", subject)
	}
	job, err := ParseJobID(tokens[2])
	if err != nil {
		return "", "", fmt.Errorf("%q is not the subject of a due message: %w", subject, err)
	}
	return job, LaterWhat(tokens[3]), nil
}

// RevokeSubject is where a revoke of one job is published and kept.
func RevokeSubject(job JobID) string { return "tasks.revoke." + string(job) }

// RevokedJob returns the job that a revoke's subject names.
func RevokedJob(subject string) JobID {
	return JobID(strings.TrimPrefix(subject, "tasks.revoke."))
}

// DeadSubject is where refused submissions of a queue are kept.
func DeadSubject(queue Queue) string { return "tasks.dead." + string(queue) }

// TransferSubject is where an executor asks its node's transfer for a step.
func TransferSubject(node NodeID, job JobID, attempt int, step string) string {
	return fmt.Sprintf("transfers.%s.%s.%d.%s", node, job, attempt, step)
}

// TransferFilter matches all steps of one node.
func TransferFilter(node NodeID) string { return fmt.Sprintf("transfers.%s.>", node) }

// TransferJobFilter matches all steps of one job, on any node.
func TransferJobFilter(job JobID) string { return fmt.Sprintf("transfers.*.%s.>", job) }

// LifeSubject is a job's event log.
func LifeSubject(job JobID) string { return fmt.Sprintf("jobs.%s.life", job) }

// GirderSubject has the Girder job of a job, see [GirderJobRef].
func GirderSubject(job JobID) string { return fmt.Sprintf("jobs.%s.girder", job) }

// JobOfSubject returns the job that a subject of jobs, logs or notes names.
func JobOfSubject(subject string) JobID {
	tokens := strings.SplitN(subject, ".", 3)
	if len(tokens) < 2 {
		return ""
	}
	return JobID(tokens[1])
}

// LogHeadSubject has the first half of a job's log, LogTailSubject the rest,
// whose oldest part is dropped over the limit.
func LogHeadSubject(job JobID) string { return fmt.Sprintf("logs.%s.head", job) }

// LogTailSubject has what comes after [LogHeadSubject].
func LogTailSubject(job JobID) string { return fmt.Sprintf("logs.%s.tail", job) }

// LogFilter matches all of one job's log.
func LogFilter(job JobID) string { return fmt.Sprintf("logs.%s.*", job) }

// NotesSubject has the notes of one job.
func NotesSubject(job JobID) string { return "notes." + string(job) }

// OwnsSubject is where an executor answers an [OwnsRequest].
func OwnsSubject(executor ExecutorID) string { return fmt.Sprintf("executors.%s.owns", executor) }

// Request subjects of the NATS micro service [ServiceName].
const (
	ServiceName        = "gantry"
	JobsGetSubject     = "gantry.jobs.get"
	JobsListSubject    = "gantry.jobs.list"
	JobsLogSubject     = "gantry.jobs.log"
	JobsGateSubject    = "gantry.jobs.gate"
	WorkersListSubject = "gantry.workers.list"
	DeadListSubject    = "gantry.dead.list"
	DeadShowSubject    = "gantry.dead.show"
)
