package service_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
	"github.com/gantry-worker/gantry/services/docker-executor/service"
)

var unavailable = &engine.Error{Op: "reach", Subject: "the fake engine", Kind: engine.ErrUnavailable}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	stop := s.start(nil)
	for job, test := range map[contracts.JobID]struct {
		step, says string
		code       int
		oom        bool
	}{
		"code":   {"exit:3", "Non-zero exit code from docker container (3).", 3, false},
		"signal": {"die:KILL", "Non-zero exit code from docker container (137). It was ended by SIGKILL. It may have run out of memory: the limit is 16MiB (docker.options.mem_limit).", 137, false},
		"oom":    {"alloc:64", "Non-zero exit code from docker container (137). It ran out of memory: the limit is 16MiB (docker.options.mem_limit).", 137, true},
	} {
		task := script(test.step)
		task.Docker.Options.MemLimit = 16 << 20
		s.offer(job, task)
		failed := s.fails(job)
		if failed.Kind != contracts.FailureTask || failed.Message != test.says || *failed.ExitCode != test.code || failed.OOMKilled != test.oom || failed.WillRetry {
			t.Errorf("%s: failed as %+v", job, failed)
		}
	}
	stop()
	s.clean()
}

func TestAFailureIsRetriedOnRequest(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.start(nil)
	task := script("exit:1")
	task.Retry = &contracts.Retry{MaxFailures: 1}
	s.offer("job", task)
	first := s.awaitEntry("job", contracts.EntryFailed)
	if failed := first.Data.(*contracts.Failed); !failed.WillRetry || first.Failures != 1 {
		t.Errorf("first failure is %+v", failed)
	}
	s.queue(first, task, contracts.QueuedRetry)
	_, end := s.await("job")
	if failed := end.Data.(*contracts.Failed); failed.WillRetry || end.Attempt != 2 || end.Failures != 2 || end.Crashes != 0 {
		t.Errorf("end is %+v %+v", end, failed)
	}
}

func TestAnEngineThatIsAwayBeforeTheStartCostsNothing(t *testing.T) {
	t.Parallel()
	for _, call := range []fake.Call{fake.CallImage, fake.CallCreate} {
		t.Run(string(call), func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			stop := s.start(nil)
			s.engine.Fail(call, unavailable, 1)
			s.offer("job", script("exit:0"))
			types, end := s.await("job")
			sameTypes(t, types, "submitted", "queued", "claimed", "released", "claimed", "started", "succeeded")
			if end.Crashes != 0 || end.Attempt != 2 {
				t.Errorf("end is %+v", end)
			}
			if back := s.awaitEntry("job", contracts.EntryReleased).Data.(*contracts.Released); back.Reason != unavailable.Error() {
				t.Errorf("given back as %+v", back)
			}
			stop()
			s.clean()
		})
	}
}

// An engine that answers and yet creates nothing does not keep an offer going
// round for ever.
func TestAnOfferIsGivenBackFiveTimes(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		before, present int // releases of an earlier offer and of the present one
		want            contracts.EntryType
	}{
		"the fifth time": {0, 4, contracts.EntryReleased},
		"the sixth time": {0, 5, contracts.EntryFailed},
		"a new offer":    {5, 0, contracts.EntryReleased},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			s.engine.Fail(fake.CallCreate, unavailable, 1)
			task := script("exit:0")
			queued := &contracts.Queued{Lane: task.Lane(), Queue: task.QueueOrDefault(), Kind: task.Kind()}
			last := s.append("job", s.submit("job", task), queued)
			giveBack := func(times int) {
				for range times {
					last = s.append("job", last, &contracts.Claimed{Executor: dead})
					last = s.append("job", last, &contracts.Released{Executor: dead})
				}
			}
			if test.before > 0 {
				giveBack(test.before)
				last = s.append("job", last, &contracts.Claimed{Executor: dead})
				last = s.append("job", last, &contracts.Failed{Kind: contracts.FailureInfrastructure, WillRetry: true})
				last = s.append("job", last, queued)
			}
			giveBack(test.present)
			s.ready(last, task)
			_, life := s.life("job")
			crashes := life[len(life)-1].Crashes
			stop := s.start(nil)
			claimed := s.entryAfter("job", len(life))
			end := s.entryAfter("job", len(life)+1)
			stop()
			if claimed.Type != contracts.EntryClaimed || end.Type != test.want || end.Attempt != claimed.Attempt {
				t.Fatalf("%s, then %s %+v", claimed.Type, end.Type, end.Data)
			}
			if failed, ok := end.Data.(*contracts.Failed); ok && (failed.Kind != contracts.FailureInfrastructure || !failed.WillRetry || end.Crashes != crashes+1) {
				t.Errorf("failed as %+v, with %d crashes", failed, end.Crashes)
			}
		})
	}
}

// entryAfter returns the entry of a job's life that follows its first n ones,
// waiting for it.
func (s *stage) entryAfter(job contracts.JobID, n int) *contracts.Entry {
	s.t.Helper()
	for msg, err := range s.bus.Messages(s.ctx, contracts.StreamJobs, 1, contracts.LifeSubject(job)) {
		if err != nil {
			s.t.Fatal(err)
		}
		if n--; n >= 0 {
			continue
		}
		entry, err := contracts.DecodeEntry(msg.Data())
		if err != nil {
			s.t.Fatal(err)
		}
		return entry
	}
	s.t.Fatalf("the life of %s ended early", job)
	return nil
}

// Of a start without an answer nobody knows whether the container ran.
// An engine that is asked again starts nothing twice.
func TestAnEngineThatIsAwayAtTheStartCostsNothing(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	stop := s.start(nil)
	s.engine.Fail(fake.CallStart, unavailable, 2)
	s.offer("job", script("exit:0"))
	types, end := s.await("job")
	sameTypes(t, types, "submitted", "queued", "claimed", "started", "succeeded")
	if end.Crashes != 0 || end.Attempt != 1 {
		t.Errorf("end is %+v", end)
	}
	stop()
	s.clean()
}

func TestACannotStartIsTheTasksFailure(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	stop := s.start(nil)
	s.engine.Fail(fake.CallStart, &engine.Error{Op: "start", Subject: "container x", Kind: engine.ErrCannotStart, Detail: "exec format error"}, 1)
	s.offer("job", script("exit:0"))
	if failed := s.fails("job"); failed.Kind != contracts.FailureTask || !strings.Contains(failed.Message, "exec format error") {
		t.Errorf("failed as %+v", failed)
	}
	stop()
	s.clean()
}

func TestAnEngineLostWhileItRunsIsACrash(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	stop := s.start(nil)
	s.engine.Fail(fake.CallWait, unavailable, 2)
	one := 1
	task := script("hang")
	task.Retry = &contracts.Retry{MaxCrashes: &one}
	s.offer("job", task)
	first := s.awaitEntry("job", contracts.EntryFailed)
	if data := first.Data.(*contracts.Failed); data.Kind != contracts.FailureInfrastructure || !data.WillRetry || first.Crashes != 1 {
		t.Errorf("first end is %+v", data)
	}
	s.queue(first, task, contracts.QueuedRetry)
	_, end := s.await("job")
	if data := end.Data.(*contracts.Failed); data.Kind != contracts.FailureInfrastructure || data.WillRetry || end.Crashes != 2 {
		t.Errorf("end is %+v %+v", end, data)
	}
	stop()
	s.clean()
}

func TestALogIsReadOnWhereTheEngineBrokeOff(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.start(nil)
	s.engine.Fail(fake.CallLogs, unavailable, 1)
	s.offer("job", script("lines:100:10"))
	s.succeeds("job")
	if got := s.output("job", contracts.LogStdout); len(got) != 1000 {
		t.Errorf("the log has %d bytes", len(got))
	}
}

func TestNothingIsClaimedWithoutAnEngine(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.offer("job", script("exit:0"))
	s.engine.Fail(fake.CallPing, unavailable, 2)
	s.start(nil)
	types, _ := s.await("job")
	sameTypes(t, types, "submitted", "queued", "claimed", "started", "succeeded")
}

// A node that cannot write its work folder leaves the work to others, and says
// why it does.
func TestAnUnwritableWorkFolderClaimsNothing(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	mustWrite(t, filepath.Join(s.root, "attempts"), "in the way")
	cancel, done := s.run(s.config(s.server.Config()))
	said := s.awaitNotReady("work folder")
	s.offer("job", script("exit:0"))
	cancel()
	<-done
	if types, _ := s.life("job"); len(types) != 2 {
		t.Errorf("life is %v, although: %s", types, said)
	}
}

// awaitNotReady returns why an executor says that it is not ready.
func (s *stage) awaitNotReady(says string) string {
	s.t.Helper()
	kv, err := s.bus.JetStream().KeyValue(s.ctx, contracts.BucketNodes)
	if err != nil {
		s.t.Fatal(err)
	}
	watch, err := kv.WatchAll(s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	defer watch.Stop() //nolint:errcheck // the test's connection ends
	for update := range watch.Updates() {
		if update != nil && strings.Contains(string(update.Value()), says) {
			return string(update.Value())
		}
	}
	s.t.Fatal("no executor was announced")
	return ""
}

// Volumes that cannot be made are the node's fault and not the task's.
func TestAFullWorkFolderIsInfrastructure(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	stop := s.start(nil)
	s.gate(func() contracts.GateReply {
		volumes := filepath.Join(s.root, "attempts", "job.1", "volumes")
		if err := removeAndBlock(volumes); err != nil {
			t.Error(err)
		}
		return contracts.GateReply{Verdict: contracts.GateOpen}
	})
	task := script("exit:0")
	withGirderJob(task)
	s.offer("job", task)
	failed := s.awaitEntry("job", contracts.EntryFailed)
	data := failed.Data.(*contracts.Failed)
	if data.Kind != contracts.FailureInfrastructure || !data.WillRetry || !strings.Contains(data.Message, "make temporary volume") {
		t.Errorf("failed as %+v", data)
	}
	stop()
	s.clean()
}

func TestConfigurationIsChecked(t *testing.T) {
	t.Parallel()
	bad := service.Config{WorkRoot: "relative", LogLimit: "much", Queues: []contracts.Queue{"No"}, AllowOptions: []string{"priviledged"}, RunOptions: `{"shm":1}`,
		TakeoverAfter: -time.Second, DrainTimeout: -time.Second}
	err := bad.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, word := range []string{"slots", "relative", "much", "No", "priviledged", "orphan-grace", "takeover-after", "drain-timeout", "docker-run-options"} {
		if !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(word)) {
			t.Errorf("%q does not name %s", err, word)
		}
	}
}

// A container that ended with its engine may not have ended by itself.
func TestAnExitWithoutTheEngineIsNoSuccess(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	stop := s.start(func(cfg *service.Config) { cfg.Engine = &shaky{s.engine} })
	s.offer("job", script("exit:0"))
	failed := s.awaitEntry("job", contracts.EntryFailed)
	if data := failed.Data.(*contracts.Failed); data.Kind != contracts.FailureInfrastructure || !strings.Contains(data.Message, "engine stopped") {
		t.Errorf("failed as %+v", data)
	}
	stop()
	s.clean()
}
