package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/rs/zerolog"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
)

// LastRevoke returns the revoke of a job, read from the leader, or nil if there
// is none.
func (b *Bus) LastRevoke(ctx context.Context, job contracts.JobID) (*contracts.Revoke, error) {
	msg, err := b.lastMessage(ctx, contracts.StreamRevoke, contracts.RevokeSubject(job))
	if err != nil {
		return nil, fmt.Errorf("read revoke of %s: %w", job, err)
	}
	if msg == nil {
		return nil, nil
	}
	revoke, err := contracts.DecodeRevoke(msg.Data, job)
	if err != nil {
		// Whoever published it wanted the job to end; how is not readable.
		return &contracts.Revoke{Job: job, Terminate: true, Reason: err.Error()}, nil
	}
	return revoke, nil
}

// ListenRevokes calls handle for every revoke that is published from now on,
// one at a time, until the context ends. It survives outages of NATS without a
// gap. ready is called once, when no later revoke can be missed.
func (b *Bus) ListenRevokes(ctx context.Context, ready func(), handle func(*contracts.Revoke)) error {
	var last client.Position
	err := b.persist(ctx, func(ctx context.Context) error {
		stream, err := b.JetStream().Stream(ctx, contracts.StreamRevoke)
		if err != nil {
			return err
		}
		state := stream.CachedInfo().State
		last = client.Position{Seq: state.LastSeq, Time: state.LastTime}
		return nil
	}, onStream(contracts.StreamRevoke)...)
	if err != nil {
		return fmt.Errorf("listen to revokes: %w", err)
	}
	ready()
	return b.revokesBehind(ctx, last, handle)
}

// FollowRevokes calls handle for every revoke that is remembered and then for
// each further one, one at a time, until the context ends. It survives outages
// of NATS without a gap.
func (b *Bus) FollowRevokes(ctx context.Context, handle func(*contracts.Revoke)) error {
	return b.revokesBehind(ctx, client.Position{}, handle)
}

func (b *Bus) revokesBehind(ctx context.Context, last client.Position, handle func(*contracts.Revoke)) error {
	for msg, err := range b.MessagesBehind(ctx, contracts.StreamRevoke, last, contracts.RevokeAll) {
		if err != nil {
			return fmt.Errorf("listen to revokes: %w", err)
		}
		revoke, err := contracts.DecodeRevoke(msg.Data(), contracts.RevokedJob(msg.Subject()))
		if err != nil {
			zerolog.Ctx(ctx).Warn().Err(err).Str("subject", msg.Subject()).Msg("revoke is not readable, taken as an order with default signal and grace")
			revoke = &contracts.Revoke{Job: contracts.RevokedJob(msg.Subject()), Terminate: true, Reason: err.Error()}
		}
		handle(revoke)
	}
	return context.Cause(ctx)
}

// Purge removes the messages on a subject of a stream; none there is no error.
func (b *Bus) Purge(ctx context.Context, streamName, subject string) error {
	remove := func(ctx context.Context, stream jetstream.Stream) error {
		return stream.Purge(ctx, jetstream.WithPurgeSubject(subject))
	}
	if slices.Contains(queues, streamName) {
		remove = func(ctx context.Context, stream jetstream.Stream) error { return deleteEach(ctx, stream, subject) }
	}
	err := b.persist(ctx, func(ctx context.Context) error {
		stream, err := b.stream(ctx, streamName)
		if err != nil {
			return err
		}
		return remove(ctx, stream)
	}, append(onStream(streamName), "$JS.API.STREAM.MSG.DELETE."+streamName)...)
	if err != nil {
		return fmt.Errorf("purge %s: %w", subject, err)
	}
	return nil
}

// queues are the streams whose messages are in somebody's hands until they are
// acknowledged. The server is not asked to purge a subject of theirs: where one
// of its messages is in hand, nats-server 2.15 takes older ones of the consumer
// that are in hand too for acknowledged, and never delivers them again. One that
// is deleted by its sequence takes nothing along.
var queues = []string{contracts.StreamSubmit, contracts.StreamReady, contracts.StreamLater, contracts.StreamTransfers}

func deleteEach(ctx context.Context, stream jetstream.Stream, subject string) error {
	for next := uint64(1); ; {
		msg, err := stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject(subject))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err == nil {
			err = deleteMessage(ctx, stream, msg.Sequence)
		}
		if err != nil {
			return err
		}
		next = msg.Sequence + 1
	}
}

// deleteMessage deletes a message, which may be gone by then.
func deleteMessage(ctx context.Context, stream jetstream.Stream, seq uint64) error {
	err := stream.DeleteMsg(ctx, seq)
	if !errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
		return err
	}
	if _, gone := stream.GetMsg(ctx, seq); errors.Is(gone, jetstream.ErrMsgNotFound) {
		return nil // it was acknowledged, or deleted by another one
	}
	return errors.Join(err, errUndecided)
}
