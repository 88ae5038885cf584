package offer

import (
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

func queued(job contracts.JobID, seq uint64) *bus.Seen {
	return &bus.Seen{Entry: &contracts.Entry{Type: contracts.EntryQueued, Job: job, Offer: 1, Data: &contracts.Queued{}}, Seq: seq}
}

// TestSweeperLooksEverMoreRarely: what it found in order costs ever less, what
// it could not look at is due all the time.
func TestSweeperLooksEverMoreRarely(t *testing.T) {
	t.Parallel()
	s := &Sweeper{Interval: time.Minute}
	s.Observe(queued("job", 1))
	if due := s.overdue(time.Now()); len(due) != 0 {
		t.Errorf("%d jobs are due at once", len(due))
	}
	var last time.Duration
	for range 10 {
		if due := s.overdue(time.Now().Add(100 * time.Hour)); len(due) != 1 {
			t.Fatalf("%d jobs are due in the end", len(due))
		}
		s.found(queued("job", 1))
		w := s.queued["job"]
		if w.pause < last || w.pause > maxPause*s.Interval {
			t.Errorf("a pause of %s follows one of %s", w.pause, last)
		}
		last = w.pause
	}
	if last != maxPause*s.Interval {
		t.Errorf("the pause comes to %s", last)
	}
	s.Observe(queued("job", 5)) // its next offer
	if w := s.queued["job"]; w.pause != 2*s.Interval {
		t.Errorf("a new offer waits for %s", w.pause)
	}
	s.found(queued("job", 1)) // the look at the earlier one ends late
	if w := s.queued["job"]; w.pause != 2*s.Interval || !s.waits(queued("job", 5)) || s.waits(queued("job", 1)) {
		t.Errorf("a look at an earlier offer counts: %+v", w)
	}
	claimed := queued("job", 6)
	claimed.Type = contracts.EntryClaimed
	if s.Observe(claimed); s.Queued() != 0 {
		t.Error("a claimed job is queued")
	}
}
