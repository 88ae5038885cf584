package bus

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/gantry-worker/gantry/contracts"
)

// pullWait is how long one waiting pull lasts.
const pullWait = 25 * time.Second

// lowFirst is how often the lanes are asked in reverse: one time in ten, so
// that a full urgent lane starves no other for ever.
const lowFirst = 10

// Puller takes ready messages, one at a time, from the lanes of an executor's
// queues. It is for one goroutine.
type Puller struct {
	Bus    *Bus
	Queues []contracts.Queue
	Kind   contracts.Kind
	turn   int
}

// Next returns the next ready message, or nil when none came for a while.
func (p *Puller) Next(ctx context.Context) (*Message, error) {
	msg, err := p.next(ctx)
	if msg == nil || err != nil {
		return nil, err
	}
	return NewMessage(msg)
}

func (p *Puller) next(ctx context.Context) (jetstream.Msg, error) {
	consumers, err := p.consumers(ctx)
	if err != nil {
		return nil, err
	}
	for _, consumer := range consumers {
		msg, err := first(consumer.FetchNoWait(1))
		if msg != nil || err != nil {
			return msg, err
		}
	}
	return p.wait(ctx, consumers)
}

// consumers returns the handles in the order in which they are asked.
func (p *Puller) consumers(ctx context.Context) ([]jetstream.Consumer, error) {
	p.turn++
	var consumers []jetstream.Consumer
	for i := range contracts.Lanes {
		lane := contracts.Lanes[i]
		if p.turn%lowFirst == 0 {
			lane = contracts.Lanes[len(contracts.Lanes)-1-i]
		}
		for _, queue := range p.Queues {
			consumer, err := p.Bus.consumer(ctx, contracts.ReadyConsumer(lane, queue, p.Kind))
			if err != nil {
				return nil, err
			}
			consumers = append(consumers, consumer)
		}
	}
	return consumers, nil
}

// wait asks all consumers at once. The first message withdraws the other pulls;
// a second one that was on its way is given back at once.
func (p *Puller) wait(ctx context.Context, consumers []jetstream.Consumer) (jetstream.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, pullWait)
	defer cancel()
	var (
		mu    sync.Mutex
		taken jetstream.Msg
		group errgroup.Group
	)
	for _, consumer := range consumers {
		group.Go(func() error {
			msg, err := first(consumer.Fetch(1, jetstream.FetchContext(ctx)))
			if msg == nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			if taken != nil {
				return msg.Nak()
			}
			taken = msg
			cancel()
			return nil
		})
	}
	err := group.Wait()
	if taken != nil || ctx.Err() != nil {
		return taken, nil
	}
	return nil, err
}

func first(batch jetstream.MessageBatch, err error) (jetstream.Msg, error) {
	if err != nil {
		return nil, err
	}
	msg, ok := <-batch.Messages()
	if !ok {
		return nil, batch.Error()
	}
	return msg, nil
}

// OfferedQueues returns the queues that have consumers of ready messages of a
// kind: those that were known before, also to a dispatcher that is no more.
func (b *Bus) OfferedQueues(ctx context.Context, kind contracts.Kind) ([]contracts.Queue, error) {
	var queues []contracts.Queue
	err := b.persist(ctx, func(ctx context.Context) error {
		stream, err := b.stream(ctx, contracts.StreamReady)
		if err != nil {
			return err
		}
		queues = nil
		names := stream.ConsumerNames(ctx)
		for name := range names.Name() {
			lane, rest, _ := strings.Cut(name, "-")
			queue, ours := strings.CutSuffix(rest, "-"+string(kind))
			if ours && lane == string(contracts.LaneNormal) {
				queues = append(queues, contracts.Queue(queue))
			}
		}
		return names.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("list queues: %w", err)
	}
	return queues, nil
}
