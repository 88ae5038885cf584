package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
)

// Seen is an entry together with its stream sequence, which is what the next
// entry is decided on.
type Seen struct {
	*contracts.Entry
	Seq uint64
}

// ErrOvertaken is returned by Append when somebody else's entry came first.
var ErrOvertaken = errors.New("the job's life went on")

// Last returns the last entry of a job's life, read from the leader, or nil
// for a job that has none. It waits out an outage of NATS.
func (b *Bus) Last(ctx context.Context, job contracts.JobID) (*Seen, error) {
	msg, err := b.lastMessage(ctx, contracts.StreamJobs, contracts.LifeSubject(job))
	if err != nil {
		return nil, fmt.Errorf("read life of %s: %w", job, err)
	}
	if msg == nil {
		return nil, nil
	}
	entry, err := contracts.DecodeEntry(msg.Data)
	if err != nil {
		return nil, fmt.Errorf("read life of %s: %w", job, err)
	}
	return &Seen{Entry: entry, Seq: msg.Sequence}, nil
}

// Life returns the entries of a job's life, oldest first, or
// [client.ErrNoJob]. It waits out an outage of NATS. What is no entry at all is
// passed over.
func (b *Bus) Life(ctx context.Context, job contracts.JobID) ([]*contracts.Entry, error) {
	last, err := b.LastSeq(ctx, contracts.StreamJobs, contracts.LifeSubject(job))
	if err != nil {
		return nil, fmt.Errorf("read life of %s: %w", job, err)
	}
	if last == 0 {
		return nil, fmt.Errorf("%w: %s", client.ErrNoJob, job)
	}
	var life []*contracts.Entry
	for seq := uint64(0); seq < last; {
		next, err := b.EntryAfter(ctx, job, seq)
		if err != nil {
			return nil, err
		}
		if next == nil {
			break // the last ones are not readable
		}
		life, seq = append(life, next.Entry), next.Seq
	}
	return life, nil
}

// Submitted returns a job's first entry, or nil for a job that has none.
func (b *Bus) Submitted(ctx context.Context, job contracts.JobID) (*contracts.Submitted, error) {
	var submitted *contracts.Submitted
	err := b.persist(ctx, func(ctx context.Context) error {
		stream, err := b.stream(ctx, contracts.StreamJobs)
		if err != nil {
			return err
		}
		msg, err := stream.GetMsg(ctx, 1, jetstream.WithGetMsgSubject(contracts.LifeSubject(job)))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		entry, err := contracts.DecodeEntry(msg.Data)
		if err != nil {
			return err
		}
		data, ok := entry.Data.(*contracts.Submitted)
		if !ok {
			return fmt.Errorf("first entry is %s", entry.Type)
		}
		submitted = data
		return nil
	}, onStream(contracts.StreamJobs)...)
	if err != nil {
		return nil, fmt.Errorf("read submission of %s: %w", job, err)
	}
	return submitted, nil
}

// Append publishes data as the next entry on top of last, which is nil for a
// job's first entry, and returns it. Where the outcome is unknown (a timeout,
// an outage, an answer that only says "duplicate") it reads the life and
// decides by the entry's own id whether it is there; it goes on trying as long
// as the context lasts.
//
// The error is [ErrOvertaken], with the present last entry beside it, if
// somebody else was first, and [contracts.ErrIllegalEntry] if the entry may
// not stand there at all.
func (b *Bus) Append(ctx context.Context, job contracts.JobID, last *Seen, data contracts.EntryData) (*Seen, error) {
	var (
		before   *contracts.Entry
		expected uint64
	)
	if last != nil {
		before, expected = last.Entry, last.Seq
	}
	next := contracts.NextEntry(before, job, b.Source, data)
	if err := contracts.CheckNext(before, next); err != nil {
		return nil, fmt.Errorf("life of %s: %w", job, err)
	}
	payload, err := next.Encode()
	if err != nil {
		return nil, fmt.Errorf("life of %s: %w", job, err)
	}
	var appended *Seen
	err = b.persist(ctx, func(ctx context.Context) error {
		ack, err := b.JetStream().Publish(ctx, contracts.LifeSubject(job), payload,
			jetstream.WithMsgID(next.Entry), jetstream.WithExpectLastSequencePerSubject(expected))
		if err == nil && !ack.Duplicate {
			appended = &Seen{Entry: next, Seq: ack.Sequence}
			return nil
		}
		if err != nil && !isWrongSequence(err) && !isOutage(err) {
			return err
		}
		present, readErr := b.Last(ctx, job)
		switch {
		case readErr != nil:
			return readErr
		case present != nil && present.Entry.Entry == next.Entry:
			appended = present
			return nil
		case present.seq() != expected:
			appended = present
			return ErrOvertaken
		}
		if err == nil || isWrongSequence(err) {
			return errUndecided
		}
		return err // nothing came after last: the outage is over, try again
	}, contracts.LifeSubject(job))
	if err != nil {
		return appended, fmt.Errorf("append %s to life of %s: %w", next.Type, job, err)
	}
	return appended, nil
}

func (s *Seen) seq() uint64 {
	if s == nil {
		return 0
	}
	return s.Seq
}

func isWrongSequence(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) &&
		(api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || // one replica
			api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant) // several
}
