package intake_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/cancel"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/dispatchtest"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/intake"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/internal/bus/bustest"
)

// site is a NATS server with one submission at a time.
type site struct {
	*testing.T
	client *client.Client
	// next is a dispatcher that is well; first one whose connection can break.
	next  *bus.Bus
	proxy *bustest.Proxy
}

func newSite(t *testing.T) *site {
	t.Helper()
	return siteOf(t, natstest.Start(t))
}

func siteOf(t *testing.T, server natstest.NATS) *site {
	t.Helper()
	return &site{T: t, client: server.Client(), next: dispatchtest.Open(t, server.Config()), proxy: bustest.Start(t, server.Config())}
}

func (s *site) submit(task *contracts.Task) *bus.Message {
	s.Helper()
	bustest.Publish(s, s.client, contracts.SubmitAny, "", dispatchtest.Encode(s, task))
	return bustest.Next(s, s.client, contracts.SubmitConsumer)
}

// on handles a submission on a new connection through the proxy, where judge
// decides what happens at each of its steps, and reports whether it came to
// its end.
func (s *site) on(msg *bus.Message, judge func(step int, subject string, die context.CancelFunc) bustest.Verdict) bool {
	s.Helper()
	b := dispatchtest.Open(s, s.proxy.Config())
	defer b.Close()
	in := &intake.Intake{Bus: b, Queues: dispatchtest.Known(s, b)}
	ctx, die := context.WithCancel(s.Context())
	defer die()
	s.proxy.JudgeSteps(func(step int, subject string) bustest.Verdict { return judge(step, subject, die) })
	defer s.proxy.Judge(nil)
	return in.Handle(ctx, msg) == nil
}

func (s *site) again(msg *bus.Message) {
	s.Helper()
	in := &intake.Intake{Bus: s.next, Queues: dispatchtest.Known(s, s.next)}
	if err := in.Handle(s.Context(), msg); err != nil {
		s.Fatal(err)
	}
	if err := s.next.Ack(s.Context(), msg.Reply); err != nil {
		s.Fatal(err)
	}
}

// TestDeathAtEachStep kills a dispatcher before and after each request that
// intake makes. The one that gets the submission next finishes it.
func TestDeathAtEachStep(t *testing.T) {
	t.Parallel()
	natstest.Each(t, func(t *testing.T, nats natstest.NATS) {
		for _, verdict := range []bustest.Verdict{bustest.Cut, bustest.LoseAnswer} {
			t.Run(fmt.Sprintf("verdict %d", verdict), func(t *testing.T) { siteOf(t, nats).dieAtEachStep(verdict) })
		}
	})
}

func (s *site) dieAtEachStep(verdict bustest.Verdict) {
	step, finished := 1, false
	for ; !finished; step++ {
		job := contracts.JobID(fmt.Sprintf("job-%d-%d", verdict, step))
		msg := s.submit(dispatchtest.SecretTask(job, dispatchtest.Token))
		finished = s.on(msg, func(n int, _ string, die context.CancelFunc) bustest.Verdict {
			if n < step {
				return bustest.Pass
			}
			die()
			return verdict
		})
		s.again(msg)
		s.checkQueued(job)
	}
	if step < 7 { // submitted, two secrets, revoke, queued, ready, revoke
		s.Errorf("intake has %d steps, the test does not see them", step-1)
	}
}

func (s *site) checkQueued(job contracts.JobID) {
	s.Helper()
	s.checkQueuedAlone(job)
	for _, kind := range []contracts.SecretKind{contracts.SecretIO, contracts.SecretJob} {
		if secrets, err := s.next.Secrets(s.Context(), job, kind); err != nil || len(secrets) != 1 {
			s.Errorf("%s has %d %s secrets, %v", job, len(secrets), kind, err)
		}
	}
}

// TestLostAnswer breaks the connection of a dispatcher that lives on, after
// the server has what intake publishes.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	for _, subject := range []string{"jobs.", "$KV.secrets.", "tasks.ready."} {
		t.Run(subject, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			msg := s.submit(dispatchtest.SecretTask("job", dispatchtest.Token))
			lost := false
			finished := s.on(msg, func(_ int, published string, _ context.CancelFunc) bustest.Verdict {
				if lost || !strings.HasPrefix(published, subject) {
					return bustest.Pass
				}
				lost = true
				return bustest.LoseAnswer
			})
			if !finished || !lost {
				t.Errorf("finished %v, lost an answer %v", finished, lost)
			}
			s.checkQueued("job")
		})
	}
}

// TestRevokeBeforeEachStep revokes a job before each request that its intake
// makes. The revoke is heard at once, as by the listener of any dispatcher.
func TestRevokeBeforeEachStep(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	step, passed := 1, true
	for ; passed; step++ {
		job := contracts.JobID(fmt.Sprintf("job-%d", step))
		revoke := contracts.Revoke{Job: job, By: "somebody"}
		msg := s.submit(dispatchtest.SecretTask(job, dispatchtest.Token))
		passed = false
		finished := s.on(msg, func(n int, _ string, _ context.CancelFunc) bustest.Verdict {
			if n == step && !passed {
				passed = true
				s.revoke(revoke)
			}
			return bustest.Pass
		})
		if !finished {
			t.Fatalf("step %d: intake gave up", step)
		}
		if !passed { // intake was through: the revoke is of a queued job
			s.revoke(revoke)
		}
		s.checkCanceled(job)
		if err := s.next.Ack(t.Context(), msg.Reply); err != nil {
			t.Fatal(err)
		}
	}
	if step < 7 {
		t.Errorf("intake has %d steps, the test does not see them", step-1)
	}
}

// TestRevokeAndDeathAtEachStep: the dispatcher dies right after the revoke, and
// the next one finds no ready message too many.
func TestRevokeAndDeathAtEachStep(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	step, finished := 1, false
	for ; !finished; step++ {
		job := contracts.JobID(fmt.Sprintf("job-%d", step))
		revoke := contracts.Revoke{Job: job}
		msg := s.submit(dispatchtest.SecretTask(job, dispatchtest.Token))
		finished = s.on(msg, func(n int, _ string, die context.CancelFunc) bustest.Verdict {
			if n < step {
				return bustest.Pass
			}
			s.revoke(revoke)
			die()
			return bustest.LoseAnswer
		})
		if finished {
			s.revoke(revoke)
		}
		s.again(msg)
		s.checkCanceled(job)
	}
}

func (s *site) revoke(revoke contracts.Revoke) {
	if err := s.client.Revoke(s.Context(), revoke); err != nil {
		s.Error(err)
	}
	if err := cancel.Waiting(s.Context(), s.next, &revoke); err != nil {
		s.Error(err)
	}
}

func (s *site) checkCanceled(job contracts.JobID) {
	s.Helper()
	life := dispatchtest.Life(s, s.client, job)
	if life != "submitted canceled" && life != "submitted queued canceled" {
		s.Errorf("life of %s: %s", job, life)
	}
	if n := dispatchtest.Ready(s, s.client, job); n != 0 {
		s.Errorf("%s has %d ready messages after its end", job, n)
	}
	// job-tracker needs them to tell Girder.
	if secrets, err := s.next.Secrets(s.Context(), job, contracts.SecretJob); err != nil || len(secrets) != 1 {
		s.Errorf("%s has %d secrets, %v", job, len(secrets), err)
	}
}

func TestRedeliveryAfterTheEndWritesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	msg := s.submit(dispatchtest.SecretTask("job", dispatchtest.Token))
	in := &intake.Intake{Bus: s.next, Queues: dispatchtest.Known(t, s.next)}
	if err := in.Handle(t.Context(), msg); err != nil {
		t.Fatal(err)
	}
	s.revoke(contracts.Revoke{Job: "job"})
	if err := s.next.DeleteSecrets(t.Context(), "job"); err != nil {
		t.Fatal(err)
	}
	s.again(msg)
	if secrets, err := s.next.Secrets(t.Context(), "job", contracts.SecretJob); err != nil || secrets != nil {
		t.Errorf("%d secrets after the end, %v", len(secrets), err)
	}
	if life := dispatchtest.Life(t, s.client, "job"); life != "submitted queued canceled" {
		t.Errorf("life %s", life)
	}
}

func TestRedeliveryOfARunningJobKeepsItsSecretsAsTheyAre(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	msg := s.submit(dispatchtest.SecretTask("job", dispatchtest.Token))
	in := &intake.Intake{Bus: s.next, Queues: dispatchtest.Known(t, s.next)}
	if err := in.Handle(t.Context(), msg); err != nil {
		t.Fatal(err)
	}
	last, err := s.next.Last(t.Context(), "job")
	if err == nil {
		_, err = s.next.Append(t.Context(), "job", last, &contracts.Claimed{Node: "n", Executor: "e"})
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := s.next.DeleteSecrets(t.Context(), "job"); err != nil {
		t.Fatal(err)
	}
	s.again(msg)
	if secrets, err := s.next.Secrets(t.Context(), "job", contracts.SecretIO); err != nil || secrets != nil {
		t.Errorf("secrets were written again: %d, %v", len(secrets), err)
	}
	if life := dispatchtest.Life(t, s.client, "job"); life != "submitted queued claimed" {
		t.Errorf("life %s", life)
	}
}

// closed knows no queue, as a dispatcher does that has just started.
type closed struct{}

func (closed) Accepts(context.Context, contracts.Queue) (bool, error) { return false, nil }

func TestRedeliveryWhenTheQueueIsNotKnownAnyMore(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	msg := s.submit(dispatchtest.Task("job"))
	in := &intake.Intake{Bus: s.next, Queues: dispatchtest.Known(t, s.next)}
	if err := in.Handle(t.Context(), msg); err != nil {
		t.Fatal(err)
	}
	if err := s.next.Purge(t.Context(), contracts.StreamReady, contracts.ReadyAll); err != nil {
		t.Fatal(err)
	}
	unaware := &intake.Intake{Bus: s.next, Queues: closed{}}
	if err := unaware.Handle(t.Context(), msg); err != nil {
		t.Fatal(err)
	}
	if life := dispatchtest.Life(t, s.client, "job"); life != "submitted queued" {
		t.Errorf("life %s", life)
	}
	if n := dispatchtest.Ready(t, s.client, "job"); n != 1 {
		t.Errorf("%d ready messages, want 1", n)
	}
	if n := bustest.Count(t, s.client, contracts.StreamDead, contracts.DeadAll); n != 0 {
		t.Errorf("%d dead letters of a task that was taken", n)
	}
}

// TestDeathWhileRefusing kills a dispatcher at each step of a refusal.
func TestDeathWhileRefusing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	step, finished := 1, false
	for ; !finished; step++ {
		job := contracts.JobID(fmt.Sprintf("job-%d", step))
		task := dispatchtest.SecretTask(job, dispatchtest.Token)
		task.Queue = "nobodys"
		msg := s.submit(task)
		finished = s.on(msg, func(n int, _ string, die context.CancelFunc) bustest.Verdict {
			if n < step {
				return bustest.Pass
			}
			die()
			return bustest.LoseAnswer
		})
		s.again(msg)
		if life := dispatchtest.Life(t, s.client, job); life != "submitted failed" {
			t.Errorf("life of %s: %s", job, life)
		}
		if n := bustest.Count(t, s.client, contracts.StreamDead, contracts.DeadSubject("nobodys")); n != step {
			t.Errorf("%d dead letters, want %d", n, step)
		}
	}
}

// TestSequenceUsedAgain: a server that lost submissions uses their sequences again.
// What comes there is another submission, under an id that is used, and so is the
// one after it.
func TestSequenceUsedAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	kept := s.submit(dispatchtest.Task("job"))
	s.again(kept)
	for n, image := range []string{"another", "a third"} {
		other := dispatchtest.Task("job")
		other.Docker.Image = image
		msg := s.submit(other)
		msg.Seq = kept.Seq // the life was not lost
		s.again(msg)
		s.checkQueuedAlone("job")
		if letters := bustest.Count(t, s.client, contracts.StreamDead, contracts.DeadAll); letters != n+1 {
			t.Errorf("%d dead letters of %d tasks under an id that is used", letters, n+1)
		}
	}
}

// checkQueuedAlone is checkQueued for a job without secrets.
func (s *site) checkQueuedAlone(job contracts.JobID) {
	s.Helper()
	if life := dispatchtest.Life(s, s.client, job); life != "submitted queued" {
		s.Errorf("life of %s: %s", job, life)
	}
	if n := dispatchtest.Ready(s, s.client, job); n != 1 {
		s.Errorf("%s has %d ready messages, want 1", job, n)
	}
}
