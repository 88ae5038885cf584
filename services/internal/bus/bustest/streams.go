package bustest

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// Publish stores a message as any NATS client can. id is its Nats-Msg-Id,
// empty for none: then a cluster that changes its leader may store it twice.
func Publish(t testing.TB, c *client.Client, subject, id string, data []byte) {
	t.Helper()
	msg := &nats.Msg{Subject: subject, Data: data, Header: nats.Header{}}
	if id != "" {
		msg.Header.Set(nats.MsgIdHdr, id)
	}
	persist(t, "publish to "+subject, func(ctx context.Context) error {
		_, err := c.JetStream().PublishMsg(ctx, msg)
		return err
	})
}

// patience is how long a server may take, or a cluster without a leader.
const patience = 2 * time.Minute

// persist does what it is given until it works: nobody may lead a stream for a
// while, and an answer may be lost with who led it.
func persist(t testing.TB, what string, do func(context.Context) error) {
	t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(patience); ; <-ticker.C {
		ctx, cancel := context.WithTimeout(t.Context(), patience/10)
		err := do(ctx)
		cancel()
		if err == nil {
			return
		}
		if t.Context().Err() != nil || time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// Next takes the next message of a durable consumer, waiting for it. It is
// neither acknowledged nor held.
func Next(t testing.TB, c *client.Client, consumer contracts.Consumer) *bus.Message {
	t.Helper()
	var handle jetstream.Consumer
	persist(t, "find "+consumer.Durable, func(ctx context.Context) (err error) {
		handle, err = c.JetStream().Consumer(ctx, consumer.Stream, consumer.Durable)
		return err
	})
	for t.Context().Err() == nil {
		var batch jetstream.MessageBatch
		persist(t, "pull from "+consumer.Durable, func(context.Context) (err error) {
			batch, err = handle.Fetch(1, jetstream.FetchContext(t.Context()))
			return err
		})
		for msg := range batch.Messages() {
			taken, err := bus.NewMessage(msg)
			if err != nil {
				t.Fatal(err)
			}
			return taken
		}
	}
	t.Fatalf("no message for %s", consumer.Durable)
	return nil
}

// Count returns how many messages a stream has on subjects that match filter.
func Count(t testing.TB, c *client.Client, stream, filter string) int {
	t.Helper()
	var info *jetstream.StreamInfo
	persist(t, "count "+filter, func(ctx context.Context) error {
		handle, err := c.JetStream().Stream(ctx, stream)
		if err != nil {
			return err
		}
		info, err = handle.Info(ctx, jetstream.WithSubjectFilter(filter))
		return err
	})
	n := 0
	for _, count := range info.State.Subjects {
		n += int(count)
	}
	return n
}
