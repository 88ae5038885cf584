package bustest

import (
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// Publish stores a message as any NATS client can. id is its Nats-Msg-Id,
// empty for none.
func Publish(t testing.TB, c *client.Client, subject, id string, data []byte) {
	t.Helper()
	msg := &nats.Msg{Subject: subject, Data: data, Header: nats.Header{}}
	if id != "" {
		msg.Header.Set(nats.MsgIdHdr, id)
	}
	if _, err := c.JetStream().PublishMsg(t.Context(), msg); err != nil {
		t.Fatal(err)
	}
}

// Next takes the next message of a durable consumer, waiting for it. It is
// neither acknowledged nor held.
func Next(t testing.TB, c *client.Client, consumer contracts.Consumer) *bus.Message {
	t.Helper()
	handle, err := c.JetStream().Consumer(t.Context(), consumer.Stream, consumer.Durable)
	if err != nil {
		t.Fatal(err)
	}
	for t.Context().Err() == nil {
		batch, err := handle.Fetch(1, jetstream.FetchContext(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
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
	handle, err := c.JetStream().Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	info, err := handle.Info(t.Context(), jetstream.WithSubjectFilter(filter))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, count := range info.State.Subjects {
		n += int(count)
	}
	return n
}
