package service_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// forget deletes the bucket of jobs, as an accident may, and makes it anew as
// the next dispatcher does.
func (s *site) forget() {
	s.t.Helper()
	admin := s.nats.Client()
	jobs, err := admin.JetStream().Stream(s.ctx, contracts.StreamJobs)
	s.must(err)
	s.must(admin.JetStream().DeleteKeyValue(s.ctx, contracts.BucketJobs))
	s.must(admin.ApplyTopology(s.ctx, jobs.CachedInfo().Config.Replicas))
}

// lives makes jobs in all kinds of states, and says what their projections are.
func (s *site) lives() (ended, running, waiting *run, before map[contracts.JobID]*contracts.Job, log string) {
	s.t.Helper()
	ended, running, waiting = s.submit(s.create()), s.submit(s.create()), s.submit(task(nil))
	failed := s.submit(s.create())
	failed.begin()
	failed.entry(&contracts.Failed{Kind: contracts.FailureTask, Message: "exit code 3"})
	failed.mirrored()
	ended.begin()
	ended.lines("ended", 5)
	ended.tell(2, 1, "half")
	ended.entry(&contracts.Pushing{})
	ended.entry(&contracts.Pushed{Files: []contracts.GirderSent{{Name: "x"}}})
	ended.succeed()
	ended.mirrored()
	running.begin()
	log = running.lines("running", 5)
	running.tell(8, 3, "three")
	running.awaitGirder(func(job girdersim.Job) bool { return logOf(job) == log && job.Progress != nil })
	before = map[contracts.JobID]*contracts.Job{}
	for _, r := range []*run{ended, running, waiting, failed} {
		before[r.id] = r.projected(func(job *contracts.Job) bool {
			switch r {
			case ended, running:
				return job.Progress != nil && (job.Girder.Done || job.Girder.Cursor.Seq == r.seq)
			case failed:
				return job.Girder.Done
			default:
				return job.Status == contracts.StatusQueued
			}
		})
	}
	return ended, running, waiting, before, log
}

func (s *site) wantProjections(before map[contracts.JobID]*contracts.Job) {
	s.t.Helper()
	for id, want := range before {
		r := &run{site: s, id: id}
		got := r.projected(func(job *contracts.Job) bool {
			return job.LifeSeq == want.LifeSeq && (want.Progress == nil || job.Progress != nil) &&
				(want.Girder == nil || job.Girder.Cursor == want.Girder.Cursor && job.Girder.Status == want.Girder.Status)
		})
		if diff := cmp.Diff(want, got); diff != "" {
			s.t.Errorf("%s %s: %s", id, want.Status, diff)
		}
	}
}

func TestProjectionFromNothing(t *testing.T) {
	t.Parallel()
	for name, meanwhile := range map[string]func(*site){
		"quietly":               func(*site) {},
		"while NATS goes twice": func(s *site) { s.restartNATS(); s.restartNATS() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			natstest.Each(t, func(t *testing.T, nats natstest.NATS) { fromNothing(t, nats, meanwhile) })
		})
	}
}

func fromNothing(t *testing.T, nats natstest.NATS, meanwhile func(*site)) {
	s := newSiteAt(t, nats)
	stop := s.start()
	ended, running, waiting, before, log := s.lives()
	stop()
	s.forget()
	s.sim.ForgetRequests()
	s.start()
	meanwhile(s)
	s.wantProjections(before)
	for _, request := range s.sim.Requests() {
		if request.Path == "/api/v1/job/"+before[ended.id].Girder.ID {
			t.Errorf("%s %s for a job whose mirror was done", request.Method, request.Path)
		}
	}
	log += running.lines("more", 5)
	running.succeed()
	job := running.mirrored()
	s.wantStatuses(job, girdersim.Running, girdersim.Success)
	s.wantLog(job, log)
	waiting.begin()
	waiting.succeed()
	waiting.projected(func(job *contracts.Job) bool { return job.Status == contracts.StatusSucceeded })
	if jobs := s.sim.Jobs(); len(jobs) != 3 {
		t.Errorf("%d Girder jobs", len(jobs))
	}
}

// A key that was deleted, instead of the bucket, is made again by the next
// question for the job.
func TestDeletedKeyIsMadeAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	r := s.submit(task(nil))
	want := r.projected(func(job *contracts.Job) bool { return job.Status == contracts.StatusQueued })
	kv, err := s.nats.Client().JetStream().KeyValue(s.ctx, contracts.BucketJobs)
	s.must(err)
	s.must(kv.Delete(s.ctx, string(r.id)))
	got, err := s.bus.Job(s.ctx, r.id)
	s.must(err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A Girder job that existed before has a log that is not ours; a cursor that is
// gone does not make it ours, nor ours foreign.
func TestCursorFromNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	stop := s.start()
	existing, err := s.sim.CreateJob(girdersim.JobSpec{})
	s.must(err)
	s.write(existing, "theirs\n")
	r := s.submit(s.takeOver(existing))
	r.begin()
	log := r.lines("ours", 9)
	r.awaitGirder(func(job girdersim.Job) bool { return logOf(job) == "theirs\n"+log })
	stop()
	s.forget()
	log += r.lines("behind", 3)
	s.start()
	r.succeed()
	job := r.mirrored()
	s.wantLog(job, "theirs\n"+log)
	s.wantStatuses(job, girdersim.Running, girdersim.Success)
}
