package bus_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// TestAConnectionClosedForGoodEndsTheService: nats.go closes it after some errors
// of the server, such as that a subject is longer than it takes. The service says
// so and ends.
func TestAConnectionClosedForGoodEndsTheService(t *testing.T) {
	t.Parallel()
	b, log := openLogged(t, natstest.Start(t).Config())
	done := make(chan error, 1)
	go func() {
		done <- b.Announce(t.Context(), func() contracts.Instance { return contracts.Instance{Service: "test", ID: "a"} })
	}()
	until(t, "readiness", func() bool { return b.Ready(t.Context()) == nil })
	tooLong := strings.Repeat("x", 8<<10)
	until(t, "the end of the connection", func() bool { // one that breaks before its error is read is made again
		return errors.Is(b.Conn().Publish(tooLong, nil), nats.ErrConnectionClosed)
	})
	err := <-done
	if !errors.Is(err, bus.ErrClosed) || !strings.Contains(err.Error(), "control line") {
		t.Errorf("ended with %v", err)
	}
	if said := log.errors(t); len(said) != 1 || said[0] != err.Error() {
		t.Errorf("logged %q, want %q", said, err)
	}
}

// TestCloseIsNoError: who closes the connection itself is told nothing.
func TestCloseIsNoError(t *testing.T) {
	t.Parallel()
	b, log := openLogged(t, natstest.Start(t).Config())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- b.Announce(ctx, func() contracts.Instance { return contracts.Instance{Service: "test", ID: "a"} })
	}()
	until(t, "readiness", func() bool { return b.Ready(t.Context()) == nil })
	b.Close()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("ended with %v", err)
	}
	if said := log.errors(t); len(said) != 0 {
		t.Errorf("logged %q", said)
	}
}
