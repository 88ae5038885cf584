package service_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/job-tracker/service"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// Two trackers answer queries; what one of them removes, neither shows. A job
// whose end Girder does not know yet stays until it does.
func TestRetention(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	stop := s.start()
	stay := s.submit(task(nil))
	stay.begin()
	ended := s.submit(task(nil))
	ended.begin()
	ended.lines("line", 3)
	ended.tell(2, 1, "half")
	ended.succeed()
	mirrored := s.submit(s.create())
	mirrored.begin()
	want := mirrored.lines("line", 3)
	mirrored.entry(&contracts.Failed{Kind: contracts.FailureTask, Message: "no", LogSeq: mirrored.seq})
	mirrored.mirrored()
	waiting := s.submit(s.create())
	waiting.girder()
	s.sim.Down()
	waiting.begin()
	waiting.lines("line", 3)
	waiting.entry(&contracts.Failed{Kind: contracts.FailureTask, Message: "no", LogSeq: waiting.seq})
	for _, r := range []*run{ended, waiting} {
		r.projected(func(job *contracts.Job) bool { return job.Status.Terminal() })
	}
	stop()
	keep := func(cfg *service.Config) { cfg.Retention = time.Nanosecond }
	s.start(keep)
	s.start(keep)
	s.awaitTotal(contracts.JobFilter{}, 2)
	if job, err := s.bus.Job(s.ctx, waiting.id); err != nil || job.Girder.Done {
		t.Errorf("the job that waits for Girder: %+v, %v", job, err)
	}
	s.must(s.sim.Up())
	s.awaitTotal(contracts.JobFilter{}, 1)
	for _, r := range []*run{ended, mirrored, waiting} {
		for _, kept := range []struct{ stream, subject string }{
			{contracts.StreamLive, contracts.LogFilter(r.id)},
			{contracts.StreamLive, contracts.NotesSubject(r.id)},
			{contracts.StreamJobs, "jobs." + string(r.id) + ".*"},
			{"KV_" + contracts.BucketJobs, "$KV." + contracts.BucketJobs + "." + string(r.id)},
		} {
			if seq, err := s.bus.LastSeq(s.ctx, kept.stream, kept.subject); seq != 0 || err != nil {
				t.Errorf("%s is there: %d, %v", kept.subject, seq, err)
			}
		}
		if _, err := s.bus.Job(s.ctx, r.id); err == nil {
			t.Errorf("%s is shown", r.id)
		}
		r.awaitNoSecrets()
	}
	if job, err := s.bus.Job(s.ctx, stay.id); err != nil || job.Status != contracts.StatusRunning {
		t.Errorf("the job that runs: %+v, %v", job, err)
	}
	for _, job := range s.sim.Jobs() {
		s.wantStatuses(job, girdersim.Running, girdersim.Error)
		s.wantLog(job, want+"no\n")
	}
}

// awaitTotal waits until several answers in a row, which any tracker may give,
// count that many jobs. An index has no event to wait for, so it asks again.
func (s *site) awaitTotal(filter contracts.JobFilter, total int) {
	s.t.Helper()
	filter.Limit = 1
	for inRow := 0; inRow < 20; inRow++ {
		list, err := s.bus.Jobs(s.ctx, filter)
		s.must(err)
		if list.Total != total {
			inRow = -1
		}
	}
}

// A get is never older than what its asker knows.
func TestGetIsUpToDate(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	for range 5 {
		r := s.submit(task(nil))
		r.entry(&contracts.Canceled{By: "ann"})
		if job, err := s.bus.Job(s.ctx, r.id); err != nil || job.Status != contracts.StatusCanceled {
			t.Errorf("right after the cancel: %+v, %v", job, err)
		}
	}
}

// A proxy that has lost its Girder answers for it.
func TestProxyBeforeGirder(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	r := s.submit(s.create())
	r.girder()
	var asked atomic.Int32
	statuses := []int{http.StatusNotFound, http.StatusForbidden, http.StatusBadGateway}
	s.sim.SetFault(func(*http.Request) *girdersim.Fault {
		n := int(asked.Add(1))
		if n > len(statuses) {
			return nil
		}
		return &girdersim.Fault{Status: statuses[n-1], Body: "<html><h1>no Girder</h1></html>", ContentType: "text/html"}
	})
	r.begin()
	want := r.lines("line", 3)
	r.succeed()
	job := r.mirrored()
	s.wantStatuses(job, girdersim.Running, girdersim.Success)
	s.wantLog(job, want)
}
