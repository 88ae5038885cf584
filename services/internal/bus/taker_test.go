package bus_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// ready makes the consumers of the default queue's lanes.
func ready(t *testing.T, b *bus.Bus) {
	t.Helper()
	for _, lane := range contracts.Lanes {
		if err := b.DeclareConsumer(t.Context(), contracts.ReadyConsumer(lane, contracts.DefaultQueue, contracts.KindDocker)); err != nil {
			t.Fatal(err)
		}
	}
}

func offer(t *testing.T, b *bus.Bus, lane contracts.Lane, job contracts.JobID) {
	t.Helper()
	subject := contracts.ReadySubject(lane, contracts.DefaultQueue, contracts.KindDocker, job, 1)
	if err := b.PublishOnce(t.Context(), subject, []byte("task")); err != nil {
		t.Fatal(err)
	}
}

func puller(t *testing.T, b *bus.Bus) *bus.Puller {
	t.Helper()
	p := &bus.Puller{Bus: b, Queues: []contracts.Queue{contracts.DefaultQueue}, Kind: contracts.KindDocker}
	t.Cleanup(p.Close)
	return p
}

// next returns the job of the next ready message, which it acknowledges.
func next(t *testing.T, p *bus.Puller) contracts.JobID {
	t.Helper()
	for {
		msg, err := p.Next(t.Context())
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
		if msg == nil {
			continue
		}
		job, _, err := contracts.ParseReady(msg.Subject)
		if err == nil {
			err = p.Bus.Ack(t.Context(), msg.Reply)
		}
		if err != nil {
			t.Fatal(err)
		}
		return job
	}
}

func TestPullerAsksUrgentLanesFirst(t *testing.T) {
	t.Parallel()
	b := open(t, natstest.Start(t), "a")
	ready(t, b)
	offer(t, b, contracts.LaneLow, "low")
	offer(t, b, contracts.LaneNormal, "normal")
	offer(t, b, contracts.LaneHigh, "high")
	p := puller(t, b)
	p.AnswerWithin(2 * time.Minute) // a lane that does not answer is passed over
	for _, want := range []contracts.JobID{"high", "normal", "low"} {
		if job := next(t, p); job != want {
			t.Errorf("took %s, want %s", job, want)
		}
	}
}

// waiting makes a puller wait at all lanes, ends that with one job, and leaves
// the pulls of the other lanes at the server.
func waiting(t *testing.T, b *bus.Bus, p *bus.Puller) {
	t.Helper()
	taken := make(chan contracts.JobID, 1)
	go func() {
		for t.Context().Err() == nil {
			msg, err := p.Next(t.Context())
			if err != nil || msg == nil {
				continue // none for a while, or nobody to ask
			}
			job, _, _ := contracts.ParseReady(msg.Subject)
			taken <- job
			return
		}
		taken <- ""
	}()
	for _, lane := range contracts.Lanes {
		durable := contracts.ReadyConsumer(lane, contracts.DefaultQueue, contracts.KindDocker).Durable
		until(t, "a pull that waits", func() bool {
			ctx, cancel := brief(t)
			defer cancel()
			handle, err := b.JetStream().Consumer(ctx, contracts.StreamReady, durable)
			return err == nil && handle.CachedInfo().NumWaiting > 0
		})
	}
	offer(t, b, contracts.LaneNormal, "first")
	if job := <-taken; job != "first" {
		t.Errorf("took %s", job)
	}
}

// TestMessagesForNobodyGoToOthers: a pull of one whose slots are full, or who
// ends, keeps no message for the time of a lease.
func TestMessagesForNobodyGoToOthers(t *testing.T) {
	t.Parallel()
	natstest.Each(t, func(t *testing.T, nats natstest.NATS) {
		full, other := open(t, nats, "full"), open(t, nats, "other")
		ready(t, full)
		// A lease that is long enough to tell one that ended from a message given back.
		const lease = 10 * time.Minute
		high := contracts.ReadyConsumer(contracts.LaneHigh, contracts.DefaultQueue, contracts.KindDocker)
		high.AckWait = lease
		if err := full.DeclareConsumer(t.Context(), high); err != nil {
			t.Fatal(err)
		}
		busy := puller(t, full)
		waiting(t, other, busy)
		limit, cancel := context.WithTimeout(t.Context(), lease/2)
		defer cancel()
		offer(t, other, contracts.LaneHigh, "high")
		free := puller(t, other)
		for {
			msg, err := free.Next(limit)
			if limit.Err() != nil {
				t.Fatalf("the message came to nobody within its lease: %v", err)
			}
			if msg == nil {
				continue
			}
			if job, _, _ := contracts.ParseReady(msg.Subject); job != "high" {
				t.Errorf("got %s", job)
			}
			break
		}
		busy.Close()
		offer(t, other, contracts.LaneLow, "low")
		if job := next(t, free); job != "low" {
			t.Errorf("took %s", job)
		}
	})
}

// TestPullsAreMadeAnew: a pull that waits gets what comes after a restart.
func TestPullsAreMadeAnew(t *testing.T) {
	t.Parallel()
	natstest.Each(t, func(t *testing.T, nats natstest.NATS) {
		b, other := open(t, nats, "a"), open(t, nats, "b")
		ready(t, b)
		waiting(t, other, puller(t, b))
		p := puller(t, b)
		taken := make(chan contracts.JobID, 1)
		go func() { taken <- nextPatiently(t, p) }()
		nats.Stop()
		nats.Start()
		offer(t, other, contracts.LaneHigh, "after")
		if job := <-taken; job != "after" {
			t.Errorf("took %s", job)
		}
	})
}

// nextPatiently is for outages, which Next reports.
func nextPatiently(t *testing.T, p *bus.Puller) contracts.JobID {
	for t.Context().Err() == nil {
		msg, err := p.Next(t.Context())
		if err != nil || msg == nil {
			continue
		}
		job, _, err := contracts.ParseReady(msg.Subject)
		if err != nil || job == "first" {
			continue
		}
		return job
	}
	return ""
}

// TestWorkIsDoneOnceAcrossElections: messages come in while members of the
// cluster go; none is lost.
func TestWorkIsDoneOnceAcrossElections(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("no cluster in short mode")
	}
	cluster := natstest.StartCluster(t)
	b, other := open(t, cluster, "a"), open(t, cluster, "b")
	const jobs = 60
	done := make(chan string, 10*jobs)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- b.Work(ctx, contracts.SubmitConsumer, 4, func(_ context.Context, msg *bus.Message) error {
			done <- string(msg.Data)
			return nil
		})
	}()
	gone := -1
	for n := range jobs {
		switch n {
		case jobs / 4:
			gone = cluster.Leader(contracts.StreamSubmit)
			cluster.StopMember(gone)
		case jobs / 2:
			cluster.StartMember(gone)
			cluster.StepDown(cluster.Client(), contracts.StreamSubmit)
		}
		if err := other.Publish(t.Context(), contracts.SubmitAny, fmt.Sprintf("id-%d", n), n); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]int{}
	for len(seen) < jobs {
		seen[<-done]++
	}
	// Before the end: what a leader forgot the acknowledgement of comes again.
	awaitEmpty(t, other, contracts.StreamSubmit)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

// TestWhatIsNotPermittedFails: the server is silent then, as in an outage that
// would be waited out.
func TestWhatIsNotPermittedFails(t *testing.T) {
	t.Parallel()
	server, restricted := natstest.StartRestricted(t, "$JS.API.INFO", "$JS.API.STREAM.INFO.*")
	ready(t, open(t, server, "owner"))
	b, err := bus.Open(t.Context(), restricted, "test", "restricted")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	p := puller(t, b)
	for name, request := range map[string]struct {
		subject string
		do      func() error
	}{
		"append": {"jobs.job.life", func() error {
			task := &contracts.Task{Version: 1, Name: contracts.TaskDockerRun, Docker: &contracts.DockerRun{Image: "img"}}
			_, err := b.Append(t.Context(), "job", nil, &contracts.Submitted{Task: task})
			return err
		}},
		"last":    {"$JS.API.STREAM.MSG.GET.JOBS", func() error { _, err := b.Last(t.Context(), "job"); return err }},
		"publish": {"tasks.dead.q", func() error { return b.Publish(t.Context(), "tasks.dead.q", "", 1) }},
		"purge":   {"$JS.API.STREAM.PURGE.LIVE", func() error { return b.Purge(t.Context(), contracts.StreamLive, ">") }},
		"secrets": {"$JS.API.DIRECT.GET.KV_secrets", func() error { _, err := b.Secrets(t.Context(), "job", contracts.SecretIO); return err }},
		"follow":  {"$JS.API.CONSUMER.CREATE.TASKS_REVOKE", func() error { return b.FollowRevokes(t.Context(), func(*contracts.Revoke) {}) }},
		"watch": {"$JS.API.STREAM.MSG.GET.JOBS", func() error {
			return b.WatchLives(t.Context(), func() {}, func() {}, func(*bus.Seen) {})
		}},
		"pull": {"$JS.API.CONSUMER.MSG.NEXT.TASKS_READY", func() error {
			for {
				if _, err := p.Next(t.Context()); err != nil {
					return err
				}
			}
		}},
		"submit": {"tasks.submit.default", func() error {
			_, err := b.Submit(t.Context(), &contracts.Task{Name: contracts.TaskDockerRun, Docker: &contracts.DockerRun{Image: "img"}})
			return err
		}},
		"revoke": {"tasks.revoke.job", func() error { return b.Revoke(t.Context(), contracts.Revoke{Job: "job"}) }},
		"query":  {contracts.JobsGetSubject, func() error { _, err := b.Job(t.Context(), "job"); return err }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := request.do(); !errors.Is(err, client.ErrNotPermitted) || !strings.Contains(err.Error(), request.subject) {
				t.Errorf("got %v, want a word about %s", err, request.subject)
			}
		})
	}
}
