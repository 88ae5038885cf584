package service_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
	"github.com/gantry-worker/gantry/services/docker-executor/service"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/internal/bus/bustest"
)

// sentinel is the job that tells when a revoke was heard: revokes are heard in
// their order, and the sentinel's shows.
const sentinel contracts.JobID = "sentinel"

// cancelStage has an executor behind a proxy, with a sentinel that runs.
type cancelStage struct {
	*stage
	proxy    *bustest.Proxy
	stop     func()
	signaled <-chan struct{}
	release  func()
	answer   func(contracts.Step) *contracts.StepResult // of transfer
}

func newCancelStage(t *testing.T) *cancelStage {
	s := newStage(t)
	s.engine.AddRemote("remote:1", nil)
	proxy := bustest.Start(t, s.server.Config())
	stop := s.start(func(cfg *service.Config) { cfg.NATS = proxy.Config() })
	waits, goOnWaiting := s.engine.Hang(fake.CallWait)
	reads, goOnReading := s.engine.Hang(fake.CallLogs)
	s.offer(sentinel, script("hang"))
	s.awaitEntry(sentinel, contracts.EntryStarted)
	// The sentinel's calls run beside its started entry: once they are made, the
	// next ones are the job's.
	<-waits
	<-reads
	goOnWaiting()
	goOnReading()
	signaled, release := s.engine.Hang(fake.CallSignal)
	t.Cleanup(release)
	return &cancelStage{stage: s, proxy: proxy, stop: stop, signaled: signaled, release: release, answer: bringOrSend}
}

// cancel revokes the job and returns when the executor has heard it.
func (s *cancelStage) cancel() {
	s.revoke(contracts.Revoke{Job: "job", By: "somebody", Reason: "enough"})
	s.revoke(contracts.Revoke{Job: sentinel})
	<-s.signaled
}

// at calls f once, while the n-th message of the executor on a subject waits to
// be passed on.
func (s *cancelStage) at(subject string, n int, f func()) {
	s.proxy.Judge(func(published string) bustest.Verdict {
		if published == subject {
			if n--; n == 0 {
				f()
			}
		}
		return bustest.Pass
	})
}

// hang calls f once, while the engine is busy with a call. A start is not gone on
// with: that f ends it is the only way out.
func (s *cancelStage) hang(call fake.Call, f func()) {
	reached, release := s.engine.Hang(call)
	s.t.Cleanup(release)
	var wait sync.WaitGroup
	wait.Go(func() {
		<-reached
		f()
		if call != fake.CallStart {
			release()
		}
	})
	s.t.Cleanup(wait.Wait)
}

// outputTask brings an input and pushes an output.
func outputTask() *contracts.Task {
	task := script("out:done\n", "exit:0")
	task.Docker.Args = append(task.Docker.Args, girderFile("aa", ""))
	task.Outputs = []contracts.Output{upload("x", "item")}
	return task
}

func bringOrSend(step contracts.Step) *contracts.StepResult {
	if step.Kind == contracts.StepStageIn {
		return bring(step)
	}
	return sent(step)
}

// A revoke is honored at whatever instant it comes, from before the claim to
// the moment before the end is written.
func TestARevokeIsHonoredAtEveryInstant(t *testing.T) {
	t.Parallel()
	life := contracts.LifeSubject("job")
	claimed, started := contracts.EntryClaimed, contracts.EntryStarted
	pushing, pushed := contracts.EntryPushing, contracts.EntryPushed
	before := func(n int) func(*cancelStage) {
		return func(s *cancelStage) { s.at(life, n, s.cancel) }
	}
	during := func(call fake.Call) func(*cancelStage) {
		return func(s *cancelStage) { s.hang(call, s.cancel) }
	}
	inStep := func(kind contracts.StepKind, result *contracts.StepResult) func(*cancelStage) {
		return func(s *cancelStage) {
			s.answer = func(step contracts.Step) *contracts.StepResult {
				if step.Kind != kind {
					return bringOrSend(step)
				}
				s.cancel()
				return result
			}
		}
	}
	for name, test := range map[string]struct {
		arrange func(*cancelStage)
		task    func(*contracts.Task)
		entries []contracts.EntryType // between queued and canceling
		uploads int
	}{
		"before the ready message": {arrange: func(s *cancelStage) { s.revoke(contracts.Revoke{Job: "job"}) }, entries: []contracts.EntryType{claimed}},
		"while it is claimed":      {arrange: before(1), entries: []contracts.EntryType{claimed}},
		"after the claim":          {arrange: func(s *cancelStage) { s.at("$JS.API.STREAM.MSG.GET."+contracts.StreamRevoke, 1, s.cancel) }, entries: []contracts.EntryType{claimed}},
		"at the gate": {arrange: func(s *cancelStage) {
			s.gate(func() contracts.GateReply {
				s.cancel()
				return contracts.GateReply{Verdict: contracts.GateOpen}
			})
		}, task: withGirderJob, entries: []contracts.EntryType{claimed}},
		"while pulling": {arrange: during(fake.CallPull), task: func(task *contracts.Task) {
			task.Docker.Image, task.Docker.Pull = "remote:1", contracts.PullAlways
		}, entries: []contracts.EntryType{claimed}},
		"while looking at the image": {arrange: during(fake.CallImage), entries: []contracts.EntryType{claimed}},
		"while staging in":           {arrange: inStep(contracts.StepStageIn, nil), entries: []contracts.EntryType{claimed}},
		"while creating":             {arrange: during(fake.CallCreate), entries: []contracts.EntryType{claimed}},
		"while starting":             {arrange: during(fake.CallStart), entries: []contracts.EntryType{claimed}},
		"right after the start":      {arrange: before(2), entries: []contracts.EntryType{claimed, started}},
		"while the log is shipped": {arrange: func(s *cancelStage) { s.at(contracts.LogHeadSubject("job"), 1, s.cancel) },
			entries: []contracts.EntryType{claimed, started}},
		"while it waits for the exit": {arrange: during(fake.CallWait), entries: []contracts.EntryType{claimed, started}},
		"while it reads the log":      {arrange: during(fake.CallLogs), entries: []contracts.EntryType{claimed, started}},
		"before it pushes":            {arrange: before(3), entries: []contracts.EntryType{claimed, started, pushing}},
		"while it pushes":             {arrange: inStep(contracts.StepStageOut, nil), entries: []contracts.EntryType{claimed, started, pushing}, uploads: 1},
		"while transfer aborts": {arrange: inStep(contracts.StepStageIn, &contracts.StepResult{Outcome: contracts.StepAborted, Message: "revoked"}),
			entries: []contracts.EntryType{claimed}},
		"between pushed and succeeded": {arrange: before(4), entries: []contracts.EntryType{claimed, started, pushing, pushed}, uploads: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newCancelStage(t)
			task := outputTask()
			if test.task != nil {
				test.task(task)
			}
			test.arrange(s)
			tr := s.transfers(true, s.answer)
			s.offer("job", task)
			types, end := s.await("job")
			want := append([]contracts.EntryType{"submitted", "queued"}, test.entries...)
			sameTypes(t, types, append(want, "canceling", "canceled")...)
			if canceled, _ := end.Data.(*contracts.Canceled); canceled != nil && name != "before the ready message" && (canceled.By != "somebody" || canceled.Reason != "enough") {
				t.Errorf("canceled entry is %+v", canceled)
			}
			uploads := 0
			for _, step := range tr.asked() {
				if step.Kind == contracts.StepStageOut {
					uploads++
				}
			}
			if uploads > test.uploads {
				t.Errorf("%d uploads were asked for", uploads)
			}
			s.release()
			s.revoke(contracts.Revoke{Job: sentinel})
			s.await(sentinel)
			s.stop()
			s.clean()
		})
	}
}

// A revoke right before the end's entry is written comes too late or in time,
// but never makes a second end.
func TestARevokeNeverMakesTwoEnds(t *testing.T) {
	t.Parallel()
	s := newCancelStage(t)
	s.at(contracts.LifeSubject("job"), 3, s.cancel)
	s.offer("job", script("exit:0"))
	s.await("job")
	s.release()
	s.await(sentinel)
	s.stop()
	types, _ := s.life("job")
	sameTypes(t, types, "submitted", "queued", "claimed", "started", "succeeded")
	s.clean()
}

func TestARunningTaskIsStoppedBySignal(t *testing.T) {
	t.Parallel()
	grace := func(d time.Duration) *contracts.Duration { return (*contracts.Duration)(&d) }
	for name, test := range map[string]struct {
		trap   string
		revoke contracts.Revoke
		max    time.Duration
	}{
		"by default with SIGTERM":        {"trap:TERM:0", contracts.Revoke{Grace: grace(time.Hour)}, never},
		"with its own signal":            {"trap:INT:0", contracts.Revoke{Signal: "SIGINT", Grace: grace(time.Hour)}, never},
		"with SIGKILL after the grace":   {"trap:TERM:-1", contracts.Revoke{Grace: grace(time.Millisecond)}, never},
		"with a bounded grace":           {"trap:TERM:-1", contracts.Revoke{Grace: grace(time.Hour)}, time.Millisecond},
		"when it may not handle signals": {"trap:HUP:-1", contracts.Revoke{Signal: "SIGHUP", Grace: grace(0)}, never},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			signals := &settled{signalRecorder{Engine: s.engine}}
			stop := s.start(func(cfg *service.Config) { cfg.Engine, cfg.MaxGrace = signals, test.max })
			s.offer("job", script(test.trap, "out:trapped\n", "hang"))
			s.awaitEntry("job", contracts.EntryStarted)
			test.revoke.Job = "job"
			s.revoke(test.revoke)
			types, end := s.await("job")
			sameTypes(t, types, "submitted", "queued", "claimed", "started", "canceling", "canceled")
			if end.Failures != 0 || end.Crashes != 0 {
				t.Errorf("a cancel counted: %+v", end)
			}
			want := []string{test.revoke.SignalOrDefault()}
			if strings.HasSuffix(test.trap, "-1") {
				want = append(want, "SIGKILL")
			}
			if got := signals.sent(); !slices.Equal(got, want) {
				t.Errorf("signals were %v, want %v", got, want)
			}
			stop()
			s.clean()
		})
	}
}

func TestARevokeDuringAnOutageIsAppliedAfterIt(t *testing.T) {
	patient(t)
	s := newStage(t)
	proxy := bustest.Start(t, s.server.Config())
	stop := s.start(func(cfg *service.Config) { cfg.NATS = proxy.Config() })
	s.offer("job", script("out:before\n", "hang"))
	s.awaitEntry("job", contracts.EntryStarted)
	s.cutOff(proxy)
	s.revoke(contracts.Revoke{Job: "job"})
	proxy.Judge(nil)
	types, _ := s.await("job")
	sameTypes(t, types, "submitted", "queued", "claimed", "started", "canceling", "canceled")
	s.succeeds("other")
	stop()
	s.clean()
}

// cutOff keeps the executor behind a proxy from NATS until the proxy judges
// otherwise. It offers the job other, which makes the executor speak.
func (s *stage) cutOff(proxy *bustest.Proxy) {
	s.t.Helper()
	cut := make(chan struct{})
	var once sync.Once
	proxy.Judge(func(string) bustest.Verdict {
		once.Do(func() { close(cut) })
		return bustest.Cut
	})
	s.offer("other", script("exit:0"))
	<-cut
}

// An engine that is away when a task is revoked gets the signal when it is back.
func TestARevokeWaitsForTheEngine(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.start(nil)
	s.offer("job", script("hang"))
	s.awaitEntry("job", contracts.EntryStarted)
	s.engine.Fail(fake.CallSignal, unavailable, 2)
	s.revoke(contracts.Revoke{Job: "job"})
	types, _ := s.await("job")
	sameTypes(t, types, "submitted", "queued", "claimed", "started", "canceling", "canceled")
}

// An engine that fails at the signals of a revoked task, and answers otherwise, is
// asked again: nothing else would end the container.
func TestARevokeOutlastsAnEngineThatFails(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.start(nil)
	s.offer("job", script("hang"))
	s.awaitEntry("job", contracts.EntryStarted)
	s.engine.Fail(fake.CallSignal, &engine.Error{Op: "signal", Subject: "container x", Kind: engine.ErrFailed}, 3)
	s.revoke(contracts.Revoke{Job: "job"})
	types, _ := s.await("job")
	sameTypes(t, types, "submitted", "queued", "claimed", "started", "canceling", "canceled")
}

func withGirderJob(task *contracts.Task) {
	task.Girder = &contracts.Girder{APIURL: "http://127.0.0.1:1/api/v1", Job: &contracts.GirderJob{Title: "x"}}
}

// gate answers the executors' question whether a job may begin.
func (s *stage) gate(answer func() contracts.GateReply) {
	s.t.Helper()
	stop, err := bus.Answer(s.bus, contracts.JobsGateSubject, func(contracts.GateRequest) contracts.GateReply { return answer() })
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(stop)
}

func TestTheGate(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		reply *contracts.GateReply
		end   contracts.EntryType
		says  string
	}{
		"open":    {&contracts.GateReply{Verdict: contracts.GateOpen}, contracts.EntrySucceeded, ""},
		"revoked": {&contracts.GateReply{Verdict: contracts.GateRevoked, Message: "canceled in Girder"}, contracts.EntryCanceled, ""},
		"refused": {&contracts.GateReply{Verdict: contracts.GateRefused, Message: "girder.job.token: no scope"}, contracts.EntryFailed, ""},
		"absent":  {nil, contracts.EntrySucceeded, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			eng := &recorder{Engine: s.engine}
			stop := s.start(func(cfg *service.Config) { cfg.Engine = eng })
			if test.reply != nil {
				s.gate(func() contracts.GateReply { return *test.reply })
			}
			task := script("exit:0")
			withGirderJob(task)
			s.offer("job", task)
			types, end := s.await("job")
			if end.Type != test.end {
				t.Errorf("ended as %s %+v", end.Type, end.Data)
			}
			switch data := end.Data.(type) {
			case *contracts.Failed:
				if data.Kind != contracts.FailureTask || data.Message != test.reply.Message {
					t.Errorf("failed as %+v", data)
				}
			case *contracts.Canceled:
				if data.By != "girder" || data.Reason != test.reply.Message || !slices.Contains(types, contracts.EntryCanceling) {
					t.Errorf("%v, canceled as %+v", types, data)
				}
			}
			if test.end != contracts.EntrySucceeded && len(eng.made()) != 0 {
				t.Error("a container was created")
			}
			stop()
			s.clean()
		})
	}
}

// A gate that hears and does not answer delays the task, and no more.
func TestASilentGate(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.start(func(cfg *service.Config) { cfg.GatePatience = time.Millisecond })
	listening, err := s.bus.Conn().SubscribeSync(contracts.JobsGateSubject)
	if err != nil {
		t.Fatal(err)
	}
	task := script("exit:0")
	withGirderJob(task)
	s.offer("job", task)
	s.succeeds("job")
	if n, _, err := listening.Pending(); err != nil || n != 1 {
		t.Errorf("the gate was asked %d times, error %v", n, err)
	}
}
