package client_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
)

// TestFollowAcrossOutages: a log that goes on while servers stop and start is
// read without gap and repeat, to its end.
func TestFollowAcrossOutages(t *testing.T) {
	t.Parallel()
	natstest.Each(t, func(t *testing.T, nats natstest.NATS) {
		c, writer := nats.Client(), nats.Client()
		publish := func(subject string, data []byte) {
			t.Helper()
			for t.Context().Err() == nil {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // an answer may be lost
				_, err := writer.JetStream().Publish(ctx, subject, data)
				cancel()
				if err == nil {
					return
				}
			}
			t.Fatal("never stored")
		}
		piece := func(n int) {
			data, err := json.Marshal(&contracts.LogChunk{Version: 1, Job: "job", Attempt: 1, Seq: uint64(n), Data: fmt.Sprintf("line %d\n", n)})
			if err != nil {
				t.Fatal(err)
			}
			publish(contracts.LogTailSubject("job"), data)
		}
		const pieces = 30
		got, done := make(chan uint64, pieces), make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			for chunk, err := range c.Log(ctx, "job", true) {
				if err != nil {
					done <- err
					return
				}
				got <- chunk.Seq
			}
			done <- nil
		}()
		for n := 1; n <= pieces; n++ {
			if n == pieces/3 || n == 2*pieces/3 {
				select {
				case read := <-got:
					if want := uint64(3 * n / pieces); read != want {
						t.Errorf("read %d, want %d", read, want)
					}
				case err := <-done:
					t.Fatalf("ended early: %v", err)
				}
				nats.Stop()
				nats.Start()
			}
			piece(n)
		}
		end := contracts.NextEntry(nil, "job", "test/a", &contracts.Canceled{})
		data, err := end.Encode()
		if err != nil {
			t.Fatal(err)
		}
		publish(contracts.LifeSubject("job"), data)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		close(got)
		next := uint64(3) // two were read above
		for seq := range got {
			if seq != next {
				t.Errorf("read %d, want %d", seq, next)
			}
			next = seq + 1
		}
		if next != pieces+1 {
			t.Errorf("read to %d, want %d", next-1, pieces)
		}
	})
}

// TestSubmitDuringAnElection: whoever submits and revokes while the stream has
// no leader hears nothing of it.
func TestSubmitDuringAnElection(t *testing.T) {
	t.Parallel()
	cluster := natstest.StartCluster(t)
	c := cluster.Client()
	for _, stream := range []string{contracts.StreamSubmit, contracts.StreamRevoke} {
		leader := cluster.Leader(stream)
		cluster.StopMember(leader)
		job, err := c.Submit(t.Context(), task())
		if err != nil {
			t.Fatalf("submit: %v", err)
		}
		if err := c.Revoke(t.Context(), contracts.Revoke{Job: job}); err != nil {
			t.Fatalf("revoke: %v", err)
		}
		cluster.Start()
	}
}
