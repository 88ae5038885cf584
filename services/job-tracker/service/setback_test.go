package service_test

import (
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// TestLifeThatNATSLost: JOBS loses more entries than come after that, and uses their
// sequences again. What is known of the job is what its life says now.
func TestLifeThatNATSLost(t *testing.T) {
	t.Parallel()
	nats := natstest.Start(t)
	s := newSiteAt(t, nats)
	s.start()
	r := s.submit(s.create())
	r.begin()
	r.awaitStatus(girdersim.Running)
	setBack, kept := nats.KeepStream(contracts.StreamJobs), r.last
	r.entry(&contracts.Pushing{})
	for range 5 {
		r.entry(&contracts.Pushed{Files: []contracts.GirderSent{{Name: "lost"}}})
	}
	lost := r.last
	r.projected(func(job *contracts.Job) bool { return job.LifeSeq == lost.Seq })
	setBack()
	r.last = kept
	r.succeed()
	if r.last.Seq >= lost.Seq {
		t.Fatalf("the end has sequence %d, none that was used: the last was %d", r.last.Seq, lost.Seq)
	}
	s.wantStatuses(r.mirrored(), girdersim.Running, girdersim.Success)
	job := r.projected(func(job *contracts.Job) bool { return job.LifeSeq == r.last.Seq })
	if job.Status != contracts.StatusSucceeded || len(job.Outputs) != 0 || len(job.History) != 5 {
		t.Errorf("the projection says %s, %d outputs, %+v", job.Status, len(job.Outputs), job.History)
	}
}

// TestProjectionsThatNATSLost: the bucket of jobs is what it was before, lives are
// not. Nothing more comes of them that would say so.
func TestProjectionsThatNATSLost(t *testing.T) {
	t.Parallel()
	nats := natstest.Start(t)
	s := newSiteAt(t, nats)
	s.start()
	r := s.submit(s.create())
	r.projected(func(job *contracts.Job) bool { return job.Status == contracts.StatusQueued })
	setBack := nats.KeepStream("KV_" + contracts.BucketJobs)
	r.begin()
	r.succeed()
	later := s.submit(task(nil))
	later.projected(func(job *contracts.Job) bool { return job.Status == contracts.StatusQueued })
	r.mirrored()
	setBack()
	s.wantStatuses(r.mirrored(), girdersim.Running, girdersim.Success)
	r.projected(func(job *contracts.Job) bool { return job.Status == contracts.StatusSucceeded })
	later.projected(func(job *contracts.Job) bool { return job.Status == contracts.StatusQueued })
}

// TestNotesThatNATSLost: LIVE loses notes that a tracker found when it began.
func TestNotesThatNATSLost(t *testing.T) {
	t.Parallel()
	nats := natstest.Start(t)
	s := newSiteAt(t, nats)
	r := s.submit(task(nil))
	r.begin()
	setBack := nats.KeepStream(contracts.StreamLive)
	for n := range 5 {
		r.tell(8, float64(n), "lost")
	}
	s.start()
	r.projected(func(job *contracts.Job) bool { return job.Progress != nil && job.Progress.Message == "lost" })
	setBack()
	r.tell(8, 7, "new")
	r.projected(func(job *contracts.Job) bool { return job.Progress != nil && job.Progress.Message == "new" })
}
