package retry_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/cancel"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/dispatchtest"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/offer"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/retry"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/internal/bus/bustest"
)

const (
	failedOnce    = "submitted queued claimed started failed"
	queuedAgain   = failedOnce + " queued"
	canceledAgain = failedOnce + " canceled"
)

// failed makes a job whose first attempt failed and is to be tried again.
func failed(t *testing.T, b *bus.Bus, job contracts.JobID) *bus.Seen {
	t.Helper()
	task := dispatchtest.Task(job)
	last, err := b.Append(t.Context(), job, nil, &contracts.Submitted{Task: task, Submission: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := offer.Queue(t.Context(), b, last, task, contracts.QueuedSubmit); err != nil {
		t.Fatal(err)
	}
	end := dispatchtest.Attempt(t, b, job, 0)
	// The executor acknowledges the ready message of an attempt that ended.
	if err := b.Purge(t.Context(), contracts.StreamReady, "tasks.ready.*.*.*."+string(job)+".*"); err != nil {
		t.Fatal(err)
	}
	return end
}

// due plans the retry and returns the message that the server makes of it.
func due(t *testing.T, b *bus.Bus, c *client.Client, end *bus.Seen) *bus.Message {
	t.Helper()
	if err := retry.Plan(t.Context(), b, end); err != nil {
		t.Fatal(err)
	}
	msg := bustest.Next(t, c, contracts.DueConsumer)
	if err := b.Ack(t.Context(), msg.Reply); err != nil {
		t.Fatal(err)
	}
	return msg
}

func check(t *testing.T, c *client.Client, job contracts.JobID, life string, ready int) {
	t.Helper()
	if got := dispatchtest.Life(t, c, job); got != life {
		t.Errorf("life of %s: %s, want %s", job, got, life)
	}
	if n := dispatchtest.Ready(t, c, job); n != ready {
		t.Errorf("%s has %d ready messages, want %d", job, n, ready)
	}
}

func TestDueTwiceIsOnce(t *testing.T) {
	t.Parallel()
	server, c := dispatchtest.Server(t)
	b := dispatchtest.Open(t, server.Config())
	msg := due(t, b, c, failed(t, b, "job"))
	for range 2 {
		if err := retry.Handle(t.Context(), b, msg); err != nil {
			t.Fatal(err)
		}
		check(t, c, "job", queuedAgain, 1)
	}
}

// TestDeathAtEachStep kills a dispatcher before and after each request of a
// retry that is due; the next one finishes it.
func TestDeathAtEachStep(t *testing.T) {
	t.Parallel()
	natstest.Each(t, func(t *testing.T, nats natstest.NATS) {
		for _, verdict := range []bustest.Verdict{bustest.Cut, bustest.LoseAnswer} {
			t.Run(fmt.Sprintf("verdict %d", verdict), func(t *testing.T) { dieAtEachStep(t, nats, verdict) })
		}
	})
}

func dieAtEachStep(t *testing.T, nats natstest.NATS, verdict bustest.Verdict) {
	t.Helper()
	c := nats.Client()
	next := dispatchtest.Open(t, nats.Config())
	proxy := bustest.Start(t, nats.Config())
	step, finished := 1, false
	for ; !finished; step++ {
		job := contracts.JobID(fmt.Sprintf("job-%d-%d", verdict, step))
		msg := due(t, next, c, failed(t, next, job))
		b := dispatchtest.Open(t, proxy.Config())
		ctx, die := context.WithCancel(t.Context())
		proxy.JudgeSteps(func(n int, _ string) bustest.Verdict {
			if n < step {
				return bustest.Pass
			}
			die()
			return verdict
		})
		finished = retry.Handle(ctx, b, msg) == nil
		proxy.Judge(nil)
		die()
		if err := retry.Handle(t.Context(), next, msg); err != nil {
			t.Fatal(err)
		}
		check(t, c, job, queuedAgain, 1)
	}
	if step < 6 { // last entry, submission, queued, ready, revoke
		t.Errorf("a retry has %d steps, the test does not see them", step-1)
	}
}

// TestRevokeBeforeEachStep revokes a job before each request of its retry.
func TestRevokeBeforeEachStep(t *testing.T) {
	t.Parallel()
	server, c := dispatchtest.Server(t)
	next := dispatchtest.Open(t, server.Config())
	proxy := bustest.Start(t, server.Config())
	step, passed := 1, true
	for ; passed; step++ {
		job := contracts.JobID(fmt.Sprintf("job-%d", step))
		msg := due(t, next, c, failed(t, next, job))
		b := dispatchtest.Open(t, proxy.Config())
		revoke := contracts.Revoke{Job: job}
		apply := func() {
			if err := c.Revoke(t.Context(), revoke); err != nil {
				t.Error(err)
			}
			if err := cancel.Waiting(t.Context(), next, &revoke); err != nil {
				t.Error(err)
			}
		}
		passed = false
		proxy.JudgeSteps(func(n int, _ string) bustest.Verdict {
			if n == step && !passed {
				passed = true
				apply()
			}
			return bustest.Pass
		})
		if err := retry.Handle(t.Context(), b, msg); err != nil {
			t.Fatal(err)
		}
		proxy.Judge(nil)
		if !passed {
			apply()
		}
		want := canceledAgain
		if dispatchtest.Life(t, c, job) != want {
			want = queuedAgain + " canceled"
		}
		check(t, c, job, want, 0)
		if n := dispatchtest.Scheduled(t, c, job); n != 0 {
			t.Errorf("%d schedules of %s are left", n, job)
		}
	}
	if step < 6 {
		t.Errorf("a retry has %d steps, the test does not see them", step-1)
	}
}

func TestPlanChangesNothingAfterTheRetry(t *testing.T) {
	t.Parallel()
	server, c := dispatchtest.Server(t)
	b := dispatchtest.Open(t, server.Config())
	end := failed(t, b, "job")
	for range 2 {
		if err := retry.Handle(t.Context(), b, due(t, b, c, end)); err != nil {
			t.Fatal(err)
		}
	}
	check(t, c, "job", queuedAgain, 1)
}

// TestLatePlanOfAnEarlierAttempt: it takes the place of the present one's
// schedule, which must not be lost.
func TestLatePlanOfAnEarlierAttempt(t *testing.T) {
	t.Parallel()
	server, c := dispatchtest.Server(t)
	b := dispatchtest.Open(t, server.Config())
	first := failed(t, b, "job")
	if err := retry.Handle(t.Context(), b, due(t, b, c, first)); err != nil {
		t.Fatal(err)
	}
	second := dispatchtest.Attempt(t, b, "job", time.Hour)
	if err := retry.Plan(t.Context(), b, second); err != nil {
		t.Fatal(err)
	}
	if err := retry.Handle(t.Context(), b, due(t, b, c, first)); err != nil {
		t.Fatal(err)
	}
	check(t, c, "job", queuedAgain+" claimed started failed", 1)
	if n := dispatchtest.Scheduled(t, c, "job"); n != 1 {
		t.Errorf("%d schedules, want that of the second attempt", n)
	}
}

func TestDueOfNothing(t *testing.T) {
	t.Parallel()
	server, c := dispatchtest.Server(t)
	b := dispatchtest.Open(t, server.Config())
	for _, subject := range []string{"tasks.due.nobody.retry", "tasks.due.nobody.later-thing"} {
		if err := retry.Handle(t.Context(), b, &bus.Message{Subject: subject, Data: []byte(`{"attempt":1,"offer":1}`)}); err != nil {
			t.Errorf("%s: %v", subject, err)
		}
	}
	check(t, c, "nobody", "", 0)
}
