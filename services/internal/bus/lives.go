package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
)

// WatchLives calls handle with the last entry of every job's life, then with
// each further entry as it comes, one at a time, until the context ends. After
// an interruption it may start over: handle acts on the state that an entry
// says, not on having seen it. caughtUp is called once, after the lives that
// were there at the start.
func (b *Bus) WatchLives(ctx context.Context, caughtUp func(), handle func(*Seen)) error {
	for ctx.Err() == nil {
		err := b.watchLives(ctx, &caughtUp, handle)
		if ctx.Err() == nil {
			zerolog.Ctx(ctx).Warn().Err(err).Msg("watch of lives interrupted, starting over")
			pause(ctx, redeliverAfter)
		}
	}
	return context.Cause(ctx)
}

func (b *Bus) watchLives(ctx context.Context, caughtUp *func(), handle func(*Seen)) error {
	consumer, err := b.JetStream().OrderedConsumer(ctx, contracts.StreamJobs, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{contracts.LifeAll}, DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy,
	})
	if err != nil {
		return fmt.Errorf("watch lives: %w", err)
	}
	info, err := consumer.Info(ctx)
	if err != nil {
		return fmt.Errorf("watch lives: %w", err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		return fmt.Errorf("watch lives: %w", err)
	}
	defer messages.Stop()
	// Next does not look at its context while it makes its consumer anew.
	defer context.AfterFunc(ctx, messages.Stop)()
	none := info.NumPending == 0
	for left := info.NumPending; ; left-- {
		// Counting is not enough: a life may be purged before it is read.
		if (none || left == 0) && *caughtUp != nil {
			(*caughtUp)()
			*caughtUp = nil
		}
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("watch lives: %w", err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("watch lives: %w", err)
		}
		none = meta.NumPending == 0
		entry, err := contracts.DecodeEntry(msg.Data())
		if err != nil && !errors.Is(err, contracts.ErrUnknownEntry) {
			zerolog.Ctx(ctx).Error().Err(err).Str("subject", msg.Subject()).Msg("entry is not readable")
			continue
		}
		handle(&Seen{Entry: entry, Seq: meta.Sequence.Stream})
	}
}
