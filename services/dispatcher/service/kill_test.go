package service_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/dispatchtest"
	"github.com/gantry-worker/gantry/services/dispatcher/service"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/internal/bus/bustest"
	"github.com/gantry-worker/gantry/services/internal/config"
)

// work is one job of each kind that a dispatcher has to do with.
type work struct{ submitted, failed, revoked, stranded contracts.JobID }

func newWork(step int) work {
	job := func(name string) contracts.JobID { return contracts.JobID(fmt.Sprintf("%s-%d", name, step)) }
	return work{submitted: job("submitted"), failed: job("failed"), revoked: job("revoked"), stranded: job("stranded")}
}

// prepare makes what waits for a dispatcher: a submission, an attempt to be
// tried again, a revoke of a queued job, and a queued job without its message.
func (w work) prepare(t *testing.T, b *bus.Bus) {
	t.Helper()
	queued := func(job contracts.JobID) {
		last, err := b.Append(t.Context(), job, nil, &contracts.Submitted{Task: dispatchtest.Task(job), Submission: 1})
		if err == nil {
			_, err = b.Append(t.Context(), job, last, &contracts.Queued{
				Lane: contracts.LaneNormal, Queue: contracts.DefaultQueue, Kind: contracts.KindDocker, Reason: contracts.QueuedSubmit,
			})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	queued(w.failed)
	dispatchtest.Attempt(t, b, w.failed, time.Millisecond)
	queued(w.stranded)
	queued(w.revoked)
	revoke(t, b.Client, w.revoked)
	bustest.Publish(t, b.Client, contracts.SubmitAny, "", dispatchtest.Encode(t, dispatchtest.SecretTask(w.submitted, dispatchtest.Token)))
}

// open returns what is not done yet as it should be, empty in the end.
func (w work) open(t *testing.T, c *client.Client) string {
	t.Helper()
	open := ""
	for job, want := range map[contracts.JobID]struct {
		life  string
		ready int
	}{
		w.submitted: {"submitted queued", 1},
		w.failed:    {"submitted queued claimed started failed queued", 1},
		w.revoked:   {"submitted queued canceled", 0},
		w.stranded:  {"submitted queued", 1},
	} {
		life, ready := dispatchtest.Life(t, c, job), dispatchtest.Ready(t, c, job)
		if life != want.life || ready != want.ready {
			open += fmt.Sprintf("%s has %d ready messages and the life %q; ", job, ready, life)
		}
	}
	return open
}

// TestKilledBetweenRequests kills one dispatcher after the other, each before
// or after another request: some while they start and find work, some when work
// comes to them. The last one lives, and finishes what they left.
func TestKilledBetweenRequests(t *testing.T) {
	t.Parallel()
	natstest.Each(t, func(t *testing.T, nats natstest.NATS) {
		stride := 3
		if replicas(nats) == 3 {
			stride = 10
		}
		c := nats.Client()
		b := dispatchtest.Open(t, nats.Config())
		dispatchtest.Known(t, b)
		var all []work
		var doomed sync.WaitGroup
		defer doomed.Wait()
		for n := 1; n <= 60; n += stride {
			for _, running := range []bool{false, true} {
				w := newWork(len(all))
				all = append(all, w)
				runUntilKilled(t, nats, &doomed, n, running, func() { w.prepare(t, b) })
			}
		}
		run(t, nats, quick(100*time.Millisecond))
		for _, w := range all {
			await(t, func() string { return w.open(t, c) })
			if secrets, err := b.Secrets(t.Context(), w.submitted, contracts.SecretJob); err != nil || len(secrets) != 1 {
				t.Errorf("%s has %d secrets, %v", w.submitted, len(secrets), err)
			}
		}
	})
}

// runUntilKilled runs a dispatcher until its nth message, from which on nothing
// of it comes through. Where it is to be running, the messages of its start do
// not count, and the work comes after them. What is left of its process ends
// with the test.
func runUntilKilled(t *testing.T, nats natstest.NATS, doomed *sync.WaitGroup, n int, running bool, prepare func()) {
	t.Helper()
	proxy := bustest.Start(t, nats.Config())
	var cfg service.Config
	if err := config.Defaults(&cfg); err != nil {
		t.Fatal(err)
	}
	quick(20 * time.Millisecond)(&cfg)
	ready := make(chan struct{})
	cfg.NATS, cfg.Replicas, cfg.OnReady = proxy.Config(), replicas(nats), func() { close(ready) }
	ctx, die := context.WithCancel(context.Background())
	t.Cleanup(die)
	killed := make(chan struct{})
	judge := func() {
		messages := 0
		proxy.Judge(func(string) bustest.Verdict {
			messages++
			switch {
			case messages < n:
				return bustest.Pass
			case messages == n:
				die()
				close(killed)
				if n%2 == 0 {
					return bustest.LoseAnswer
				}
			}
			return bustest.Cut
		})
	}
	if !running {
		prepare()
		judge()
	}
	doomed.Go(func() { _ = service.Run(ctx, cfg) })
	if running {
		<-ready
		judge()
		prepare()
	}
	<-killed
}

func replicas(nats natstest.NATS) int {
	if _, cluster := nats.(*natstest.Cluster); cluster {
		return 3
	}
	return 1
}

// patience is how long what is left of killed dispatchers may wait: the leases
// of what they had, and a cluster's elections.
const patience = 5 * time.Minute

// await returns when nothing is open any more.
func await(t *testing.T, open func() string) {
	t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	end := time.Now().Add(patience)
	for left := open(); left != ""; left = open() {
		if time.Now().After(end) {
			t.Fatal(left)
		}
		<-ticker.C
	}
}
