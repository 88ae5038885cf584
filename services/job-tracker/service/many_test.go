package service_test

import (
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// Many jobs go on while trackers come and go wherever they are.
func TestManyJobsAndRestarts(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	stop := s.start()
	jobs := make([]*run, 60)
	want := make([]string, len(jobs))
	first := s.create()
	for i := range jobs {
		jobs[i] = s.submit(first)
	}
	each := func(do func(int, *run)) {
		for i, r := range jobs {
			do(i, r)
		}
		stop()
		stop = s.start()
	}
	each(func(_ int, r *run) { r.begin() })
	each(func(i int, r *run) { want[i] += r.lines("first", 3) })
	each(func(i int, r *run) { want[i] += r.lines("second", 3); r.tell(9, float64(i), "") })
	each(func(i int, r *run) {
		if i%3 == 0 {
			want[i] += "no\n"
			r.entry(&contracts.Failed{Kind: contracts.FailureTask, Message: "no", LogSeq: r.seq})
			return
		}
		r.succeed()
	})
	for i, r := range jobs {
		job := r.mirrored()
		end := girdersim.Success
		if i%3 == 0 {
			end = girdersim.Error
		} else {
			r.awaitNoSecrets()
		}
		s.wantStatuses(job, girdersim.Running, end)
		s.wantLog(job, want[i])
		if job.Progress == nil || *job.Progress.Current != float64(i) {
			t.Errorf("progress %+v", job.Progress)
		}
		if n := len(r.projected(func(j *contracts.Job) bool { return j.Status.Terminal() }).History); n != 5 {
			t.Errorf("%d lines of history", n)
		}
	}
	left := 0
	for _, job := range s.sim.Jobs() {
		if len(job.Timestamps) == 0 {
			left++ // a tracker ended between Girder's answer and the note of it
		}
	}
	if len(s.sim.Jobs())-left != len(jobs) {
		t.Errorf("%d Girder jobs, %d of them without a status", len(s.sim.Jobs()), left)
	}
}

// Girder is asked about waiting jobs in turn, at most ten times a second: a
// cancel is seen although many others wait.
func TestCancelAmongManyThatWait(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	wanted := s.create()
	jobs := make([]*run, 40)
	for i := range jobs {
		jobs[i] = s.submit(wanted)
	}
	last := jobs[len(jobs)-1]
	_, err := s.sim.CancelJob(last.girder().ID)
	s.must(err)
	last.awaitRevoke(canceledInGirder)
}
