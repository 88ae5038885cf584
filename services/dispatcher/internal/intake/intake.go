// Package intake turns submissions into jobs. A submission is acknowledged
// when the job's life says queued and its ready message is there, or when it
// was refused and a dead letter says why; a dispatcher that dies in between is
// followed by one that goes on where it stopped.
package intake

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/cancel"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/deadletter"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/offer"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// Queues says which queues take tasks.
type Queues interface {
	Accepts(ctx context.Context, queue contracts.Queue) (bool, error)
}

// Intake handles submissions.
type Intake struct {
	Bus    *bus.Bus
	Queues Queues
}

// submission is one message of [contracts.StreamSubmit].
type submission struct {
	subject string
	payload []byte
	seq     uint64
	time    time.Time
	msgID   string
}

// Handle takes one submission. An error means that it is to come again.
func (i *Intake) Handle(ctx context.Context, msg *bus.Message) error {
	return i.take(ctx, submission{subject: msg.Subject, payload: msg.Data, seq: msg.Seq, time: msg.Time, msgID: msg.ID})
}

func (i *Intake) take(ctx context.Context, s submission) error {
	var invalid *contracts.InvalidTaskError
	task, err := contracts.DecodeTask(s.payload)
	if errors.As(err, &invalid) {
		return i.refuse(ctx, s, s.legible(), invalid)
	}
	if err != nil {
		return err
	}
	s.complete(task)
	err = i.checkQueue(ctx, task, s.subject)
	if errors.As(err, &invalid) {
		return i.refuse(ctx, s, task, invalid)
	}
	if err != nil {
		return err
	}
	return i.accept(ctx, s, task)
}

// complete fills in what the message says and the specification does not.
func (s submission) complete(task *contracts.Task) {
	if task.ID == "" {
		task.ID = s.jobID()
	}
	if task.Queue == "" {
		task.Queue = s.queue()
	}
}

// queue returns where a task waits that names no queue. It is written into the
// task: the same task is the same whichever subject it came by.
func (s submission) queue() contracts.Queue {
	return cmp.Or(contracts.SubmittedQueue(s.subject), contracts.DefaultQueue)
}

// jobID returns the id of a task that names none: the same one each time the
// submission is delivered.
func (s submission) jobID() contracts.JobID {
	if id, err := contracts.ParseJobID(s.msgID); err == nil {
		return id
	}
	var id ulid.ULID
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(s.payload[:len(s.payload):len(s.payload)], s.seq))
	copy(id[6:], sum[:])
	_ = id.SetTime(ulid.Timestamp(s.time)) // fails from the year 10889 on
	return contracts.JobID(id.String())
}

func (i *Intake) checkQueue(ctx context.Context, task *contracts.Task, subject string) error {
	queue, named := task.QueueOrDefault(), contracts.SubmittedQueue(subject)
	if named != "" && named != queue {
		return refusal("queue", "%q does not agree with the subject %s", queue, subject)
	}
	if _, err := contracts.ParseName[contracts.Queue](string(queue)); err != nil {
		return refusal("queue", "%v", err)
	}
	accepted, err := i.Queues.Accepts(ctx, queue)
	if err != nil {
		return fmt.Errorf("check queue %s: %w", queue, err)
	}
	if !accepted {
		return refusal("queue", "%q is unknown: no executor serves it and it is not in the dispatcher's queues (GANTRY_QUEUES)", queue)
	}
	return nil
}

func refusal(path, format string, args ...any) error {
	return &contracts.InvalidTaskError{Problems: []*contracts.FieldError{{Path: path, Message: fmt.Sprintf(format, args...)}}}
}

// accept brings the job from nothing, or from wherever an earlier delivery of
// the submission stopped, into its queue.
func (i *Intake) accept(ctx context.Context, s submission, task *contracts.Task) error {
	redacted, secrets, err := task.Redact()
	if err != nil {
		return err
	}
	last, err := i.begin(ctx, s, redacted)
	if errors.Is(err, errUsedID) {
		return deadletter.Keep(ctx, i.Bus, deadletter.Letter{
			Job: task.ID, Queue: task.QueueOrDefault(), Reason: fmt.Sprintf("id: %q is already used by another task", task.ID),
			Payload: s.payload, Submission: s.seq,
		})
	}
	if err != nil {
		return err
	}
	if last == nil {
		// The delivery before may have died between a ready message and a revoke.
		return cancel.IfRevoked(ctx, i.Bus, task.ID)
	}
	if last.Type == contracts.EntrySubmitted {
		// Later they are there, or removed for good with the job's end.
		if err := i.keepSecrets(ctx, task.ID, secrets); err != nil {
			return err
		}
	}
	if err := i.enqueue(ctx, last, redacted); err != nil {
		return err
	}
	return cancel.IfRevoked(ctx, i.Bus, task.ID)
}

func (i *Intake) keepSecrets(ctx context.Context, job contracts.JobID, secrets map[contracts.SecretKind]contracts.Secrets) error {
	for kind, values := range secrets {
		if err := i.Bus.PutSecrets(ctx, job, kind, values); err != nil {
			return err
		}
	}
	return nil
}

var errUsedID = errors.New("id is used by another task")

// begin starts the job's life and returns its last entry. It returns nil where
// nothing is left to do: the job has ended, or was submitted before.
func (i *Intake) begin(ctx context.Context, s submission, redacted *contracts.Task) (*bus.Seen, error) {
	hash, err := redacted.Hash()
	if err != nil {
		return nil, err
	}
	last, err := i.Bus.Append(ctx, redacted.ID, nil, &contracts.Submitted{
		Task: redacted, Submission: s.seq, Hash: hash, SubmittedAt: s.time,
	})
	if err == nil {
		zerolog.Ctx(ctx).Info().Str("job", string(redacted.ID)).Str("queue", string(redacted.QueueOrDefault())).Msg("task submitted")
		return last, nil
	}
	if !errors.Is(err, bus.ErrOvertaken) {
		return nil, err
	}
	before, err := i.Bus.Submitted(ctx, redacted.ID)
	switch {
	case err != nil:
		return nil, err
	case before == nil:
		return nil, fmt.Errorf("begin life of %s: it was purged just now", redacted.ID)
	case s.began(before) && !last.Terminal():
		return last, nil
	case s.began(before) || before.Hash == hash:
		return nil, nil
	default:
		return nil, errUsedID
	}
}

// began reports whether a life began with this very submission. A server that
// lost its last messages uses their sequences again; it never stored two of them
// at one time. What a version wrote that did not keep the time is told by its
// sequence.
func (s submission) began(life *contracts.Submitted) bool {
	return life.Submission == s.seq && (life.SubmittedAt.IsZero() || life.SubmittedAt.Equal(s.time))
}

// enqueue queues a job that is submitted, unless a revoke came before it, and
// offers one that was queued before.
func (i *Intake) enqueue(ctx context.Context, last *bus.Seen, task *contracts.Task) error {
	if last.Type == contracts.EntrySubmitted {
		if err := cancel.IfRevoked(ctx, i.Bus, last.Job); err != nil {
			return err
		}
		present, err := offer.Queue(ctx, i.Bus, last, task, contracts.QueuedSubmit)
		if !errors.Is(err, bus.ErrOvertaken) {
			return err
		}
		// By a revoke, or by another delivery of the submission, whose handler may
		// die before its ready message.
		last = present
	}
	if last.Type == contracts.EntryQueued {
		return offer.Publish(ctx, i.Bus, last, task)
	}
	return nil
}
