package bus

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
)

const (
	projectionStream = "KV_" + contracts.BucketJobs
	projectionPrefix = "$KV." + contracts.BucketJobs + "."
)

// ErrNoProjection is returned by Projection for a job that has none.
var ErrNoProjection = errors.New("no such job")

// Projection returns what the bucket of jobs says of a job.
func (b *Bus) Projection(ctx context.Context, job contracts.JobID) (*contracts.Job, error) {
	projection, _, err := b.projection(ctx, job)
	if err == nil && projection == nil {
		err = ErrNoProjection
	}
	if err != nil {
		return nil, fmt.Errorf("read job %s: %w", job, err)
	}
	return projection, nil
}

func (b *Bus) projection(ctx context.Context, job contracts.JobID) (*contracts.Job, uint64, error) {
	// Not the bucket's Get, which says nothing of the revision of a deleted key.
	msg, err := b.lastMessage(ctx, projectionStream, projectionPrefix+string(job))
	if err != nil || msg == nil {
		return nil, 0, err
	}
	if len(msg.Data) == 0 {
		return nil, msg.Sequence, nil
	}
	projection := new(contracts.Job)
	return projection, msg.Sequence, json.Unmarshal(msg.Data, projection)
}

// Unprojected returns the jobs that have a life and nothing in the bucket of
// jobs.
func (b *Bus) Unprojected(ctx context.Context) ([]contracts.JobID, error) {
	projected, err := b.subjects(ctx, projectionStream, projectionPrefix+">")
	if err != nil {
		return nil, fmt.Errorf("list jobs: %w", err)
	}
	lives, err := b.subjects(ctx, contracts.StreamJobs, contracts.LifeAll)
	if err != nil {
		return nil, fmt.Errorf("list lives: %w", err)
	}
	var missing []contracts.JobID
	for subject := range lives {
		job := contracts.JobOfSubject(subject)
		if _, ok := projected[projectionPrefix+string(job)]; !ok {
			missing = append(missing, job)
		}
	}
	return missing, nil
}

// subjects returns the subjects of a stream that match, with how many messages
// each has.
func (b *Bus) subjects(ctx context.Context, streamName, filter string) (map[string]uint64, error) {
	var subjects map[string]uint64
	err := b.persist(ctx, func(ctx context.Context) error {
		stream, err := b.stream(ctx, streamName)
		if err != nil {
			return err
		}
		info, err := stream.Info(ctx, jetstream.WithSubjectFilter(filter))
		if err == nil {
			subjects = info.State.Subjects
		}
		return err
	}, onStream(streamName)...)
	return subjects, err
}

// UpdateProjection changes what the bucket of jobs says of a job. change gets
// the present value, a zero one with its id for a job that is not there yet,
// and says whether there is anything to store; it is called again where
// somebody else was first. The result is the value that is there in the end.
func (b *Bus) UpdateProjection(ctx context.Context, job contracts.JobID, change func(*contracts.Job) bool) (*contracts.Job, error) {
	for {
		projection, revision, err := b.projection(ctx, job)
		if err != nil {
			return nil, fmt.Errorf("update job %s: %w", job, err)
		}
		if projection == nil {
			projection = &contracts.Job{ID: job}
		}
		if !change(projection) {
			return projection, nil
		}
		stored, err := b.storeProjection(ctx, projection, revision)
		if err != nil {
			return nil, fmt.Errorf("update job %s: %w", job, err)
		}
		if stored {
			return projection, nil
		}
	}
}

// storeProjection reports false where the value is no longer the one that the
// change was made to. After an answer that was lost this may be our own; the
// change is then made once more, which changes nothing.
func (b *Bus) storeProjection(ctx context.Context, projection *contracts.Job, revision uint64) (bool, error) {
	data, err := json.Marshal(projection)
	if err != nil {
		return false, err
	}
	err = b.persist(ctx, func(ctx context.Context) error {
		_, err := b.JetStream().Publish(ctx, projectionPrefix+string(projection.ID), data,
			jetstream.WithExpectLastSequencePerSubject(revision))
		return err
	}, onBucket(contracts.BucketJobs)...)
	if isWrongSequence(err) {
		return false, nil
	}
	return err == nil, err
}

// DeleteJob removes all that is kept of a job that has ended. The key in the
// bucket of jobs goes last: after an error it is still there to say that
// something is left.
func (b *Bus) DeleteJob(ctx context.Context, job contracts.JobID) error {
	if err := b.DeleteSecrets(ctx, job); err != nil {
		return err
	}
	for _, kept := range []struct{ stream, subject string }{
		{contracts.StreamLive, contracts.LogFilter(job)},
		{contracts.StreamLive, contracts.NotesSubject(job)},
		{contracts.StreamJobs, contracts.GirderSubject(job)},
		{contracts.StreamJobs, contracts.LifeSubject(job)},
		{projectionStream, projectionPrefix + string(job)},
	} {
		if err := b.Purge(ctx, kept.stream, kept.subject); err != nil {
			return fmt.Errorf("delete job %s: %w", job, err)
		}
	}
	return nil
}

// Projections yields every job in the bucket, then each change, until the
// context ends; nil stands once between the two. It survives outages of NATS.
// An error is yielded last.
func (b *Bus) Projections(ctx context.Context) iter.Seq2[*contracts.Job, error] {
	return func(yield func(*contracts.Job, error) bool) {
		present, err := b.lastMessage(ctx, projectionStream, projectionPrefix+">")
		if err != nil {
			yield(nil, fmt.Errorf("read jobs: %w", err))
			return
		}
		if present == nil && !yield(nil, nil) {
			return
		}
		behind := present != nil
		for msg, err := range b.Messages(ctx, projectionStream, 1, projectionPrefix+">") {
			if err != nil {
				yield(nil, err)
				return
			}
			job := new(contracts.Job)
			if len(msg.Data()) > 0 && json.Unmarshal(msg.Data(), job) == nil && !yield(job, nil) {
				return
			}
			meta, err := msg.Metadata()
			if err == nil && behind && meta.Sequence.Stream >= present.Sequence {
				behind = false
				if !yield(nil, nil) {
					return
				}
			}
		}
	}
}

// EntryAfter returns the first entry of a job's life whose stream sequence is
// greater than seq, or nil if there is none yet. An entry of a type that this
// version does not know has no data; what is no entry at all is passed over.
func (b *Bus) EntryAfter(ctx context.Context, job contracts.JobID, seq uint64) (*Seen, error) {
	var next *Seen
	err := b.persist(ctx, func(ctx context.Context) error {
		stream, err := b.stream(ctx, contracts.StreamJobs)
		if err != nil {
			return err
		}
		for {
			msg, err := stream.GetMsg(ctx, seq+1, jetstream.WithGetMsgSubject(contracts.LifeSubject(job)))
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				return nil
			}
			if err != nil {
				return err
			}
			entry, err := contracts.DecodeEntry(msg.Data)
			if err == nil || errors.Is(err, contracts.ErrUnknownEntry) {
				next = &Seen{Entry: entry, Seq: msg.Sequence}
				return nil
			}
			zerolog.Ctx(ctx).Error().Err(err).Str("job", string(job)).Uint64("seq", msg.Sequence).Msg("entry is not readable")
			seq = msg.Sequence
		}
	}, onStream(contracts.StreamJobs)...)
	if err != nil {
		return nil, fmt.Errorf("read life of %s: %w", job, err)
	}
	return next, nil
}

// setBackWait is how long an entry that was read must be gone to count as lost: a
// leader that was elected just now may not have taken it in yet.
const setBackWait = 500 * time.Millisecond

// Holds reports whether the entry of a job's life that was read at a stream
// sequence is still there: a server that has lost its last messages uses their
// sequences again, and what comes behind is not what follows. Of a life that is
// gone as a whole there is nothing else to read.
func (b *Bus) Holds(ctx context.Context, job contracts.JobID, seq uint64, is func(*contracts.Entry) bool) (bool, error) {
	for try := range 2 {
		if seq == 0 {
			return true, nil
		}
		if try > 0 {
			pause(ctx, setBackWait)
		}
		entry, err := b.EntryAfter(ctx, job, seq-1)
		if err != nil || entry != nil && entry.Seq == seq && is(entry.Entry) {
			return err == nil, err
		}
	}
	first, err := b.EntryAfter(ctx, job, 0)
	return first == nil, err
}

// WorkSubjects is [Bus.Work] for handlers that need no more than the subject:
// a message says that there is something new on it.
func (b *Bus) WorkSubjects(ctx context.Context, consumer contracts.Consumer, workers int, handle func(ctx context.Context, subject string) error) error {
	return b.Work(ctx, consumer, workers, func(ctx context.Context, msg *Message) error {
		return handle(ctx, msg.Subject)
	})
}

// LastSeq returns the stream sequence of the last message on a subject, which
// may be a filter, 0 for none.
func (b *Bus) LastSeq(ctx context.Context, streamName, subject string) (uint64, error) {
	msg, err := b.lastMessage(ctx, streamName, subject)
	if err != nil || msg == nil {
		return 0, err
	}
	return msg.Sequence, nil
}

// LastPosition returns the position of the last message on a subject, which may be
// a filter; before all of them for none.
func (b *Bus) LastPosition(ctx context.Context, streamName, subject string) (client.Position, error) {
	msg, err := b.lastMessage(ctx, streamName, subject)
	if err != nil || msg == nil {
		return client.Position{}, err
	}
	return client.Position{Seq: msg.Sequence, Time: msg.Time}, nil
}

// GirderJob returns which Girder job belongs to a job, and the stream sequence
// of that word; nil and 0 if nothing was said yet.
func (b *Bus) GirderJob(ctx context.Context, job contracts.JobID) (*contracts.GirderJobRef, uint64, error) {
	msg, err := b.lastMessage(ctx, contracts.StreamJobs, contracts.GirderSubject(job))
	if err != nil {
		return nil, 0, fmt.Errorf("read Girder job of %s: %w", job, err)
	}
	if msg == nil {
		return nil, 0, nil
	}
	ref := new(contracts.GirderJobRef)
	if err := json.Unmarshal(msg.Data, ref); err != nil {
		return nil, 0, fmt.Errorf("read Girder job of %s: %w", job, err)
	}
	return ref, msg.Sequence, nil
}

// PutGirderJob says which Girder job belongs to a job, on top of the word with
// the stream sequence before, and returns the new one's. The error is
// [ErrOvertaken] if somebody else was first.
func (b *Bus) PutGirderJob(ctx context.Context, job contracts.JobID, before uint64, ref contracts.GirderJobRef) (uint64, error) {
	ref.Version = contracts.Version
	data, err := json.Marshal(ref)
	if err != nil {
		return 0, fmt.Errorf("store Girder job of %s: %w", job, err)
	}
	var seq uint64
	err = b.persist(ctx, func(ctx context.Context) error {
		ack, err := b.JetStream().Publish(ctx, contracts.GirderSubject(job), data, jetstream.WithExpectLastSequencePerSubject(before))
		if err == nil {
			seq = ack.Sequence
			return nil
		}
		if !isWrongSequence(err) {
			return err
		}
		// One of several servers may answer so for a moment after the word before.
		_, present, err := b.GirderJob(ctx, job)
		switch {
		case err != nil:
			return err
		case present != before:
			return ErrOvertaken
		}
		return errUndecided
	}, contracts.GirderSubject(job))
	if err != nil {
		return 0, fmt.Errorf("store Girder job of %s: %w", job, err)
	}
	return seq, nil
}
