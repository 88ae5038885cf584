package service_test

import (
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// Girder keeps few entries where a new one is long: with a thousand of them in
// the log, a long one would push most of them out.
func TestManyEntriesAreJoined(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	theirs, err := s.sim.CreateJob(girdersim.JobSpec{})
	s.must(err)
	before := 1000
	for range before {
		s.write(theirs, "x\n")
	}
	s.start()
	r := s.submit(s.takeOver(theirs))
	r.begin()
	piece := strings.Repeat("0123456789abcde\n", 3000)
	r.print(contracts.LogStdout, piece)
	r.succeed()
	job := r.mirrored()
	s.wantLog(job, strings.Repeat("x\n", before)+piece)
	if len(job.Log) != 2 {
		t.Errorf("%d entries", len(job.Log))
	}
}

func TestRefusedTakeOver(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	theirs, err := s.sim.CreateJob(girdersim.JobSpec{})
	s.must(err)
	s.must(s.sim.RevokeToken(theirs.Token))
	r := s.submit(s.takeOver(theirs))
	r.claim()
	if reply := r.gate(); reply.Verdict != contracts.GateOpen {
		t.Errorf("the gate says %+v", reply)
	}
	r.succeedWithoutStart()
	job := r.projected(func(job *contracts.Job) bool { return job.Girder.Done && job.Status.Terminal() })
	if !strings.Contains(job.Girder.Problem, "401") || strings.Contains(job.Girder.Problem, theirs.Token) {
		t.Errorf("problem %q", job.Girder.Problem)
	}
	r.awaitNoSecrets()
}

func (r *run) succeedWithoutStart() {
	r.t.Helper()
	r.entry(&contracts.Started{Container: "c"})
	r.succeed()
}

func TestStatusThatSomebodyElseSet(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	r := s.submit(s.create())
	r.begin()
	job := r.awaitStatus(girdersim.Running)
	s.must(s.sim.SetJobStatus(job.ID, girdersim.Error))
	r.succeed()
	projected := r.projected(func(job *contracts.Job) bool { return job.Girder.Done })
	if projected.Girder.Problem != "Girder says ERROR and does not take SUCCESS" || projected.Girder.Status != contracts.GirderError {
		t.Errorf("mirror %+v", projected.Girder)
	}
}

// What somebody else writes into the log stays, and nothing of ours is lost or
// sent again for it.
func TestLogThatOthersWriteInto(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	stop := s.start()
	r := s.submit(s.create())
	r.begin()
	want := r.lines("one", 3)
	job := r.awaitGirder(func(job girdersim.Job) bool { return logOf(job) == want })
	s.write(job, "theirs\n")
	want += "theirs\n"
	stop()
	s.start()
	want += r.lines("two", 3)
	r.awaitGirder(func(job girdersim.Job) bool { return logOf(job) == want })
	s.write(job, "again\n")
	want += "again\n" + r.lines("three", 3)
	r.succeed()
	s.wantLog(r.mirrored(), want)
}
