package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

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
//
// Each worker asks for one message at a time: an iterator would hold messages
// back that nobody works on and, after a reconnect, drop some of them until
// their lease is over.
func (b *Bus) Work(ctx context.Context, consumer contracts.Consumer, workers int, handle func(context.Context, *Message) error) error {
	var group errgroup.Group
	for range workers {
		group.Go(func() error {
			b.work(ctx, consumer, handle)
			return nil
		})
	}
	_ = group.Wait()
	return context.Cause(ctx)
}

func (b *Bus) work(ctx context.Context, consumer contracts.Consumer, handle func(context.Context, *Message) error) {
	taker := newTaker(b)
	defer taker.close()
	var said saidOnce
	for ctx.Err() == nil {
		msg, err := taker.take(ctx, []contracts.Consumer{consumer})
		interrupted(ctx, consumer, &said, err)
		if msg != nil {
			b.serve(ctx, msg, consumer.AckWait, handle)
		}
	}
}

// interrupted tells why nothing could be taken, once until it works again, and
// lets some time pass.
func interrupted(ctx context.Context, consumer contracts.Consumer, said *saidOnce, err error) {
	switch {
	case err == nil:
		said.forget()
		return
	case ctx.Err() != nil:
		return
	case said.first(err.Error()):
		zerolog.Ctx(ctx).Warn().Err(err).Str("consumer", consumer.Durable).Str("stream", consumer.Stream).Msg("consumer interrupted, going on")
	}
	pause(ctx, redeliverAfter)
}

func (b *Bus) serve(ctx context.Context, msg *Message, ackWait time.Duration, handle func(context.Context, *Message) error) {
	leased, release := context.WithCancel(ctx)
	held := make(chan struct{})
	go func() {
		defer close(held)
		b.Hold(leased, msg, ackWait)
	}()
	err := handle(ctx, msg)
	release()
	<-held
	if err == nil {
		err = b.Ack(context.WithoutCancel(ctx), msg.Reply)
		if err == nil {
			return
		}
	}
	if ctx.Err() != nil {
		_ = b.GiveBack(msg, 0) // somebody else may take it at once; without a connection AckWait does it
		return
	}
	zerolog.Ctx(ctx).Warn().Err(err).Str("subject", msg.Subject).Msg("message not handled, it comes again")
	_ = b.GiveBack(msg, redeliverAfter)
}

var (
	ackBody      = []byte("+ACK")
	nakBody      = []byte("-NAK")
	progressBody = []byte("+WPI")
)

// Hold keeps the lease of a message until the context ends.
func (b *Bus) Hold(ctx context.Context, msg *Message, ackWait time.Duration) {
	ticker := time.NewTicker(ackWait / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			_ = b.try(ctx, func(ctx context.Context) error {
				_, err := b.Conn().RequestWithContext(ctx, msg.Reply, progressBody)
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
	}, reply)
	if err != nil {
		return fmt.Errorf("acknowledge: %w", err)
	}
	return nil
}

// ackPatience is how long an acknowledgement is tried: a message that stays
// unacknowledged comes again, and its handler then finds that it is done.
const ackPatience = 20 * time.Second

func (b *Bus) persistShort(ctx context.Context, do func(context.Context) error, subjects ...string) error {
	ctx, cancel := context.WithTimeout(ctx, ackPatience)
	defer cancel()
	return b.persist(ctx, do, subjects...)
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
