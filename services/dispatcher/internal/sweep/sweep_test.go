package sweep_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/dispatchtest"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/offer"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/retry"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/sweep"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/internal/bus/bustest"
)

// site has jobs, and a sweep that has yet to begin.
type site struct {
	*testing.T
	client *client.Client
	bus    *bus.Bus
	handed map[uint64]bool // the ready messages, by sequence
}

func newSite(t *testing.T) *site {
	t.Helper()
	server, c := dispatchtest.Server(t)
	b := dispatchtest.Open(t, server.Config())
	dispatchtest.Known(t, b)
	return &site{t, c, b, map[uint64]bool{}}
}

// live writes a life, without any message beside it.
func (s *site) live(job contracts.JobID, life ...contracts.EntryData) *bus.Seen {
	s.Helper()
	last, err := s.bus.Append(s.Context(), job, nil, &contracts.Submitted{Task: dispatchtest.Task(job), Submission: 1})
	for _, data := range life {
		if err != nil {
			s.Fatal(err)
		}
		last, err = s.bus.Append(s.Context(), job, last, data)
	}
	if err != nil {
		s.Fatal(err)
	}
	return last
}

// sweep runs a sweeper that has observed the entries until the test ends.
func (s *site) sweep(observed ...*bus.Seen) {
	s.Helper()
	sweeper := &sweep.Sweeper{Bus: s.bus, Interval: 10 * time.Millisecond}
	for _, last := range observed {
		sweeper.Observe(last)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- sweeper.Run(ctx) }()
	s.Cleanup(func() {
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			s.Errorf("sweep ended with %v", err)
		}
	})
}

// canary makes a job that misses its ready message: the sweep offers it. Made last,
// it is looked at after all others.
func (s *site) canary(job contracts.JobID) *bus.Seen { return s.live(job, queued) }

func (s *site) offered(want contracts.JobID) *bus.Message {
	s.Helper()
	msg := dispatchtest.NextReady(s, s.client)
	for s.handed[msg.Seq] { // its lease is over, on a machine that stood still
		msg = dispatchtest.NextReady(s, s.client)
	}
	s.handed[msg.Seq] = true
	if job, offer, err := contracts.ParseReady(msg.Subject); err != nil || job != want || offer != 1 {
		s.Fatalf("ready on %s, want offer 1 of %s", msg.Subject, want)
	}
	return msg
}

var (
	queued = &contracts.Queued{
		Lane: contracts.LaneNormal, Queue: contracts.DefaultQueue, Kind: contracts.KindDocker, Reason: contracts.QueuedSubmit,
	}
	claimed  = &contracts.Claimed{Node: "n", Executor: "e"}
	released = &contracts.Released{Node: "n", Executor: "e"}
	started  = &contracts.Started{Container: "c"}
	failed   = &contracts.Failed{Kind: contracts.FailureTask, Message: "exit code 1", WillRetry: true, RetryAt: time.Now().UTC()}
)

// TestMissingReadyMessage: whatever a life stands at that began to be offered,
// its ready message is there, and once.
func TestMissingReadyMessage(t *testing.T) {
	t.Parallel()
	for name, life := range map[string][]contracts.EntryData{
		"queued":   {queued},
		"released": {queued, claimed, released},
		"claimed":  {queued, claimed},
		"started":  {queued, claimed, started},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			last := s.live("job", life...)
			s.sweep(last)
			s.offered("job")
			if n := dispatchtest.Ready(s, s.client, "job"); n != 1 {
				t.Errorf("%d ready messages, want 1", n)
			}
			if present, err := s.bus.Last(t.Context(), "job"); err != nil || present.Seq != last.Seq {
				t.Errorf("life went on to %v, %v", present, err)
			}
		})
	}
}

// TestReadyMessageInHand: while somebody holds the message, none comes beside it,
// also where the job was given back.
func TestReadyMessageInHand(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	last := s.live("job", queued)
	if err := offer.Publish(t.Context(), s.bus, last, dispatchtest.Task("job")); err != nil {
		t.Fatal(err)
	}
	held := s.offered("job")
	observed := []*bus.Seen{last}
	for _, data := range []contracts.EntryData{claimed, released} {
		next, err := s.bus.Append(t.Context(), "job", observed[len(observed)-1], data)
		if err != nil {
			t.Fatal(err)
		}
		observed = append(observed, next)
	}
	s.sweep(observed[len(observed)-1], s.canary("canary"))
	s.offered("canary")
	if n := dispatchtest.Ready(s, s.client, "job"); n != 1 {
		t.Errorf("%d ready messages beside each other", n)
	}
	// It is given up without anything in the life: only now it is missing.
	if err := s.bus.Ack(t.Context(), held.Reply); err != nil {
		t.Fatal(err)
	}
	s.offered("job")
}

// TestMissingSchedule: a retry whose schedule is gone comes all the same, and once.
func TestMissingSchedule(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	last := s.live("job", queued, claimed, started, failed)
	s.sweep(last)
	msg := bustest.Next(t, s.client, contracts.DueConsumer)
	if err := retry.Handle(t.Context(), s.bus, msg); err != nil {
		t.Fatal(err)
	}
	if err := s.bus.Ack(t.Context(), msg.Reply); err != nil {
		t.Fatal(err)
	}
	if life := dispatchtest.Life(t, s.client, "job"); life != "submitted queued claimed started failed queued" {
		t.Errorf("life %s", life)
	}
	if n := dispatchtest.Ready(t, s.client, "job"); n != 1 {
		t.Errorf("%d ready messages, want 1", n)
	}
}

// TestScheduleThatIsThere: neither one that waits for its time nor one that is due,
// in somebody's hands, gets another beside it.
func TestScheduleThatIsThere(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	waits := s.live("waits", queued, claimed, started, failed)
	if err := s.bus.Schedule(t.Context(), "waits", contracts.LaterRetry, time.Now().Add(time.Hour), struct{}{}); err != nil {
		t.Fatal(err)
	}
	due := s.live("due", queued, claimed, started, failed)
	if err := retry.Plan(t.Context(), s.bus, due); err != nil {
		t.Fatal(err)
	}
	bustest.Next(t, s.client, contracts.DueConsumer)
	s.sweep(waits, due, s.canary("canary"))
	s.offered("canary")
	for _, job := range []contracts.JobID{"waits", "due"} {
		if n := dispatchtest.Scheduled(t, s.client, job); n != 1 {
			t.Errorf("%s has %d schedules and due messages, want 1", job, n)
		}
	}
}

// TestMissingSubmission: a job whose submission is gone before it was queued is
// queued; as long as the submission is there, that is intake's.
func TestMissingSubmission(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	bustest.Publish(t, s.client, contracts.SubmitAny, "", dispatchtest.Encode(t, dispatchtest.Task("job")))
	submission := bustest.Next(t, s.client, contracts.SubmitConsumer)
	s.sweep(s.live("job"), s.canary("canary"))
	s.offered("canary")
	if life := dispatchtest.Life(t, s.client, "job"); life != "submitted" {
		t.Errorf("life %s while intake is under way", life)
	}
	if err := s.bus.Ack(t.Context(), submission.Reply); err != nil {
		t.Fatal(err)
	}
	s.offered("job")
	if life := dispatchtest.Life(t, s.client, "job"); life != "submitted queued" {
		t.Errorf("life %s", life)
	}
}

// TestSubmissionInAnotherOnesPlace: a server that lost its last messages may have
// another submission at the sequence. The job's own is gone.
func TestSubmissionInAnotherOnesPlace(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	bustest.Publish(t, s.client, contracts.SubmitAny, "", dispatchtest.Encode(t, dispatchtest.Task("another")))
	other := bustest.Next(t, s.client, contracts.SubmitConsumer)
	last, err := s.bus.Append(t.Context(), "job", nil, &contracts.Submitted{
		Task: dispatchtest.Task("job"), Submission: other.Seq, SubmittedAt: other.Time.Add(-time.Second),
	})
	if err != nil {
		t.Fatal(err)
	}
	underWay, err := s.bus.Append(t.Context(), "another", nil, &contracts.Submitted{
		Task: dispatchtest.Task("another"), Submission: other.Seq, SubmittedAt: other.Time,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.sweep(last, underWay, s.canary("canary"))
	s.offered("job")
	s.offered("canary")
	if life := dispatchtest.Life(t, s.client, "another"); life != "submitted" {
		t.Errorf("life %s while intake is under way", life)
	}
}

// TestRevokedMeanwhile: a job that is offered again ends where it was revoked.
func TestRevokedMeanwhile(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if err := s.client.Revoke(t.Context(), contracts.Revoke{Job: "job", By: "somebody"}); err != nil {
		t.Fatal(err)
	}
	s.sweep(s.live("job", queued, claimed, released))
	if end, err := s.client.Wait(t.Context(), "job"); err != nil || end.Type != contracts.EntryCanceled {
		t.Errorf("end %v, %v", end, err)
	}
}

// TestLifeThatWentBack: what was observed is not there any more, or was purged.
func TestLifeThatWentBack(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	there := s.live("job", queued)
	lost := entryBehind(there, claimed)
	gone := entryBehind(there, queued)
	gone.Job = "gone"
	s.sweep(lost, gone)
	s.offered("job")
}

// entryBehind returns an entry that the server does not have.
func entryBehind(last *bus.Seen, data contracts.EntryData) *bus.Seen {
	return &bus.Seen{Entry: contracts.NextEntry(last.Entry, "", "", data), Seq: last.Seq + 100}
}
