package service_test

import (
	"strings"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

func TestSuccess(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	r := s.submit(s.create())
	if job := r.girder(); job.Handler != girdersim.CeleryHandler || job.TaskID != string(r.id) || job.Title != "Segment" || job.Type != contracts.TaskDockerRun {
		t.Errorf("created %+v", job)
	}
	r.begin()
	r.print(contracts.LogStdout, "one\n")
	r.print(contracts.LogStderr, "two\n")
	r.tell(10, 3, "a")
	r.tell(10, 10, "all of it")
	r.succeed()
	job := r.mirrored()
	s.wantStatuses(job, girdersim.Running, girdersim.Success)
	s.wantLog(job, "one\ntwo\n")
	if p := job.Progress; p == nil || *p.Current != 10 || *p.Total != 10 || *p.Message != "all of it" {
		t.Errorf("progress %+v", p)
	}
	r.awaitNoSecrets()
	projected := r.projected(func(j *contracts.Job) bool { return j.Progress != nil && *j.Progress.Current == 10 })
	if projected.Status != contracts.StatusSucceeded || *projected.ExitCode != 0 || len(projected.History) != 5 {
		t.Errorf("projection %+v", projected)
	}
}

// What is there at once goes at once.
func TestShortLogIsOneEntry(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	r := s.submit(s.create())
	r.begin()
	want := r.lines("line", 9)
	r.succeed()
	s.start()
	job := r.mirrored()
	s.wantLog(job, want)
	if len(job.Log) != 1 {
		t.Errorf("a short log has %d entries", len(job.Log))
	}
}

func TestFailure(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	r := s.submit(s.create())
	r.begin()
	r.print(contracts.LogStdout, "no end of line")
	code := 3
	r.entry(&contracts.Failed{Kind: contracts.FailureTask, Message: "Non-zero exit code from docker container (3).", ExitCode: &code, LogSeq: r.seq})
	job := r.mirrored()
	s.wantStatuses(job, girdersim.Running, girdersim.Error)
	s.wantLog(job, "no end of line\nNon-zero exit code from docker container (3).\n")
	if len(job.Log) != 2 {
		t.Errorf("entries %q", job.Log)
	}
	secrets, err := s.bus.Secrets(s.ctx, r.id, contracts.SecretJob)
	if err != nil || len(secrets) == 0 {
		t.Errorf("secrets of a failed job: %v, %v", secrets, err)
	}
}

func TestRetryTellsWhy(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	r := s.submit(s.create())
	r.begin()
	r.print(contracts.LogStdout, "first\n")
	r.entry(&contracts.Failed{Kind: contracts.FailureInfrastructure, Message: "the engine is gone", WillRetry: true, LogSeq: r.seq})
	r.awaitGirder(func(job girdersim.Job) bool { return strings.Contains(logOf(job), "the engine is gone") })
	r.entry(&contracts.Queued{Lane: contracts.LaneNormal, Queue: contracts.DefaultQueue, Kind: contracts.KindDocker, Reason: contracts.QueuedRetry})
	r.begin()
	r.print(contracts.LogStdout, "second\n")
	r.claim() // somebody took over: attempt 2 was lost
	r.entry(&contracts.Started{Container: "c"})
	r.print(contracts.LogStdout, "third\n")
	r.succeed()
	job := r.mirrored()
	s.wantStatuses(job, girdersim.Running, girdersim.Success)
	s.wantLog(job, "first\nthe engine is gone (will be tried again)\nsecond\n"+
		"Attempt 2 was lost with its worker, attempt 3 begins.\nthird\n")
}

func TestCanceledBeforeItRan(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	r := s.submit(s.create())
	_, err := s.sim.CancelJob(r.girder().ID)
	s.must(err)
	r.awaitRevoke(canceledInGirder)
	r.entry(&contracts.Canceled{By: "girder"})
	s.wantStatuses(r.mirrored(), girdersim.Canceled)
	r.awaitNoSecrets()
}

func TestCanceledWhileRunning(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	r := s.submit(s.create())
	r.begin()
	_, err := s.sim.CancelJob(r.awaitStatus(girdersim.Running).ID)
	s.must(err)
	r.awaitRevoke(canceledInGirder)
	r.entry(&contracts.Canceling{By: "girder"})
	r.print(contracts.LogStdout, "stopped\n")
	r.entry(&contracts.Canceled{By: "girder", LogSeq: r.seq})
	job := r.mirrored()
	s.wantStatuses(job, girdersim.Running, girdersim.Canceling, girdersim.Canceled)
	s.wantLog(job, "stopped\n")
}

func TestRevokedByAnotherWhileRunning(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	r := s.submit(s.create())
	r.begin()
	r.entry(&contracts.Canceling{By: "ann"})
	r.entry(&contracts.Canceled{By: "ann"})
	s.wantStatuses(r.mirrored(), girdersim.Running, girdersim.Canceled)
}

func TestSuccessThatTheCancelMissed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	r := s.submit(s.create())
	r.begin()
	r.print(contracts.LogStdout, "done\n")
	_, err := s.sim.CancelJob(r.awaitStatus(girdersim.Running).ID)
	s.must(err)
	r.entry(&contracts.Succeeded{Warnings: []string{"no artifacts"}, LogSeq: r.seq})
	job := r.mirrored()
	s.wantStatuses(job, girdersim.Running, girdersim.Canceling, girdersim.Canceled)
	s.wantLog(job, "done\nWarning: no artifacts\nThe task had succeeded before the cancel reached it.\n")
}

func TestTakenOverWorkerHandlerJobs(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]struct {
		run  func(*run)
		want []int
		log  string
	}{
		"success":         {func(r *run) { r.begin(); r.succeed() }, []int{1, 2, 3}, "before\n"},
		"canceled":        {func(r *run) { r.entry(&contracts.Canceled{By: "ann"}) }, []int{1, 5}, "before\n"},
		"failed to start": {func(r *run) { r.entry(&contracts.Failed{Kind: contracts.FailureRejected, Message: "no"}) }, []int{1, 4}, "before\nno\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.start()
			theirs, err := s.sim.CreateJob(girdersim.JobSpec{Handler: girdersim.WorkerHandler})
			s.must(err)
			s.write(theirs, "before\n")
			r := s.submit(s.takeOver(theirs))
			r.awaitStatus(girdersim.Queued)
			end.run(r)
			job := r.mirrored()
			s.wantStatuses(job, end.want...)
			s.wantLog(job, end.log)
		})
	}
}

func TestTakenOverCeleryJobFailsBeforeItRan(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	theirs, err := s.sim.CreateJob(girdersim.JobSpec{})
	s.must(err)
	r := s.submit(s.takeOver(theirs))
	r.entry(&contracts.Failed{Kind: contracts.FailureExpired, Message: "it waited too long"})
	s.wantStatuses(r.mirrored(), girdersim.Running, girdersim.Error)
}

func TestRefusedCreation(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	wrong := s.create()
	token, err := s.sim.Token("core.data.read")
	s.must(err)
	wrong.Girder.Job.Token = contracts.Secret(token)
	r := s.submit(wrong)
	r.claim()
	r.refused("girder.job.token")
	reply := r.gateOfGirder()
	if reply.Verdict != contracts.GateRefused || !strings.Contains(reply.Message, "girder.job.token") || !strings.Contains(reply.Message, "jobs.rest.create_job") {
		t.Errorf("the gate says %+v", reply)
	}
	r.entry(&contracts.Failed{Kind: contracts.FailureTask, Message: reply.Message})
	job := r.projected(func(job *contracts.Job) bool { return job.Girder.Done })
	if job.Girder.Problem != reply.Message {
		t.Errorf("problem %q", job.Girder.Problem)
	}
	if revoke, err := s.bus.LastRevoke(s.ctx, r.id); err != nil || revoke != nil {
		t.Errorf("revoked: %v, %v", revoke, err)
	}
	ref, _, err := s.bus.GirderJob(s.ctx, r.id)
	if err != nil || ref.Refused != reply.Message {
		t.Errorf("reference %+v, %v", ref, err)
	}
}

func TestRefusedCreationBehindTheGate(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	wrong := s.create()
	token, err := s.sim.Token("core.data.read")
	s.must(err)
	wrong.Girder.Job.Token = contracts.Secret(token)
	s.sim.Down()
	r := s.submit(wrong)
	r.claim()
	if reply := r.gate(); reply.Verdict != contracts.GateOpen {
		t.Errorf("the gate says %+v", reply)
	}
	r.entry(&contracts.Started{Container: "c"})
	s.must(s.sim.Up())
	r.awaitRevoke("jobs.rest.create_job")
}

// A task that was rejected before it could be queued has a Girder job as well,
// which says why.
func TestRejectedTask(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	whole := s.create()
	whole.Girder.Job.Title = ""
	redacted, secrets, err := (&contracts.Task{Version: 1, Girder: whole.Girder}).Redact()
	s.must(err)
	r := &run{site: s, id: contracts.NewJobID()}
	r.entry(&contracts.Submitted{Task: redacted, Submission: 1})
	s.must(s.bus.PutSecrets(s.ctx, r.id, contracts.SecretJob, secrets[contracts.SecretJob]))
	r.entry(&contracts.Failed{Kind: contracts.FailureRejected, Message: "docker.image: missing"})
	job := r.mirrored()
	s.wantStatuses(job, girdersim.Running, girdersim.Error)
	s.wantLog(job, "docker.image: missing\n")
}

func TestGate(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	r := s.submit(s.create())
	if reply := r.gateOfGirder(); reply.Verdict != contracts.GateOpen {
		t.Errorf("open: %+v", reply)
	}
	_, err := s.sim.CancelJob(r.girder().ID)
	s.must(err)
	if reply := r.gateOfGirder(); reply.Verdict != contracts.GateRevoked {
		t.Errorf("canceled: %+v", reply)
	}
	if reply := s.submit(task(nil)).gate(); reply.Verdict != contracts.GateOpen {
		t.Errorf("without a Girder job: %+v", reply)
	}
}

func TestJobWithoutGirder(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	r := s.submit(task(&contracts.Girder{APIURL: s.sim.APIURL(), Token: "data token"}))
	r.begin()
	r.succeed()
	job := r.projected(func(job *contracts.Job) bool { return job.Status.Terminal() })
	if job.Girder != nil {
		t.Errorf("mirror %+v", job.Girder)
	}
	r.awaitNoSecrets()
}

const canceledInGirder = "canceled in Girder"

// gate asks whether an attempt may begin, as soon as a tracker leads that can
// say it.
func (r *run) gate() contracts.GateReply {
	r.t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		reply, err := bus.Ask[contracts.GateReply](r.ctx, r.bus, contracts.JobsGateSubject, contracts.GateRequest{Job: r.id})
		if err == nil && reply.Verdict != "" {
			r.must(nil)
			return *reply
		}
		if r.ctx.Err() != nil {
			r.t.Fatalf("the gate does not answer: %+v, %v", reply, err)
		}
		<-ticker.C
	}
}

// silent is what the gate says where Girder did not answer in the time that an
// attempt can wait.
var silent = contracts.GateReply{Verdict: contracts.GateOpen, Message: "Girder does not answer"}

// gateOfGirder asks until Girder has answered in time.
func (r *run) gateOfGirder() contracts.GateReply {
	r.t.Helper()
	for {
		if reply := r.gate(); reply != silent {
			return reply
		}
	}
}

// refused waits until it is known that Girder refuses the job, and why: whoever
// asks earlier, on a slow machine, passes the gate and is revoked later.
func (r *run) refused(why string) {
	r.t.Helper()
	r.projected(func(job *contracts.Job) bool { return strings.Contains(job.Girder.Problem, why) })
}

// awaitRevoke waits for a revoke by Girder whose reason contains a text.
func (r *run) awaitRevoke(reason string) {
	r.t.Helper()
	for msg, err := range r.bus.Messages(r.ctx, contracts.StreamRevoke, 1, contracts.RevokeSubject(r.id)) {
		r.must(err)
		revoke, err := contracts.DecodeRevoke(msg.Data(), r.id)
		r.must(err)
		if revoke.By != "girder" || !strings.Contains(revoke.Reason, reason) {
			r.t.Errorf("revoke %+v", revoke)
		}
		return
	}
	r.t.Fatal("no revoke")
}
