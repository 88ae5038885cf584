package bus_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/internal/bus/bustest"
)

// What fills the connection's write buffer meets the broken socket itself.
func TestLargePiecesThroughBrokenConnections(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	proxy := bustest.Start(t, server.Config())
	b, err := bus.Open(t.Context(), proxy.Config(), "test", "a")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	var published atomic.Int64
	proxy.Judge(func(subject string) bustest.Verdict {
		if strings.HasPrefix(subject, "logs.") && published.Add(1)%13 == 0 {
			return bustest.Cut
		}
		return bustest.Pass
	})
	const writers, pieces = 8, 15
	data := strings.Repeat("0123456789abcdef", 4<<10)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			job := contracts.JobID(fmt.Sprintf("job-%d", w))
			last := uint64(0)
			for seq := range uint64(pieces) {
				chunk := piece(job, 1, seq+1)
				chunk.Data = data
				at, err := b.PublishLog(t.Context(), contracts.LogHeadSubject(job), "a", last, chunk)
				if err != nil {
					t.Errorf("piece %d of %s: %v", seq+1, job, err)
					return
				}
				last = at
			}
			checkLastLog(t, b, job, 1, pieces, last)
		})
	}
	all.Wait()
}

// TestOpenReaderWithALostAnswer: who opens a reader does not wait for an answer
// that was lost with its connection.
func TestOpenReaderWithALostAnswer(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	const tries = 10 // a machine that stands still for long hears of both at once
	for range tries {
		b, broken := through(t, server, "$JS.API.CONSUMER.CREATE", bustest.LoseAnswer)
		reader, err := b.OpenReader(t.Context(), contracts.StreamJobs, client.Position{}.Behind(contracts.LifeAll))
		if !broken() || err == nil {
			t.Fatalf("opened %v, %v", reader, err)
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			return
		}
	}
	t.Error("waited for the answer each time")
}
