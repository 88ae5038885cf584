package bus

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gantry-worker/gantry/contracts"
)

// lowFirst is how often the lanes are asked in reverse: one time in ten, so
// that a full urgent lane starves no other for ever.
const lowFirst = 10

// Puller takes ready messages, one at a time, from the lanes of an executor's
// queues. It is for one goroutine, which closes it in the end.
type Puller struct {
	Bus    *Bus
	Queues []contracts.Queue
	Kind   contracts.Kind
	turn   int
	taker  *taker
	answer time.Duration // 0: pullAnswer
}

// Next returns the next ready message, or nil when none came for a while. What
// comes between two calls is given back at once, for others to take.
func (p *Puller) Next(ctx context.Context) (*Message, error) {
	if p.taker == nil {
		p.taker = newTaker(p.Bus)
		p.taker.answer = cmp.Or(p.answer, pullAnswer)
	}
	return p.taker.take(ctx, p.consumers())
}

// Close ends what waits for messages.
func (p *Puller) Close() {
	if p.taker != nil {
		p.taker.close()
		p.taker = nil
	}
}

// consumers returns those of all lanes in the order in which they are asked.
func (p *Puller) consumers() []contracts.Consumer {
	p.turn++
	var consumers []contracts.Consumer
	for i := range contracts.Lanes {
		lane := contracts.Lanes[i]
		if p.turn%lowFirst == 0 {
			lane = contracts.Lanes[len(contracts.Lanes)-1-i]
		}
		for _, queue := range p.Queues {
			consumers = append(consumers, contracts.ReadyConsumer(lane, queue, p.Kind))
		}
	}
	return consumers
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
	}, "$JS.API.STREAM.INFO."+contracts.StreamReady, "$JS.API.CONSUMER.NAMES."+contracts.StreamReady)
	if err != nil {
		return nil, fmt.Errorf("list queues: %w", err)
	}
	return queues, nil
}
