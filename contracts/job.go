package contracts

import "time"

// Status is a job's state in one word, as people see it.
type Status string

// The statuses.
const (
	StatusSubmitted Status = "submitted"
	StatusQueued    Status = "queued"
	StatusClaimed   Status = "claimed"
	StatusRunning   Status = "running"
	StatusPushing   Status = "pushing"
	StatusCanceling Status = "canceling"
	StatusRetrying  Status = "retrying"
	StatusSucceeded Status = "succeeded"
	StatusFailed    Status = "failed"
	StatusCanceled  Status = "canceled"
)

// Statuses lists the statuses in the order of a job's life.
var Statuses = []Status{
	StatusSubmitted, StatusQueued, StatusClaimed, StatusRunning, StatusPushing, StatusCanceling,
	StatusRetrying, StatusSucceeded, StatusFailed, StatusCanceled,
}

// Terminal reports whether a job in this status has ended.
func (s Status) Terminal() bool {
	return s == StatusSucceeded || s == StatusFailed || s == StatusCanceled
}

// StatusAfter returns a job's status after an entry, given the one before it.
func StatusAfter(before Status, e *Entry) Status {
	switch data := e.Data.(type) {
	case *Submitted:
		return StatusSubmitted
	case *Queued, *Released:
		return StatusQueued
	case *Claimed:
		return StatusClaimed
	case *Started:
		return StatusRunning
	case *Canceling:
		return StatusCanceling
	case *Pushing, *Pushed:
		return StatusPushing
	case *Succeeded:
		return StatusSucceeded
	case *Canceled:
		return StatusCanceled
	case *Failed:
		if data.WillRetry {
			return StatusRetrying
		}
		return StatusFailed
	default:
		return before
	}
}

// Job is the projection of one job: what queries answer and people see. It is
// the value of a key in [BucketJobs], written by job-tracker alone.
type Job struct {
	ID       JobID             `json:"id"`
	Status   Status            `json:"status"`
	Task     string            `json:"task"`
	Title    string            `json:"title"`
	Image    string            `json:"image,omitempty"`
	Queue    Queue             `json:"queue"`
	Priority int               `json:"priority"`
	Labels   map[string]string `json:"labels,omitempty"`
	Attempt  int               `json:"attempt"`
	Crashes  int               `json:"crashes"`
	Failures int               `json:"failures"`

	SubmittedAt time.Time `json:"submitted_at"`
	StartedAt   time.Time `json:"started_at,omitzero"`
	EndedAt     time.Time `json:"ended_at,omitzero"`

	Node      NodeID     `json:"node,omitempty"`
	Executor  ExecutorID `json:"executor,omitempty"`
	Container string     `json:"container,omitempty"`

	// Phase and Progress are the last that the attempt said.
	Phase    *Phase    `json:"phase,omitempty"`
	Progress *Progress `json:"progress,omitempty"`

	ExitCode *int         `json:"exit_code,omitempty"`
	Failure  FailureKind  `json:"failure,omitempty"`
	Message  string       `json:"message,omitempty"`
	Warnings []string     `json:"warnings,omitempty"`
	Outputs  []GirderSent `json:"outputs,omitempty"`
	Timings  Timings      `json:"timings,omitzero"`

	// History has one line per entry of the job's life, oldest first, at most
	// [MaxHistory].
	History []HistoryEntry `json:"history"`
	// Girder is nil for a job without a Girder job.
	Girder *GirderMirror `json:"girder,omitempty"`

	// LifeSeq is the stream sequence of the last entry that was applied.
	LifeSeq uint64 `json:"life_seq"`
}

// MaxHistory bounds [Job.History].
const MaxHistory = 200

// HistoryEntry is one line of a job's history.
type HistoryEntry struct {
	Type    EntryType `json:"type"`
	Attempt int       `json:"attempt"`
	Time    time.Time `json:"time"`
	Source  string    `json:"source"`
	// Detail is a phrase for people: a reason, a node, an exit code.
	Detail string `json:"detail,omitempty"`
}

// GirderMirror says how far a job's mirror in Girder is.
type GirderMirror struct {
	ID  string `json:"id,omitempty"`
	URL string `json:"url,omitempty"`
	// Status is the last status that Girder accepted.
	Status GirderStatus `json:"status"`
	// Cursor is the last log message that Girder has.
	Cursor MirrorCursor `json:"cursor"`
	// Done says that Girder has the terminal status, or was given up.
	Done bool `json:"done,omitzero"`
	// Problem says in a sentence what keeps the mirror from going on.
	Problem string `json:"problem,omitempty"`
}

// MirrorCursor is a position in a job's log.
type MirrorCursor struct {
	Attempt int    `json:"attempt"`
	Seq     uint64 `json:"seq"`
	// Characters is how many characters of log Girder was sent in all.
	Characters int64 `json:"characters"`
}

// GirderJobRef is the value at [GirderSubject]: which Girder job belongs to a
// job. First it says that one is being created, then which, in the end how its
// mirror ended.
type GirderJobRef struct {
	Version  int  `json:"version"`
	Creating bool `json:"creating,omitzero"`
	// ID and URL are the Girder job's; URL is <api>/job/<id>.
	ID      string        `json:"id,omitempty"`
	URL     string        `json:"url,omitempty"`
	Handler GirderHandler `json:"handler,omitempty"`
	// LogBefore is how many characters of log the Girder job had before
	// anything was sent, where that is known.
	LogBefore *int64 `json:"log_before,omitempty"`
	// Refused says in a sentence why Girder will not create the job.
	Refused string `json:"refused,omitempty"`
	// Mirror is what became of the mirror, when it is done.
	Mirror *GirderMirror `json:"mirror,omitempty"`
}

// GateRequest asks, on [JobsGateSubject], whether a claimed attempt of a task
// with a Girder job may begin.
type GateRequest struct {
	Job JobID `json:"job"`
}

// GateVerdict is what the gate says.
type GateVerdict string

// The verdicts.
const (
	GateOpen GateVerdict = "open"
	// GateRevoked: Girder says CANCELING or CANCELED.
	GateRevoked GateVerdict = "revoked"
	// GateRefused: Girder refused to create the job; the task fails.
	GateRefused GateVerdict = "refused"
)

// GateReply answers a [GateRequest].
type GateReply struct {
	Verdict GateVerdict `json:"verdict"`
	Message string      `json:"message,omitempty"`
}

// OwnsRequest asks an executor, on [OwnsSubject], whether it owns an attempt.
type OwnsRequest struct {
	Job     JobID `json:"job"`
	Attempt int   `json:"attempt"`
}

// OwnsReply answers an [OwnsRequest].
type OwnsReply struct {
	Owns bool `json:"owns"`
}

// Instance is one running service, the value of the key <service>.<id> in
// [BucketNodes]. The key lives for [InstanceTTL] unless renewed.
type Instance struct {
	Service string    `json:"service"`
	ID      string    `json:"id"`
	Node    NodeID    `json:"node,omitempty"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	// Queues, Kinds, Slots and Running are an executor's.
	Queues  []Queue `json:"queues,omitempty"`
	Kinds   []Kind  `json:"kinds,omitempty"`
	Slots   int     `json:"slots,omitzero"`
	Running int     `json:"running,omitzero"`
	// NotReady says in a sentence why the service does not take work now.
	NotReady string `json:"not_ready,omitempty"`
}

// InstanceTTL is how long a service that does not renew its key is listed.
const InstanceTTL = 15 * time.Second

// InstanceKey returns the key of an instance in [BucketNodes].
func InstanceKey(service, id string) string { return service + "." + id }

// DeadLetter is a submission that was refused, on [DeadSubject].
type DeadLetter struct {
	Version int `json:"version"`
	// Job is empty where the payload has no usable id.
	Job    JobID     `json:"job,omitempty"`
	Queue  Queue     `json:"queue"`
	Time   time.Time `json:"time"`
	Reason string    `json:"reason"`
	// Payload is what was submitted, without its secrets.
	Payload string `json:"payload"`
	// Submission is the stream sequence of the message in [StreamSubmit].
	Submission uint64 `json:"submission"`
}

// RequestError is the body of a refused request: {"error": {…}}.
type RequestError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Field   string `json:"field,omitempty"`
}

func (e *RequestError) Error() string { return e.Message }

// Codes of a [RequestError].
const (
	CodeNotFound = "not_found"
	CodeInvalid  = "invalid"
	CodeInternal = "internal"
)

// JobFilter selects jobs in a list; empty fields select all.
type JobFilter struct {
	Statuses []Status  `json:"statuses,omitempty"`
	Queue    Queue     `json:"queue,omitempty"`
	Label    string    `json:"label,omitempty"` // "name" or "name=value"
	Since    time.Time `json:"since,omitzero"`
	// Limit is 50 if 0; Before is the id of the last job of the page before.
	Limit  int   `json:"limit,omitzero"`
	Before JobID `json:"before,omitempty"`
}

// JobList is a page of jobs, the newest first.
type JobList struct {
	Jobs  []Job `json:"jobs"`
	Total int   `json:"total"`
}

// Sizes that are checked before publishing, in bytes.
const (
	MaxResultSize = 256 << 10
	MaxErrorSize  = 64 << 10
)
