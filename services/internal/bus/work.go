package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/gantry-worker/gantry/contracts"
)

// redeliverAfter is how long a message waits that its handler gave back.
const redeliverAfter = time.Second

// Work passes the messages of a durable consumer to handle, at most workers at
// a time, until the context ends; then it waits for the handlers. While a
// handler runs, its message's lease is renewed. A handler that returns nil has
// done its part for good and the message is acknowledged; after an error the
// message comes again. Handlers must be idempotent.
func (b *Bus) Work(ctx context.Context, consumer contracts.Consumer, workers int, handle func(context.Context, jetstream.Msg) error) error {
	var group errgroup.Group
	group.SetLimit(workers)
	defer func() { _ = group.Wait() }()
	for ctx.Err() == nil {
		if err := b.pull(ctx, consumer, workers, func(msg jetstream.Msg) {
			group.Go(func() error {
				b.serve(ctx, msg, consumer.AckWait, handle)
				return nil
			})
		}); err != nil && ctx.Err() == nil {
			zerolog.Ctx(ctx).Warn().Err(err).Str("consumer", consumer.Durable).Str("stream", consumer.Stream).Msg("consumer interrupted, going on")
			pause(ctx, redeliverAfter)
		}
	}
	return context.Cause(ctx)
}

// pull iterates over messages until something breaks.
func (b *Bus) pull(ctx context.Context, consumer contracts.Consumer, workers int, each func(jetstream.Msg)) error {
	handle, err := b.JetStream().Consumer(ctx, consumer.Stream, consumer.Durable)
	if err != nil {
		return fmt.Errorf("find consumer: %w", err)
	}
	messages, err := handle.Messages(jetstream.PullMaxMessages(workers), jetstream.PullHeartbeat(5*time.Second), jetstream.PullExpiry(30*time.Second))
	if err != nil {
		return fmt.Errorf("pull: %w", err)
	}
	defer giveBack(ctx, messages)
	for {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("pull: %w", err)
		}
		each(msg)
	}
}

// giveBack returns what was pulled and nobody began, so that it need not wait
// for the end of its lease.
func giveBack(ctx context.Context, messages jetstream.MessagesContext) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	messages.Drain()
	for {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return
		}
		_ = msg.Nak() // without a connection AckWait does it
	}
}

func (b *Bus) serve(ctx context.Context, msg jetstream.Msg, ackWait time.Duration, handle func(context.Context, jetstream.Msg) error) {
	leased, release := context.WithCancel(ctx)
	held := make(chan struct{})
	go func() {
		defer close(held)
		b.Hold(leased, msg.Reply(), ackWait)
	}()
	err := handle(ctx, msg)
	release()
	<-held
	if err == nil {
		err = b.Ack(context.WithoutCancel(ctx), msg.Reply())
		if err == nil {
			return
		}
	}
	if ctx.Err() != nil {
		_ = msg.Nak() // somebody else may take it at once; without a connection AckWait does it
		return
	}
	zerolog.Ctx(ctx).Warn().Err(err).Str("subject", msg.Subject()).Msg("message not handled, it comes again")
	_ = msg.NakWithDelay(redeliverAfter)
}

var (
	ackBody      = []byte("+ACK")
	progressBody = []byte("+WPI")
)

// Hold keeps the lease of a message, named by its reply subject, until the
// context ends.
func (b *Bus) Hold(ctx context.Context, reply string, ackWait time.Duration) {
	ticker := time.NewTicker(ackWait / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			_ = b.try(ctx, func(ctx context.Context) error {
				_, err := b.Conn().RequestWithContext(ctx, reply, progressBody)
				return err
			})
		}
	}
}

// Ack acknowledges a message, named by its reply subject, and waits for the
// server's word. The subject works from any connection.
func (b *Bus) Ack(ctx context.Context, reply string) error {
	err := b.persistShort(ctx, func(ctx context.Context) error {
		_, err := b.Conn().RequestWithContext(ctx, reply, ackBody)
		return err
	})
	if err != nil {
		return fmt.Errorf("acknowledge: %w", err)
	}
	return nil
}

// ackPatience is how long an acknowledgement is tried: a message that stays
// unacknowledged comes again, and its handler then finds that it is done.
const ackPatience = 20 * time.Second

func (b *Bus) persistShort(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, ackPatience)
	defer cancel()
	return b.persist(ctx, do)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// IsStopped reports whether err says no more than that a context has ended.
func IsStopped(ctx context.Context, err error) bool {
	return ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx)))
}

// ReadyConsumer returns the handle of the consumer of one lane, queue and kind,
// which the dispatcher makes. The handle is kept.
func (b *Bus) ReadyConsumer(ctx context.Context, lane contracts.Lane, queue contracts.Queue, kind contracts.Kind) (jetstream.Consumer, error) {
	declared := contracts.ReadyConsumer(lane, queue, kind)
	b.mu.Lock()
	known := b.consumers[declared.Durable]
	b.mu.Unlock()
	if known != nil {
		return known, nil
	}
	consumer, err := b.JetStream().Consumer(ctx, declared.Stream, declared.Durable)
	if err != nil {
		return nil, fmt.Errorf("find consumer %s: %w", declared.Durable, err)
	}
	b.mu.Lock()
	b.consumers[declared.Durable] = consumer
	b.mu.Unlock()
	return consumer, nil
}
