package bus

import (
	"context"
	"sync"

	"github.com/gantry-worker/gantry/contracts"
)

// WorkAll is [Bus.Work] for handlers that share what is scarce among
// themselves: each message is handled as soon as it comes, so that none waits
// behind those that take long. At most most are in hand at a time.
func (b *Bus) WorkAll(ctx context.Context, consumer contracts.Consumer, most int, handle func(context.Context, *Message) error) error {
	taker := newTaker(b)
	defer taker.close()
	var said saidOnce
	var handlers sync.WaitGroup
	defer handlers.Wait()
	places := make(chan struct{}, most)
	for ctx.Err() == nil {
		select {
		case places <- struct{}{}: // before the message, whose lease runs
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		msg, err := taker.take(ctx, []contracts.Consumer{consumer})
		interrupted(ctx, consumer, &said, err)
		if msg == nil {
			<-places
			continue
		}
		handlers.Go(func() {
			defer func() { <-places }()
			b.serve(ctx, msg, consumer.AckWait, handle)
		})
	}
	return context.Cause(ctx)
}
