package contracts

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// EntryType names what an entry of a job's life says.
type EntryType string

// The entry types; [CheckNext] says which may follow which.
const (
	EntrySubmitted EntryType = "submitted"
	EntryQueued    EntryType = "queued"
	EntryClaimed   EntryType = "claimed"
	EntryAdopted   EntryType = "adopted"
	EntryReleased  EntryType = "released"
	EntryStarted   EntryType = "started"
	EntryCanceling EntryType = "canceling"
	EntryPushing   EntryType = "pushing"
	EntryPushed    EntryType = "pushed"
	EntrySucceeded EntryType = "succeeded"
	EntryFailed    EntryType = "failed"
	EntryCanceled  EntryType = "canceled"
)

// Entry is one fact in the life of a job. The entry is the state change: there
// is no second record that could disagree.
type Entry struct {
	Version int       `json:"version"`
	Type    EntryType `json:"type"`
	// Entry is random and also the message's Nats-Msg-Id, so that its author
	// recognizes it after an unknown outcome.
	Entry string `json:"entry"`
	Job   JobID  `json:"job"`
	// Attempt is numbered from 1; 0 means before any attempt.
	Attempt int `json:"attempt"`
	// Offer is the number of the last queued entry, from 1.
	Offer int `json:"offer"`
	// Crashes and Failures count the attempts that ended by infrastructure and
	// by the task's own failure.
	Crashes  int `json:"crashes"`
	Failures int `json:"failures"`
	// Time is UTC, by the clock of the author.
	Time time.Time `json:"time"`
	// Source is the author: docker-executor/<executor>.
	Source string `json:"source"`
	// Data is a pointer to the type that belongs to Type.
	Data EntryData `json:"-"`
}

// EntryData is what an entry of one type says beyond the envelope. The types
// of this file are all there are.
type EntryData interface {
	EntryType() EntryType
}

// Submitted is a job's first entry.
type Submitted struct {
	// Task is the specification without its secrets.
	Task *Task `json:"task"`
	// Submission is the stream sequence of the message in [StreamSubmit].
	Submission uint64 `json:"submission"`
	// Hash is [Task.Hash].
	Hash string `json:"hash"`
	// SubmittedAt is the server's time of the submission.
	SubmittedAt time.Time `json:"submitted_at"`
}

// QueuedReason says why a job was put into its queue.
type QueuedReason string

// The reasons.
const (
	QueuedSubmit QueuedReason = "submit"
	QueuedRetry  QueuedReason = "retry"
)

// Queued says that a ready message of the entry's offer is, or will be, there.
type Queued struct {
	Lane   Lane         `json:"lane"`
	Queue  Queue        `json:"queue"`
	Kind   Kind         `json:"kind"`
	Reason QueuedReason `json:"reason"`
}

// Claimed says that an executor owns a new attempt.
type Claimed struct {
	Node     NodeID     `json:"node"`
	Executor ExecutorID `json:"executor"`
}

// Adopted says that another executor process of the node owns the attempt.
type Adopted struct {
	Node     NodeID     `json:"node"`
	Executor ExecutorID `json:"executor"`
}

// Released says that the owner gave the attempt back before it started.
type Released struct {
	Node     NodeID     `json:"node"`
	Executor ExecutorID `json:"executor"`
	// Reason is why, in a sentence for people; at most [MaxErrorSize]. It is empty
	// in entries of a version that did not say it.
	Reason string `json:"reason,omitempty"`
}

// Started says that the attempt's container runs.
type Started struct {
	Container   string `json:"container"`
	ImageDigest string `json:"image_digest,omitempty"`
}

// Canceling says that the owner stops the attempt.
type Canceling struct {
	By     string `json:"by,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// Pushing says that outputs are about to be put into Girder.
type Pushing struct{}

// Pushed says that the output Index is in Girder.
type Pushed struct {
	Index int          `json:"index"`
	Files []GirderSent `json:"files"`
}

// GirderSent is one file that was put into Girder.
type GirderSent struct {
	Name   string `json:"name"`
	FileID string `json:"file_id"`
	ItemID string `json:"item_id"`
	// Size is in bytes; SHA512 is in hexadecimal digits.
	Size   int64  `json:"size"`
	SHA512 string `json:"sha512,omitempty"`
}

// Timings are the times at which an attempt's phases ended, absent where it
// did not come to them.
type Timings struct {
	Claimed  time.Time `json:"claimed,omitzero"`
	Pulled   time.Time `json:"pulled,omitzero"`
	StagedIn time.Time `json:"staged_in,omitzero"`
	Started  time.Time `json:"started,omitzero"`
	Exited   time.Time `json:"exited,omitzero"`
	Ended    time.Time `json:"ended,omitzero"`
}

// Succeeded is a terminal entry.
type Succeeded struct {
	ExitCode int            `json:"exit_code"`
	Result   jsontext.Value `json:"result,omitempty"`
	Outputs  []GirderSent   `json:"outputs,omitempty"`
	// Warnings are sentences for people about what did not go as asked for and
	// is no failure: they follow the job's log.
	Warnings []string `json:"warnings,omitempty"`
	Timings  Timings  `json:"timings,omitzero"`
	// LogSeq is the seq of the attempt's last log message, 0 for none.
	LogSeq uint64 `json:"log_seq"`
}

// FailureKind says whose fault an end is. It decides the retry.
type FailureKind string

// The failure kinds.
const (
	// FailureTask is the task's own failure: exit code, missing output, refused token.
	FailureTask FailureKind = "failure"
	// FailureInfrastructure is ours: a lost worker, engine or network.
	FailureInfrastructure FailureKind = "infrastructure"
	FailureTimeout        FailureKind = "timeout"
	FailureExpired        FailureKind = "expired"
	// FailureRejected is a task that was never tried.
	FailureRejected FailureKind = "rejected"
)

// Failed ends an attempt, and the job unless WillRetry.
type Failed struct {
	Kind FailureKind `json:"kind"`
	// Message is the reason in a sentence, for people; at most [MaxErrorSize].
	Message   string    `json:"message"`
	ExitCode  *int      `json:"exit_code,omitempty"`
	OOMKilled bool      `json:"oom_killed,omitzero"`
	WillRetry bool      `json:"will_retry"`
	RetryAt   time.Time `json:"retry_at,omitzero"`
	// Warnings are as in [Succeeded]; Outputs are artifacts, which a task may ask
	// for after a failure too.
	Warnings []string     `json:"warnings,omitempty"`
	Outputs  []GirderSent `json:"outputs,omitempty"`
	Timings  Timings      `json:"timings,omitzero"`
	LogSeq   uint64       `json:"log_seq"`
}

// Canceled is a terminal entry.
type Canceled struct {
	By     string `json:"by,omitempty"`
	Reason string `json:"reason,omitempty"`
	LogSeq uint64 `json:"log_seq"`
}

func (*Submitted) EntryType() EntryType { return EntrySubmitted }
func (*Queued) EntryType() EntryType    { return EntryQueued }
func (*Claimed) EntryType() EntryType   { return EntryClaimed }
func (*Adopted) EntryType() EntryType   { return EntryAdopted }
func (*Released) EntryType() EntryType  { return EntryReleased }
func (*Started) EntryType() EntryType   { return EntryStarted }
func (*Canceling) EntryType() EntryType { return EntryCanceling }
func (*Pushing) EntryType() EntryType   { return EntryPushing }
func (*Pushed) EntryType() EntryType    { return EntryPushed }
func (*Succeeded) EntryType() EntryType { return EntrySucceeded }
func (*Failed) EntryType() EntryType    { return EntryFailed }
func (*Canceled) EntryType() EntryType  { return EntryCanceled }

var newEntryData = map[EntryType]func() EntryData{
	EntrySubmitted: func() EntryData { return new(Submitted) },
	EntryQueued:    func() EntryData { return new(Queued) },
	EntryClaimed:   func() EntryData { return new(Claimed) },
	EntryAdopted:   func() EntryData { return new(Adopted) },
	EntryReleased:  func() EntryData { return new(Released) },
	EntryStarted:   func() EntryData { return new(Started) },
	EntryCanceling: func() EntryData { return new(Canceling) },
	EntryPushing:   func() EntryData { return new(Pushing) },
	EntryPushed:    func() EntryData { return new(Pushed) },
	EntrySucceeded: func() EntryData { return new(Succeeded) },
	EntryFailed:    func() EntryData { return new(Failed) },
	EntryCanceled:  func() EntryData { return new(Canceled) },
}

// entryOnWire is how an entry is written.
type entryOnWire struct {
	Envelope entryEnvelope  `json:",embed"`
	Data     jsontext.Value `json:"data,omitempty"`
}

type entryEnvelope Entry

// Encode writes the entry as JSON. Text that is not valid UTF-8, as a message
// from elsewhere may be, is made so: no entry may fail for that.
func (e *Entry) Encode() ([]byte, error) {
	options := json.JoinOptions(json.Deterministic(true), jsontext.AllowInvalidUTF8(true))
	data, err := json.Marshal(e.Data, options)
	if err != nil {
		return nil, fmt.Errorf("encode %s entry: %w", e.Type, err)
	}
	return json.Marshal(entryOnWire{entryEnvelope(*e), data}, options)
}

// DecodeEntry reads an entry. The error is [ErrUnknownEntry] for a type that
// this version does not know; the envelope is returned beside it.
func DecodeEntry(data []byte) (*Entry, error) {
	var wire entryOnWire
	if err := json.Unmarshal(data, &wire); err != nil {
		return nil, fmt.Errorf("decode entry: %w", err)
	}
	entry := Entry(wire.Envelope)
	construct, ok := newEntryData[entry.Type]
	if !ok {
		return &entry, fmt.Errorf("%w: %q", ErrUnknownEntry, entry.Type)
	}
	entry.Data = construct()
	if len(wire.Data) > 0 {
		if err := json.Unmarshal(wire.Data, entry.Data); err != nil {
			return nil, fmt.Errorf("decode %s entry: %w", entry.Type, err)
		}
	}
	if first, ok := entry.Data.(*Submitted); ok && first.Task == nil {
		return nil, fmt.Errorf("decode %s entry: it has no task", entry.Type)
	}
	return &entry, nil
}

// Terminal reports whether nothing may follow the entry.
func (e *Entry) Terminal() bool {
	switch data := e.Data.(type) {
	case *Succeeded, *Canceled:
		return true
	case *Failed:
		return !data.WillRetry
	default:
		return false
	}
}

// Running reports whether the attempt of the entry has an owner.
func (e *Entry) Running() bool {
	switch e.Type {
	case EntryClaimed, EntryAdopted, EntryStarted, EntryCanceling, EntryPushing, EntryPushed:
		return true
	default:
		return false
	}
}

// Claimable reports whether an executor that holds the ready message of the
// given offer may claim the job.
func (e *Entry) Claimable(offer int) bool {
	return (e.Type == EntryQueued || e.Type == EntryReleased) && e.Offer == offer
}
