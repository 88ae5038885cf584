package bus_test

import (
	"context"
	"errors"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/internal/bus/bustest"
)

// TestWorkAllLetsNoneWait: as many are handled at once as may be in hand, the
// rest is left to others, and the end waits for the handlers.
func TestWorkAllLetsNoneWait(t *testing.T) {
	t.Parallel()
	const most = 20
	server := natstest.Start(t)
	b := open(t, server, "a")
	for range most + 1 {
		bustest.Publish(t, server.Client(), contracts.SubmitAny, "", []byte("x"))
	}
	ctx, cancel := context.WithCancel(t.Context())
	busy, release := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- b.WorkAll(ctx, contracts.SubmitConsumer, most, func(context.Context, *bus.Message) error {
			busy <- struct{}{}
			<-release
			return nil
		})
	}()
	for range most {
		<-busy
	}
	other := bustest.Next(t, server.Client(), contracts.SubmitConsumer)
	if err := b.Ack(t.Context(), other.Reply); err != nil {
		t.Fatal(err)
	}
	cancel()
	close(release)
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	awaitEmpty(t, b, contracts.StreamSubmit)
}
