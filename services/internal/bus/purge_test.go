package bus_test

import (
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// taken returns the next ready message, which stays in hand.
func taken(t *testing.T, p *bus.Puller) *bus.Message {
	t.Helper()
	for {
		msg, err := p.Next(t.Context())
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
		if msg != nil {
			return msg
		}
	}
}

// TestPurgeTakesNothingAlong purges a message that somebody has in hand: an older
// one in hand comes again all the same, when it is given back.
func TestPurgeTakesNothingAlong(t *testing.T) {
	t.Parallel()
	natstest.Each(t, func(t *testing.T, nats natstest.NATS) {
		b := open(t, nats, "a")
		ready(t, b)
		p := puller(t, b)
		offer(t, b, contracts.LaneNormal, "older")
		older := taken(t, p)
		offer(t, b, contracts.LaneNormal, "revoked")
		revoked := taken(t, p)
		if err := b.Purge(t.Context(), contracts.StreamReady, revoked.Subject); err != nil {
			t.Fatal(err)
		}
		offer(t, b, contracts.LaneNormal, "newer")
		if job := next(t, p); job != "newer" {
			t.Fatalf("%s came, want the newer one", job)
		}
		if err := b.GiveBack(older, 0); err != nil {
			t.Fatal(err)
		}
		if job := next(t, p); job != "older" {
			t.Errorf("%s came, want the older one again", job)
		}
	})
}
