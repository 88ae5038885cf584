package service_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// busy says what an attempt is busy with.
func (r *run) busy(phase contracts.Phase) {
	r.t.Helper()
	r.note++
	note, err := contracts.NewNote(contracts.NotePhase, r.last.Attempt, r.note, phase)
	r.must(err)
	r.must(r.bus.Publish(r.ctx, contracts.NotesSubject(r.id), "", note))
}

// awaitBar waits until the Girder job shows that progress.
func (r *run) awaitBar(total, current float64, message string) {
	r.t.Helper()
	r.awaitGirder(func(job girdersim.Job) bool { return hasBar(job, total, current, message) })
}

func hasBar(job girdersim.Job, total, current float64, message string) bool {
	p := job.Progress
	return p != nil && p.Total != nil && *p.Total == total && p.Current != nil && *p.Current == current && p.Message != nil && *p.Message == message
}

func (r *run) wantBar(job girdersim.Job, total, current float64, message string) {
	r.t.Helper()
	if !hasBar(job, total, current, message) {
		r.t.Errorf("Girder shows %+v, want %v of %v, %q", job.Progress, current, total, message)
	}
}

var (
	fetching = contracts.Phase{Phase: contracts.PhaseFetchingInput, What: "big.tif", Bytes: 412e6, Of: 1e9, Rate: 105e6}
	pushing  = contracts.Phase{Phase: contracts.PhasePushingOutput, What: "out.csv", Bytes: 5, Of: 10}
	running  = contracts.Phase{Phase: contracts.PhaseRunning}
)

const fetchingWords = "Fetching input big.tif: 412 MB of 1.0 GB, 105 MB/s, 6 s left"

// Girder shows what an attempt is busy with until its task says how far it is.
func TestGirderShowsWhatAnAttemptIsBusyWith(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	r := s.submit(s.create())
	r.claim()
	r.busy(fetching)
	r.awaitBar(1e9, 412e6, fetchingWords)
	r.entry(&contracts.Started{Container: "c"})
	r.busy(running)
	r.awaitBar(0, 0, "Running")
	r.tell(10, 3, "row 3")
	r.awaitBar(10, 3, "row 3")
	r.entry(&contracts.Pushing{})
	r.busy(pushing)
	r.tell(10, 10, "row 10")
	r.entry(&contracts.Succeeded{LogSeq: r.seq})
	job := r.mirrored()
	r.wantBar(job, 10, 10, "row 10")
	s.wantStatuses(job, girdersim.Running, girdersim.Success)
}

// What keeps an attempt from going on is in Girder while it does, however often
// it comes and goes, and many notes of it cost no more requests than one.
func TestGirderShowsWhatAnAttemptWaitsFor(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	r := s.submit(s.create())
	r.claim()
	still := fetching
	still.Rate = 0
	waiting := still
	waiting.Waiting = "Girder answers 503"
	const stillWords = "Fetching input big.tif: 412 MB of 1.0 GB"
	const waitingWords = stillWords + ", waiting: Girder answers 503"
	r.busy(fetching)
	r.awaitBar(1e9, 412e6, fetchingWords)
	for range 2 {
		r.busy(waiting)
		r.awaitBar(1e9, 412e6, waitingWords)
		r.busy(still)
		r.awaitBar(1e9, 412e6, stillWords)
	}
	began := time.Now()
	s.sim.ForgetRequests()
	for range 200 {
		r.busy(waiting)
		r.busy(still)
	}
	r.busy(waiting)
	r.print(contracts.LogStdout, "behind it\n")
	r.awaitBar(1e9, 412e6, waitingWords)
	r.awaitGirder(func(job girdersim.Job) bool { return logOf(job) == "behind it\n" })
	updates := 0
	for _, request := range s.sim.Requests() {
		if request.Method == http.MethodPut {
			updates++
		}
	}
	// Two a second, and some that begin and end it.
	if most := int(2*time.Since(began).Seconds()) + 5; updates > most {
		t.Errorf("%d updates, want %d at most", updates, most)
	}
	r.entry(&contracts.Failed{Kind: contracts.FailureInfrastructure, Message: "no", LogSeq: r.seq})
	r.wantBar(r.mirrored(), 1e9, 412e6, stillWords)
}

func TestGirderShowsHowASilentTaskEnded(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end     contracts.EntryData
		total   float64
		current float64
		message string
	}{
		"well":      {&contracts.Succeeded{}, 1, 1, "Done"},
		"badly":     {&contracts.Failed{Kind: contracts.FailureTask, Message: "no"}, 0, 0, "Failed"},
		"by cancel": {&contracts.Canceled{By: "ann"}, 0, 0, "Canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.start()
			r := s.submit(s.create())
			r.claim()
			r.busy(fetching)
			r.awaitBar(1e9, 412e6, fetchingWords)
			r.entry(&contracts.Started{Container: "c"})
			r.busy(running)
			if _, is := c.end.(*contracts.Canceled); is {
				r.entry(&contracts.Canceling{By: "ann"})
			}
			r.entry(c.end)
			r.wantBar(r.mirrored(), c.total, c.current, c.message)
		})
	}
}

// The next tracker knows whether the task has said how far it is.
func TestABarOutlivesItsTracker(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	stop := s.start()
	spoke, silent := s.submit(s.create()), s.submit(s.create())
	for _, r := range []*run{spoke, silent} {
		r.claim()
		r.busy(fetching)
		r.awaitBar(1e9, 412e6, fetchingWords)
		r.entry(&contracts.Started{Container: "c"})
	}
	spoke.tell(10, 3, "row 3")
	spoke.awaitBar(10, 3, "row 3")
	spoke.projected(func(job *contracts.Job) bool { return job.Progress != nil })
	stop()
	s.start()
	silent.busy(running)
	silent.awaitBar(0, 0, "Running")
	spoke.entry(&contracts.Pushing{})
	spoke.busy(pushing)
	spoke.print(contracts.LogStdout, "uploading\n")
	job := spoke.awaitGirder(func(job girdersim.Job) bool { return logOf(job) == "uploading\n" })
	spoke.wantBar(job, 10, 3, "row 3")
	for _, r := range []*run{spoke, silent} {
		r.succeed()
		r.mirrored()
	}
	spoke.wantBar(spoke.girder(), 10, 3, "row 3")
	silent.wantBar(silent.girder(), 1, 1, "Done")
}
