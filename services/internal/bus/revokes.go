package bus

import (
	"context"
	"fmt"

	"github.com/rs/zerolog"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
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
	var from uint64
	err := b.persist(ctx, func(ctx context.Context) error {
		stream, err := b.JetStream().Stream(ctx, contracts.StreamRevoke)
		if err != nil {
			return err
		}
		from = stream.CachedInfo().State.LastSeq + 1
		return nil
	}, onStream(contracts.StreamRevoke)...)
	if err != nil {
		return fmt.Errorf("listen to revokes: %w", err)
	}
	ready()
	return b.revokesFrom(ctx, from, handle)
}

// FollowRevokes calls handle for every revoke that is remembered and then for
// each further one, one at a time, until the context ends. It survives outages
// of NATS without a gap.
func (b *Bus) FollowRevokes(ctx context.Context, handle func(*contracts.Revoke)) error {
	return b.revokesFrom(ctx, 1, handle)
}

func (b *Bus) revokesFrom(ctx context.Context, from uint64, handle func(*contracts.Revoke)) error {
	for msg, err := range b.Messages(ctx, contracts.StreamRevoke, from, contracts.RevokeAll) {
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
	err := b.persist(ctx, func(ctx context.Context) error {
		stream, err := b.stream(ctx, streamName)
		if err != nil {
			return err
		}
		return stream.Purge(ctx, jetstream.WithPurgeSubject(subject))
	}, onStream(streamName)...)
	if err != nil {
		return fmt.Errorf("purge %s: %w", subject, err)
	}
	return nil
}
