package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
)

// ErrLogLost is returned where the end of a job's log is not what its author
// left there: the server lost pieces that it had acknowledged, or somebody else
// writes.
var ErrLogLost = errors.New("the stored log does not end where it did")

// LastLog returns the last piece of a job's log, of whatever attempt, and its
// stream sequence, read from the leader; nil and 0 if there is none.
func (b *Bus) LastLog(ctx context.Context, job contracts.JobID) (*contracts.LogChunk, uint64, error) {
	msg, err := b.lastMessage(ctx, contracts.StreamLive, contracts.LogFilter(job))
	if err != nil {
		return nil, 0, fmt.Errorf("read log of %s: %w", job, err)
	}
	if msg == nil {
		return nil, 0, nil
	}
	chunk := new(contracts.LogChunk)
	if err := json.Unmarshal(msg.Data, chunk); err != nil {
		return nil, 0, fmt.Errorf("read log of %s: %w", job, err)
	}
	return chunk, msg.Sequence, nil
}

// PublishLog stores a piece of a job's log once, also through an outage of
// NATS, behind the piece with the stream sequence last, and returns its own. If
// the log does not end there it is [ErrLogLost].
//
// generation makes the message's id differ from that of an earlier one with the
// same piece, which the server may remember and yet have lost.
func (b *Bus) PublishLog(ctx context.Context, subject, generation string, last uint64, chunk *contracts.LogChunk) (uint64, error) {
	data, err := json.Marshal(chunk)
	if err != nil {
		return 0, fmt.Errorf("publish to %s: %w", subject, err)
	}
	id := fmt.Sprintf("log-%s-%d-%d-%s", chunk.Job, chunk.Attempt, chunk.Seq, generation)
	var seq uint64
	err = b.persist(ctx, func(ctx context.Context) error {
		ack, err := b.JetStream().Publish(ctx, subject, data, jetstream.WithMsgID(id),
			jetstream.WithExpectLastSequenceForSubject(last, contracts.LogFilter(chunk.Job)))
		if err == nil && !ack.Duplicate {
			seq = ack.Sequence
			return nil
		}
		if err != nil && !isWrongSequence(err) {
			return err
		}
		// An earlier try may have come through, or still be on its way.
		stored, at, readErr := b.LastLog(ctx, chunk.Job)
		switch {
		case readErr != nil:
			return readErr
		case at > last && stored.Attempt == chunk.Attempt && stored.Seq == chunk.Seq:
			seq = at
			return nil
		case at == last:
			return fmt.Errorf("its outcome is open: %w", context.DeadlineExceeded)
		}
		return ErrLogLost
	}, append(onStream(contracts.StreamLive), subject)...)
	if err != nil {
		return 0, fmt.Errorf("publish to %s: %w", subject, err)
	}
	return seq, nil
}

// DropLog removes the pieces on a subject but for the last ones.
func (b *Bus) DropLog(ctx context.Context, subject string, keep uint64) error {
	err := b.persist(ctx, func(ctx context.Context) error {
		stream, err := b.stream(ctx, contracts.StreamLive)
		if err != nil {
			return err
		}
		return stream.Purge(ctx, jetstream.WithPurgeSubject(subject), jetstream.WithPurgeKeep(keep))
	}, onStream(contracts.StreamLive)...)
	if err != nil {
		return fmt.Errorf("drop from %s: %w", subject, err)
	}
	return nil
}
