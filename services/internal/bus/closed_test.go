package bus_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
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
	closeForGood(t, b)
	err := <-done
	if !errors.Is(err, bus.ErrClosed) || !strings.Contains(err.Error(), "control line") {
		t.Errorf("ended with %v", err)
	}
	if said := log.errors(t); len(said) != 1 || said[0] != err.Error() {
		t.Errorf("logged %q, want %q", said, err)
	}
}

// closeForGood makes nats.go close the connection.
func closeForGood(t *testing.T, b *bus.Bus) {
	t.Helper()
	tooLong := strings.Repeat("x", 8<<10)
	until(t, "the end of the connection", func() bool { // one that breaks before its error is read is made again
		return errors.Is(b.Conn().Publish(tooLong, nil), nats.ErrConnectionClosed)
	})
}

// TestAppendUnderAConnectionClosedForGood: what was on its way was not refused. It
// ends as the service does, for whoever comes next to go on.
func TestAppendUnderAConnectionClosedForGood(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	b := open(t, server, "a")
	last := submit(t, b, "job")
	// Without its stream no entry is stored, however fast the machine is.
	if err := server.Client().JetStream().DeleteStream(t.Context(), contracts.StreamJobs); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancelCause(t.Context())
	defer stop(nil)
	announced := make(chan error, 1)
	go func() {
		announced <- b.Announce(ctx, func() contracts.Instance { return contracts.Instance{Service: "test", ID: "a"} })
	}()
	until(t, "readiness", func() bool { return b.Ready(t.Context()) == nil })
	appended, tried := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := b.Append(ctx, "job", last, &contracts.Queued{Lane: contracts.LaneNormal, Queue: "q", Kind: contracts.KindDocker})
		appended <- err
	}()
	var tries atomic.Int64
	go func() {
		tried <- b.Persist(ctx, func(ctx context.Context) error {
			err := b.Conn().Publish("logs.job", nil)
			if errors.Is(err, nats.ErrConnectionClosed) {
				tries.Add(1)
				return err
			}
			return nats.ErrTimeout
		})
	}()
	closeForGood(t, b)
	end := <-announced
	const some = 5 // the pauses between them grow: more than it takes an Append to learn of the end
	until(t, "some tries after the end", func() bool { return tries.Load() >= some || len(appended)+len(tried) > 0 })
	if len(appended)+len(tried) > 0 {
		t.Error("ended before the service did")
	}
	stop(end)
	for what, done := range map[string]<-chan error{"append": appended, "persist": tried} {
		if err := <-done; !errors.Is(err, bus.ErrClosed) {
			t.Errorf("%s ended with %v", what, err)
		}
	}
	b.Close()
	endsOnAClosedConnection(t, b)
}

// TestNothingIsTriedOnAClosedConnection: where nothing ends a caller's context, as
// nobody waits for the end of the connection, the caller ends by itself.
func TestNothingIsTriedOnAClosedConnection(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	t.Run("closed for good before it is announced", func(t *testing.T) {
		t.Parallel()
		b := open(t, server, "a")
		closeForGood(t, b)
		endsOnAClosedConnection(t, b)
	})
	t.Run("closed under a caller by its owner", func(t *testing.T) {
		t.Parallel()
		b := open(t, server, "b")
		ctx, stop := context.WithCancel(t.Context())
		announced := make(chan error, 1)
		go func() {
			announced <- b.Announce(ctx, func() contracts.Instance { return contracts.Instance{Service: "test", ID: "b"} })
		}()
		until(t, "readiness", func() bool { return b.Ready(t.Context()) == nil })
		stop()
		if err := <-announced; err != nil {
			t.Fatal(err)
		}
		tried := make(chan struct{}, 1)
		ended := make(chan error, 1)
		go func() {
			ended <- b.Persist(context.WithoutCancel(t.Context()), func(context.Context) error {
				select {
				case tried <- struct{}{}:
				default:
				}
				if err := b.Conn().Publish("logs.job", nil); err != nil {
					return err
				}
				return nats.ErrTimeout
			})
		}()
		<-tried
		b.Close()
		if err := <-ended; !errors.Is(err, nats.ErrConnectionClosed) {
			t.Errorf("ended with %v", err)
		}
		endsOnAClosedConnection(t, b)
	})
}

func endsOnAClosedConnection(t *testing.T, b *bus.Bus) {
	t.Helper()
	if _, err := b.Append(context.WithoutCancel(t.Context()), "another", nil, &contracts.Submitted{}); !errors.Is(err, nats.ErrConnectionClosed) {
		t.Errorf("append on a closed connection: %v", err)
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
