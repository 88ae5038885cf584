package bus_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// announce keeps an instance listed until the function returned is called.
func announce(t *testing.T, b *bus.Bus, id string) (withdraw func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- b.Announce(ctx, func() contracts.Instance { return contracts.Instance{Service: "test", ID: id} })
	}()
	withdraw = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("withdraw %s: %v", id, err)
		}
	})
	t.Cleanup(withdraw)
	return withdraw
}

// until returns when condition holds, which is looked at again and again. It does
// not wait for what a test that has failed by then does no more.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !condition() {
		select {
		case <-t.Context().Done():
			t.Fatalf("never came to %s", what)
		case <-ticker.C:
		}
		if t.Failed() {
			t.FailNow()
		}
	}
}

// brief bounds one request: its answer may be lost with who led a stream.
func brief(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), 10*time.Second)
}

func isListed(t *testing.T, b *bus.Bus, id string) bool {
	t.Helper()
	instances, err := b.Instances(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(instances, func(i contracts.Instance) bool { return i.ID == id })
}

// TestKeyThatNeverExpires: a server that was killed may forget when a key is to
// expire. Nobody takes it for an instance, or a leader, for long.
func TestKeyThatNeverExpires(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	b := open(t, server, "own")
	kv, err := b.JetStream().KeyValue(t.Context(), contracts.BucketNodes)
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string]string{"test.dead": `{"service":"test","id":"dead"}`, "leader.test": "dead"} {
		if _, err := kv.Put(t.Context(), key, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	announce(t, b, "own")
	until(t, "the dead one's end", func() bool { return !isListed(t, b, "dead") })
	var leading atomic.Int32
	var all sync.WaitGroup
	defer all.Wait()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	<-stand(ctx, b, "own", shortLease, &leading, &all).leads
}

func TestPresence(t *testing.T) {
	t.Parallel()
	natstest.Each(t, func(t *testing.T, nats natstest.NATS) {
		b, other := open(t, nats, "own"), open(t, nats, "other")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		presence := bus.NewPresence(b)
		done := make(chan error, 1)
		go func() { done <- presence.Run(ctx) }()
		announce(t, b, "own")
		until(t, "time that counts", func() bool { return presence.Unseen("test", "gone") > 0 })

		announce(t, other, "other")
		until(t, "seeing the other", func() bool {
			never := presence.Unseen("test", "gone") // first: time goes on between the two
			return presence.Unseen("test", "other") < never
		})
		until(t, "a list with the other", func() bool { return isListed(t, b, "other") })
		other.Close() // as one that is killed: nothing is withdrawn
		until(t, "the other's end", func() bool { return !isListed(t, b, "other") })
		until(t, "missing the other", func() bool { return presence.Unseen("test", "other") > 0 })
		until(t, "seeing who is there", func() bool {
			own := presence.Unseen("test", "own") // first: time goes on between the two
			return own < presence.Unseen("test", "other")
		})
		// The key of one that withdraws leaves nothing for ever.
		third := open(t, nats, "third")
		withdraw := announce(t, third, "third")
		until(t, "seeing the third", func() bool { return isListed(t, b, "third") })
		withdraw()
		until(t, "an empty key", func() bool {
			seq, err := b.LastSeq(t.Context(), "KV_nodes", "$KV.nodes.test.third")
			return err == nil && seq == 0
		})
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
}

// TestReadyWithoutQuorum: two of three servers are gone, the connection to the
// third stands.
func TestReadyWithoutQuorum(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("no cluster in short mode")
	}
	cluster := natstest.StartCluster(t)
	b, err := bus.Open(t.Context(), cluster.MemberConfig(0), "test", "a")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	if err := b.Ready(t.Context()); err == nil {
		t.Error("ready before it was announced")
	}
	presence := bus.NewPresence(b)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- presence.Run(ctx) }()
	announce(t, b, "a")
	until(t, "readiness", func() bool { return b.Ready(t.Context()) == nil })
	until(t, "time that counts", func() bool { return presence.Unseen("test", "gone") > 0 })
	cluster.StopMember(1)
	cluster.StopMember(2)
	until(t, "the end of readiness, not by the connection", func() bool {
		return b.Ready(t.Context()) != nil && b.Connected() == nil
	})
	until(t, "time that does not count", func() bool { return presence.Unseen("test", "gone") == 0 })
	first := submitLater(t, b)
	cluster.StartMember(1)
	until(t, "readiness again", func() bool { return b.Ready(t.Context()) == nil })
	if err := <-first; err != nil {
		t.Errorf("an append that waited for the quorum: %v", err)
	}
	until(t, "time that counts again", func() bool { return presence.Unseen("test", "gone") > 0 })
	cancel()
	<-done
}

func submitLater(t *testing.T, b *bus.Bus) <-chan error {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		task := &contracts.Task{Version: 1, Name: contracts.TaskDockerRun, Docker: &contracts.DockerRun{Image: "img"}}
		_, err := b.Append(context.WithoutCancel(t.Context()), "waits", nil, &contracts.Submitted{Task: task, Submission: 1})
		done <- err
	}()
	return done
}
