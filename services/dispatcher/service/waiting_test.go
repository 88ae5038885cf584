package service_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/dispatchtest"
	"github.com/gantry-worker/gantry/services/dispatcher/service"
	"github.com/gantry-worker/gantry/services/internal/bus/bustest"
)

func submit(t *testing.T, c *client.Client, job contracts.JobID) {
	t.Helper()
	bustest.Publish(t, c, contracts.SubmitAny, "", dispatchtest.Encode(t, dispatchtest.Task(job)))
	dispatchtest.Await(t, c, job, contracts.EntryQueued, 1)
}

func revoke(t *testing.T, c *client.Client, job contracts.JobID) {
	t.Helper()
	if err := c.Revoke(t.Context(), contracts.Revoke{Job: job, By: "somebody", Reason: "no longer wanted"}); err != nil {
		t.Fatal(err)
	}
}

func TestRevokeOfAQueuedJob(t *testing.T) {
	t.Parallel()
	server, c := dispatchtest.Server(t)
	stop := run(t, server, nil)
	submit(t, c, "job")
	submit(t, c, "other")
	dispatchtest.NextReady(t, c)
	dispatchtest.NextReady(t, c)
	revoke(t, c, "job")
	end, err := c.Wait(t.Context(), "job")
	if err != nil {
		t.Fatal(err)
	}
	if canceled, ok := end.Data.(*contracts.Canceled); !ok || canceled.By != "somebody" || canceled.Reason != "no longer wanted" {
		t.Errorf("end %+v", end.Data)
	}
	revokesHandled(t, c)
	stop()
	if n := dispatchtest.Ready(t, c, "job"); n != 0 {
		t.Errorf("%d ready messages of a canceled job", n)
	}
	if n := dispatchtest.Ready(t, c, "other"); n != 1 {
		t.Errorf("%d ready messages of another job", n)
	}
}

func TestRevokeBeforeSubmission(t *testing.T) {
	t.Parallel()
	server, c := dispatchtest.Server(t)
	stop := run(t, server, nil)
	revoke(t, c, "job")
	bustest.Publish(t, c, contracts.SubmitAny, "", dispatchtest.Encode(t, dispatchtest.Task("job")))
	if end, err := c.Wait(t.Context(), "job"); err != nil || end.Type != contracts.EntryCanceled {
		t.Fatalf("end %v, %v", end, err)
	}
	stop()
	if life := dispatchtest.Life(t, c, "job"); life != "submitted canceled" {
		t.Errorf("life %s", life)
	}
	if n := dispatchtest.Ready(t, c, "job"); n != 0 {
		t.Errorf("%d ready messages", n)
	}
}

// TestRevokeWhileNoDispatcherRuns: the next one applies it, whether or not an
// executor ever takes the job.
func TestRevokeWhileNoDispatcherRuns(t *testing.T) {
	t.Parallel()
	server, c := dispatchtest.Server(t)
	stop := run(t, server, nil)
	submit(t, c, "job")
	stop()
	revoke(t, c, "job")
	stop = run(t, server, nil)
	if end, err := c.Wait(t.Context(), "job"); err != nil || end.Type != contracts.EntryCanceled {
		t.Fatalf("end %v, %v", end, err)
	}
	revokesHandled(t, c)
	stop()
	if n := dispatchtest.Ready(t, c, "job"); n != 0 {
		t.Errorf("%d ready messages", n)
	}
}

func TestRevokeOfAJobThatWaitsForItsRetry(t *testing.T) {
	t.Parallel()
	server, c := dispatchtest.Server(t)
	stop := run(t, server, nil)
	submit(t, c, "job")
	failed := dispatchtest.Attempt(t, dispatchtest.Open(t, server.Config()), "job", time.Hour)
	awaitSchedule(t, c, "job")
	revoke(t, c, "job")
	if end, err := c.Wait(t.Context(), "job"); err != nil || end.Type != contracts.EntryCanceled || end.Attempt != failed.Attempt {
		t.Fatalf("end %v, %v", end, err)
	}
	revokesHandled(t, c)
	stop()
	if n := dispatchtest.Scheduled(t, c, "job"); n != 0 {
		t.Errorf("%d schedules are left", n)
	}
}

func TestRevokeOfARunningJobIsItsOwners(t *testing.T) {
	t.Parallel()
	server, c := dispatchtest.Server(t)
	stop := run(t, server, nil)
	submit(t, c, "job")
	submit(t, c, "queued")
	b := dispatchtest.Open(t, server.Config())
	last, err := b.Last(t.Context(), "job")
	if err == nil {
		_, err = b.Append(t.Context(), "job", last, &contracts.Claimed{Node: "n", Executor: "e"})
	}
	if err != nil {
		t.Fatal(err)
	}
	revoke(t, c, "job")
	revoke(t, c, "queued") // heard after the other one
	if _, err := c.Wait(t.Context(), "queued"); err != nil {
		t.Fatal(err)
	}
	stop()
	if life := dispatchtest.Life(t, c, "job"); life != "submitted queued claimed" {
		t.Errorf("life %s", life)
	}
}

// revokesHandled waits until the dispatcher is through with the revokes that
// came before, with all that it removes: it handles one after the other.
func revokesHandled(t *testing.T, c *client.Client) {
	t.Helper()
	submit(t, c, "probe")
	revoke(t, c, "probe")
	if _, err := c.Wait(t.Context(), "probe"); err != nil {
		t.Fatal(err)
	}
}

// awaitSchedule waits until the schedule of a job is published.
func awaitSchedule(t *testing.T, c *client.Client, job contracts.JobID) {
	t.Helper()
	heard, err := c.Conn().SubscribeSync(contracts.LaterSubject(job, contracts.LaterRetry))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = heard.Unsubscribe() }()
	if err := c.Conn().Flush(); err != nil {
		t.Fatal(err)
	}
	if dispatchtest.Scheduled(t, c, job) > 0 {
		return
	}
	if _, err := heard.NextMsgWithContext(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestRetryComesAfterItsBackoff(t *testing.T) {
	t.Parallel()
	server, c := dispatchtest.Server(t)
	stop := run(t, server, nil)
	other := run(t, server, nil) // two do one of everything
	submit(t, c, "job")
	executor := dispatchtest.Open(t, server.Config())
	for offer := 1; offer <= 3; offer++ {
		ready := dispatchtest.NextReady(t, c)
		failed := dispatchtest.Attempt(t, executor, "job", 300*time.Millisecond)
		if err := executor.Ack(t.Context(), ready.Reply); err != nil {
			t.Fatal(err)
		}
		queued := dispatchtest.Await(t, c, "job", contracts.EntryQueued, offer+1)
		at := failed.Data.(*contracts.Failed).RetryAt
		if queued.Time.Before(at) {
			t.Errorf("offer %d came %s before its time", queued.Offer, at.Sub(queued.Time))
		}
		if data := queued.Data.(*contracts.Queued); data.Reason != contracts.QueuedRetry || queued.Attempt != offer || queued.Failures != offer {
			t.Errorf("queued %+v of %+v", data, queued)
		}
	}
	dispatchtest.NextReady(t, c)
	stop()
	other()
	const attempt = " queued claimed started failed"
	if life := dispatchtest.Life(t, c, "job"); life != "submitted"+attempt+attempt+attempt+" queued" {
		t.Errorf("life %s", life)
	}
	if n := dispatchtest.Ready(t, c, "job"); n != 1 {
		t.Errorf("%d ready messages, want 1", n)
	}
}

func TestRetryOfAnAttemptThatFailedWhileNoDispatcherRan(t *testing.T) {
	t.Parallel()
	server, c := dispatchtest.Server(t)
	stop := run(t, server, nil)
	submit(t, c, "job")
	stop()
	dispatchtest.Attempt(t, dispatchtest.Open(t, server.Config()), "job", time.Millisecond)
	run(t, server, nil)
	dispatchtest.Await(t, c, "job", contracts.EntryQueued, 2)
}

func TestRequestsOfAnEndedAttemptAreRemoved(t *testing.T) {
	t.Parallel()
	server, c := dispatchtest.Server(t)
	run(t, server, nil)
	submit(t, c, "job")
	b := dispatchtest.Open(t, server.Config())
	if err := b.PublishOnce(t.Context(), contracts.TransferSubject("n", "job", 1, "in"), []byte("x")); err != nil {
		t.Fatal(err)
	}
	dispatchtest.Attempt(t, b, "job", time.Millisecond)
	dispatchtest.Await(t, c, "job", contracts.EntryQueued, 2)
	// One follower handles one end after the other, so this one's end is after
	// that of the first.
	submit(t, c, "later")
	dispatchtest.Attempt(t, b, "later", time.Millisecond)
	dispatchtest.Await(t, c, "later", contracts.EntryQueued, 2)
	if n := bustest.Count(t, c, contracts.StreamTransfers, contracts.TransferAll); n != 0 {
		t.Errorf("%d requests are left", n)
	}
}

func TestSweeperOffersAgain(t *testing.T) {
	t.Parallel()
	server, c := dispatchtest.Server(t)
	b := dispatchtest.Open(t, server.Config())
	first, err := b.Append(t.Context(), "job", nil, &contracts.Submitted{Task: dispatchtest.Task("job"), Submission: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Append(t.Context(), "job", first, &contracts.Queued{
		Lane: contracts.LaneNormal, Queue: contracts.DefaultQueue, Kind: contracts.KindDocker, Reason: contracts.QueuedSubmit,
	}); err != nil {
		t.Fatal(err)
	}
	run(t, server, quick(20*time.Millisecond))
	msg := dispatchtest.NextReady(t, c)
	if job, offer, err := contracts.ParseReady(msg.Subject); err != nil || job != "job" || offer != 1 {
		t.Errorf("ready on %s", msg.Subject)
	}
	// It offers on and on, and there is one message all the same.
	submit(t, c, "next")
	dispatchtest.NextReady(t, c)
	if n := dispatchtest.Ready(t, c, "job"); n != 1 {
		t.Errorf("%d ready messages, want 1", n)
	}
}

func TestQueueBecomesKnown(t *testing.T) {
	t.Parallel()
	server, c := dispatchtest.Server(t)
	run(t, server, nil)
	task := dispatchtest.Task("early")
	task.Queue = "gpu"
	bustest.Publish(t, c, contracts.SubmitAny, "", dispatchtest.Encode(t, task))
	if end, err := c.Wait(t.Context(), "early"); err != nil || end.Type != contracts.EntryFailed {
		t.Fatalf("end %v, %v", end, err)
	}
	kv, err := c.JetStream().KeyValue(t.Context(), contracts.BucketNodes)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.PutString(t.Context(), contracts.InstanceKey("docker-executor", "e"), `{"service":"docker-executor","id":"e","queues":["gpu"]}`); err != nil {
		t.Fatal(err)
	}
	task.ID = "late"
	bustest.Publish(t, c, contracts.SubmitAny, "", dispatchtest.Encode(t, task))
	dispatchtest.Await(t, c, "late", contracts.EntryQueued, 1)
	bustest.Next(t, c, contracts.ReadyConsumer(contracts.LaneNormal, "gpu", contracts.KindDocker))
}

func TestQueueStaysKnownAfterARestart(t *testing.T) {
	t.Parallel()
	server, c := dispatchtest.Server(t)
	stop := run(t, server, func(cfg *service.Config) { cfg.Queues = []contracts.Queue{"default", "gpu"} })
	stop()
	run(t, server, nil) // nobody announces the queue now, and it is not configured
	task := dispatchtest.Task("job")
	task.Queue = "gpu"
	if _, err := c.Submit(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	dispatchtest.Await(t, c, "job", contracts.EntryQueued, 1)
}

func TestOpenQueues(t *testing.T) {
	t.Parallel()
	server, c := dispatchtest.Server(t)
	run(t, server, func(cfg *service.Config) { cfg.OpenQueues = true })
	bustest.Publish(t, c, contracts.SubmitSubject("new"), "", dispatchtest.Encode(t, dispatchtest.Task("job")))
	dispatchtest.Await(t, c, "job", contracts.EntryQueued, 1)
	bustest.Next(t, c, contracts.ReadyConsumer(contracts.LaneNormal, "new", contracts.KindDocker))
	bustest.Publish(t, c, "tasks.submit.No", "", dispatchtest.Encode(t, dispatchtest.Task("bad")))
	if end, err := c.Wait(t.Context(), "bad"); err != nil || end.Type != contracts.EntryFailed {
		t.Errorf("end %v, %v", end, err)
	}
}

func TestMaxQueuedHoldsBack(t *testing.T) {
	t.Parallel()
	server, c := dispatchtest.Server(t)
	b := dispatchtest.Open(t, server.Config())
	stop := run(t, server, nil)
	submit(t, c, "first")
	stop()
	run(t, server, func(cfg *service.Config) { cfg.MaxQueued = 1 })
	delivered := acknowledged(t, c)
	bustest.Publish(t, c, contracts.SubmitAny, "", dispatchtest.Encode(t, dispatchtest.Task("second")))
	for range 100 { // the dispatcher answers all of this and does not take the task
		if _, err := c.DeadLetters(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	// The room is made by the first job's claim, and only then is there a life.
	last, err := b.Last(t.Context(), "first")
	if err != nil {
		t.Fatal(err)
	}
	claimed, err := b.Append(t.Context(), "first", last, &contracts.Claimed{Node: "n", Executor: "e"})
	if err != nil {
		t.Fatal(err)
	}
	dispatchtest.Await(t, c, "second", contracts.EntryQueued, 1)
	delivered(1)
	submitted, err := b.JetStream().Stream(t.Context(), contracts.StreamJobs)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := submitted.GetMsg(t.Context(), 1, jetstream.WithGetMsgSubject(contracts.LifeSubject("second")))
	if err != nil {
		t.Fatal(err)
	}
	if msg.Sequence < claimed.Seq {
		t.Errorf("the second life begins at %d, before there was room at %d", msg.Sequence, claimed.Seq)
	}
}

func TestRestartOfNATSWhileTasksAreSubmitted(t *testing.T) {
	t.Parallel()
	const tasks = 200
	server, c := dispatchtest.Server(t)
	stop := run(t, server, nil)
	var all sync.WaitGroup
	half := make(chan struct{})
	all.Go(func() {
		for n := range tasks {
			if n == tasks/2 {
				close(half)
			}
			persistently(t, c, dispatchtest.Task(contracts.JobID(fmt.Sprintf("job-%d", n))))
		}
	})
	<-half
	server.Restart()
	all.Wait()
	await(t, func() string {
		if n := bustest.Count(t, c, contracts.StreamReady, contracts.ReadyAll); n != tasks {
			return fmt.Sprintf("%d ready messages of %d tasks", n, tasks)
		}
		return ""
	})
	taken(t, c)
	stop()
	for n := range tasks {
		job := contracts.JobID(fmt.Sprintf("job-%d", n))
		if life := dispatchtest.Life(t, c, job); life != "submitted queued" {
			t.Errorf("life of %s: %s", job, life)
		}
		if ready := dispatchtest.Ready(t, c, job); ready != 1 {
			t.Errorf("%s has %d ready messages", job, ready)
		}
	}
}

// persistently submits a task until NATS says that it has it.
func persistently(t *testing.T, c *client.Client, task *contracts.Task) {
	for t.Context().Err() == nil {
		if _, err := c.Submit(t.Context(), task); err == nil {
			return
		}
	}
}
