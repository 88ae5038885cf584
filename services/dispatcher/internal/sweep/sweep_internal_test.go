package sweep

import (
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

func entry(job contracts.JobID, seq uint64, data contracts.EntryData) *bus.Seen {
	return &bus.Seen{Entry: &contracts.Entry{Type: data.EntryType(), Job: job, Offer: 1, Data: data}, Seq: seq}
}

func queued(seq uint64) *bus.Seen { return entry("job", seq, &contracts.Queued{}) }

// TestSweeperLooksEverMoreRarely: what it found in order costs ever less, what
// it could not look at is due all the time.
func TestSweeperLooksEverMoreRarely(t *testing.T) {
	t.Parallel()
	s := &Sweeper{Interval: time.Minute}
	s.Observe(queued(1))
	first := s.jobs["job"]
	if due := s.overdue(time.Now()); len(due) != 0 {
		t.Errorf("%d jobs are due at once", len(due))
	}
	var last time.Duration
	for range 10 {
		if due := s.overdue(time.Now().Add(100 * time.Hour)); len(due) != 1 {
			t.Fatalf("%d jobs are due in the end", len(due))
		}
		s.found(first)
		w := s.jobs["job"]
		if w.pause < last || w.pause > maxPause*s.Interval {
			t.Errorf("a pause of %s follows one of %s", w.pause, last)
		}
		last = w.pause
	}
	if last != maxPause*s.Interval {
		t.Errorf("the pause comes to %s", last)
	}
	s.Observe(queued(5)) // its next offer
	next := s.jobs["job"]
	if next.pause != 2*s.Interval {
		t.Errorf("a new offer waits for %s", next.pause)
	}
	s.found(first) // the look at the earlier one ends late
	s.correct(first, nil)
	if w := s.jobs["job"]; w != next || !s.stands(next) || s.stands(first) {
		t.Errorf("a look at an earlier offer counts: %+v", w)
	}
}

// TestSweeperCountsWhatWaits: those that run, or wait for their retry, take no room
// in a queue.
func TestSweeperCountsWhatWaits(t *testing.T) {
	t.Parallel()
	s := &Sweeper{Interval: time.Minute}
	seq := uint64(0)
	for _, c := range []struct {
		data            contracts.EntryData
		queued, watched int
	}{
		{&contracts.Submitted{}, 0, 1},
		{&contracts.Queued{}, 1, 1},
		{&contracts.Queued{}, 1, 1},
		{&contracts.Claimed{}, 0, 1},
		{&contracts.Released{}, 1, 1},
		{&contracts.Claimed{}, 0, 1},
		{&contracts.Failed{WillRetry: true}, 0, 1},
		{&contracts.Queued{}, 1, 1},
		{&contracts.Canceled{}, 0, 0},
	} {
		seq++
		s.Observe(entry("job", seq, c.data))
		if s.Queued() != c.queued || len(s.jobs) != c.watched {
			t.Errorf("after %s %d jobs are queued and %d are watched, want %d and %d", c.data.EntryType(), s.Queued(), len(s.jobs), c.queued, c.watched)
		}
	}
	s.Observe(queued(seq))
	s.correct(s.jobs["job"], nil)
	if s.Queued() != 0 {
		t.Error("a job whose life is gone is queued")
	}
	s.Observe(queued(seq))
	s.Forget()
	if s.Queued() != 0 || len(s.jobs) != 0 {
		t.Error("something is remembered")
	}
}

// TestSweeperWaitsForTheBackoff: a retry is missed when its time has passed for long.
func TestSweeperWaitsForTheBackoff(t *testing.T) {
	t.Parallel()
	s := &Sweeper{Interval: time.Minute}
	s.Observe(entry("job", 1, &contracts.Failed{WillRetry: true, RetryAt: time.Now().Add(time.Hour)}))
	for wait, want := range map[time.Duration]int{time.Hour: 0, time.Hour + 2*time.Minute: 1} {
		if due := s.overdue(time.Now().Add(wait)); len(due) != want {
			t.Errorf("%d retries are missed after %s, want %d", len(due), wait, want)
		}
	}
}
