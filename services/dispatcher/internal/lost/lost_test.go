package lost_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/dispatchtest"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/lost"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// gone says which executors have not been seen for an hour.
type gone map[string]bool

func (g gone) Unseen(service, id string) time.Duration {
	if service == "docker-executor" && g[id] {
		return time.Hour
	}
	return 0
}

// running makes a job that executor x has claimed and started, and returns the
// last entry of its life. further follows.
func running(t *testing.T, nats natstest.NATS, job contracts.JobID, retry *contracts.Retry, further ...contracts.EntryData) *bus.Seen {
	t.Helper()
	b, err := bus.Open(t.Context(), nats.Config(), "docker-executor", "x")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	task := dispatchtest.Task(job)
	task.Retry = retry
	if err := b.PublishOnce(t.Context(), contracts.ReadySubject(task.Lane(), task.QueueOrDefault(), task.Kind(), job, 1), []byte("x")); err != nil {
		t.Fatal(err)
	}
	var last *bus.Seen
	for _, data := range append([]contracts.EntryData{
		&contracts.Submitted{Task: task, Submission: 1},
		&contracts.Queued{Lane: task.Lane(), Queue: task.QueueOrDefault(), Kind: task.Kind()},
		&contracts.Claimed{Node: "n", Executor: "x"},
		&contracts.Started{Container: "c"},
	}, further...) {
		if last, err = b.Append(t.Context(), job, last, data); err != nil {
			t.Fatal(err)
		}
	}
	return last
}

// impatient is how long a watch waits for the answer of an executor that gives
// none, patient for that of one that does, however slow it is.
const (
	impatient = 20 * time.Millisecond
	patient   = 5 * time.Minute
)

// watch runs a watch that has seen all lives, until it is stopped or the test
// ends.
func watch(t *testing.T, nats natstest.NATS, absent gone, askPause time.Duration) (stop func()) {
	t.Helper()
	b := dispatchtest.Open(t, nats.Config())
	w := &lost.Watch{Bus: b, Presence: absent, After: time.Minute, AskPause: askPause}
	w.Look = 20 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	caughtUp := make(chan struct{})
	all.Go(func() { _ = b.WatchLives(ctx, func() {}, func() { close(caughtUp) }, w.Observe) })
	<-caughtUp
	all.Go(func() {
		if err := w.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
	stop = func() { cancel(); all.Wait() }
	t.Cleanup(stop)
	return stop
}

func TestAttemptsOfAnExecutorThatIsGone(t *testing.T) {
	t.Parallel()
	natstest.Each(t, func(t *testing.T, nats natstest.NATS) {
		c := nats.Client()
		once := &contracts.Retry{MaxCrashes: new(int)}
		running(t, nats, "retried", nil)
		running(t, nats, "once", once)
		running(t, nats, "canceling", nil, &contracts.Canceling{By: "somebody"})
		running(t, nats, "revoked", nil)
		running(t, nats, "adopted", nil, &contracts.Adopted{Node: "n", Executor: "y"})
		if err := c.Revoke(t.Context(), contracts.Revoke{Job: "revoked", By: "somebody else"}); err != nil {
			t.Fatal(err)
		}
		watch(t, nats, gone{"x": true}, impatient)
		watch(t, nats, gone{"x": true}, impatient) // of another dispatcher
		failed := func(job contracts.JobID, willRetry bool) {
			t.Helper()
			end, ok := dispatchtest.Await(t, c, job, contracts.EntryFailed, 1).Data.(*contracts.Failed)
			if !ok || end.Kind != contracts.FailureInfrastructure || end.WillRetry != willRetry ||
				!strings.Contains(end.Message, "its executor x on node n has been gone for 1h0m0s") {
				t.Errorf("%s: %+v", job, end)
			}
		}
		failed("retried", true)
		failed("once", false)
		canceled := func(job contracts.JobID, by, life string) {
			t.Helper()
			end, err := c.Wait(t.Context(), job)
			if err != nil {
				t.Fatal(err)
			}
			if data, ok := end.Data.(*contracts.Canceled); !ok || data.By != by {
				t.Errorf("%s: %+v", job, end.Data)
			}
			if got := dispatchtest.Life(t, c, job); got != life {
				t.Errorf("life of %s: %s", job, got)
			}
		}
		canceled("canceling", "somebody", "submitted queued claimed started canceling canceled")
		canceled("revoked", "somebody else", "submitted queued claimed started canceling canceled")
		for _, job := range []contracts.JobID{"retried", "once", "canceling", "revoked"} {
			awaitNoReady(t, c, job)
		}
		if life := dispatchtest.Life(t, c, "adopted"); life != "submitted queued claimed started adopted" {
			t.Errorf("life of a job that another executor has: %s", life)
		}
	})
}

func awaitNoReady(t *testing.T, c *client.Client, job contracts.JobID) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for dispatchtest.Ready(t, c, job) > 0 {
		<-ticker.C
	}
}

// TestAnExecutorThatAnswersIsThere: what it owns is its own matter.
func TestAnExecutorThatAnswersIsThere(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	c := server.Client()
	owner := dispatchtest.Open(t, server.Config())
	asked := make(chan contracts.OwnsRequest, 100)
	stop, err := bus.Answer(owner, contracts.OwnsSubject("x"), func(request contracts.OwnsRequest) contracts.OwnsReply {
		select {
		case asked <- request:
		default:
		}
		return contracts.OwnsReply{}
	})
	if err == nil {
		err = owner.Conn().Flush() // the server knows that it listens
	}
	if err != nil {
		t.Fatal(err)
	}
	running(t, server, "job", nil)
	stopWatch := watch(t, server, gone{"x": true}, patient)
	for range 3 { // it is asked again and again
		if request := <-asked; request != (contracts.OwnsRequest{Job: "job", Attempt: 1}) {
			t.Errorf("asked for %+v", request)
		}
	}
	if life := dispatchtest.Life(t, c, "job"); life != "submitted queued claimed started" {
		t.Errorf("life %s", life)
	}
	stopWatch()
	stop()
	watch(t, server, gone{"x": true}, impatient)
	dispatchtest.Await(t, c, "job", contracts.EntryFailed, 1)
}
