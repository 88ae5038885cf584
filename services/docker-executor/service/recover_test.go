package service_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/folder"
	"github.com/gantry-worker/gantry/services/docker-executor/service"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// dead is the executor that died.
const dead contracts.ExecutorID = "ex-dead"

// died makes what an executor leaves that is killed during its first attempt at
// a job: the ready message taken, the folder with its lock free, and the life up
// to the given entries.
func (s *stage) died(job contracts.JobID, task *contracts.Task, then ...contracts.EntryData) (last *bus.Seen) {
	s.t.Helper()
	last = s.queue(s.submit(job, task), task, contracts.QueuedSubmit)
	s.abandon(folder.About{Job: job, Attempt: 1, Executor: dead, Reply: s.take().Reply(), Container: "gantry-" + string(job) + "-1", Pipes: s.pipes})
	for _, data := range then {
		last = s.append(job, last, data)
	}
	return last
}

// take takes a ready message.
func (s *stage) take() jetstream.Msg {
	s.t.Helper()
	declared := contracts.ReadyConsumer(contracts.LaneNormal, contracts.DefaultQueue, contracts.KindDocker)
	consumer, err := s.bus.JetStream().Consumer(s.t.Context(), declared.Stream, declared.Durable)
	if err != nil {
		s.t.Fatal(err)
	}
	msg, err := consumer.Next(jetstream.FetchContext(s.t.Context()))
	if err != nil {
		s.t.Fatal(err)
	}
	return msg
}

// container makes the container of an attempt, and starts it.
func (s *stage) container(job contracts.JobID, start bool) {
	s.t.Helper()
	installation, err := s.bus.Installation(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	id, err := s.engine.Create(s.t.Context(), engine.Spec{
		Name: "gantry-" + string(job) + "-1", Image: fake.ScriptImage, Args: []string{"hang"},
		Labels: map[string]string{"gantry.installation": installation, "gantry.job": string(job), "gantry.attempt": "1"},
	})
	if err == nil && start {
		err = s.engine.Start(s.t.Context(), id)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func TestTheNextStartEndsWhatAKilledExecutorLeft(t *testing.T) {
	t.Parallel()
	claim := &contracts.Claimed{Node: "n", Executor: dead}
	start := &contracts.Started{Container: "x"}
	for name, test := range map[string]struct {
		leave func(*stage, *contracts.Task)
		end   contracts.EntryType
		crash bool
	}{
		"after the claim": {func(s *stage, task *contracts.Task) { s.died("job", task, claim) }, contracts.EntryFailed, true},
		"after the container was created": {func(s *stage, task *contracts.Task) {
			s.died("job", task, claim)
			s.container("job", false)
		}, contracts.EntryFailed, true},
		"while it ran": {func(s *stage, task *contracts.Task) {
			s.died("job", task, claim, start)
			s.container("job", true)
		}, contracts.EntryFailed, true},
		"while it pushed": {func(s *stage, task *contracts.Task) {
			s.died("job", task, claim, start, &contracts.Pushing{}, &contracts.Pushed{})
			s.container("job", false)
		}, contracts.EntryFailed, true},
		"while it canceled": {func(s *stage, task *contracts.Task) {
			s.died("job", task, claim, start, &contracts.Canceling{By: "somebody"})
			s.container("job", true)
		}, contracts.EntryCanceled, false},
		"after the end": {func(s *stage, task *contracts.Task) {
			s.died("job", task, claim, start, &contracts.Succeeded{})
			s.container("job", false)
		}, contracts.EntrySucceeded, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			test.leave(s, script("exit:0"))
			s.start(nil)()
			_, life := s.life("job")
			end := life[len(life)-1]
			if end.Type != test.end || end.Attempt != 1 || (end.Crashes == 1) != test.crash {
				t.Errorf("ended as %+v %+v", end, end.Data)
			}
			if failed, ok := end.Data.(*contracts.Failed); ok && (failed.Kind != contracts.FailureInfrastructure || !failed.WillRetry) {
				t.Errorf("failed as %+v", failed)
			}
			s.clean()
		})
	}
}

// A folder whose claim was never won, or was given back, ends nothing: the job
// runs.
func TestAFolderWithoutAClaimIsOnlyRemoved(t *testing.T) {
	t.Parallel()
	for name, then := range map[string][]contracts.EntryData{
		"before the claim":  nil,
		"after the release": {&contracts.Claimed{Executor: dead}, &contracts.Released{Executor: dead}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			last := s.died("job", script("exit:0"), then...)
			s.nak(last.Job)
			stop := s.start(nil)
			if end := s.succeeds("job"); end.ExitCode != 0 {
				t.Errorf("ended as %+v", end)
			}
			if _, life := s.life("job"); life[len(life)-1].Crashes != 0 {
				t.Error("a crash was counted")
			}
			stop()
			s.clean()
		})
	}
}

// nak has the ready message of a job's folder come again at once.
func (s *stage) nak(job contracts.JobID) {
	s.t.Helper()
	f, err := folder.Take(s.root, job, 1)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.bus.GiveBack(&bus.Message{Reply: f.Reply}, 0); err != nil {
		s.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		s.t.Fatal(err)
	}
}

// The attempt of a folder may have been won by another executor, or the job
// may have gone on: both are left alone, with their message.
func TestWhatBelongsToOthersIsLeftToThem(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		then      []contracts.EntryData
		container bool // the container is the dead executor's
	}{
		"a claim that another one won": {[]contracts.EntryData{&contracts.Claimed{Node: "b", Executor: "ex-b"}}, false},
		"a newer attempt":              {[]contracts.EntryData{&contracts.Claimed{Executor: dead}, &contracts.Claimed{Node: "b", Executor: "ex-b"}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			last := s.died("job", script("exit:0"), test.then...)
			s.container("job", true)
			s.start(nil)()
			if types, _ := s.life("job"); len(types) != 2+len(test.then) {
				t.Errorf("life is %v", types)
			}
			if n := s.messages(contracts.StreamReady); n != 1 {
				t.Errorf("%d ready messages are there", n)
			}
			if len(s.folders()) != 0 || (s.containers() == 0) != test.container {
				t.Errorf("folders %v, %d containers", s.folders(), s.containers())
			}
			s.append("job", last, &contracts.Started{})
		})
	}
}

func TestHalfAFolderIsRemoved(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	for _, dir := range []string{"attempts/half.1/steps", "attempts/empty.1"} {
		if err := os.MkdirAll(filepath.Join(s.root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s.start(nil)()
	s.clean()
}

// A folder that an executor cannot be sure about keeps none of the others from
// being ended, and is tried again.
func TestOneFolderDoesNotHoldUpTheOthers(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	claim := &contracts.Claimed{Executor: dead}
	for _, job := range []contracts.JobID{"a", "b", "c"} {
		s.died(job, script("exit:0"), claim)
	}
	s.engine.Fail(fake.CallList, unavailable, 1)
	s.start(nil)()
	for _, job := range []contracts.JobID{"a", "b", "c"} {
		types, _ := s.life(job)
		sameTypes(t, types, "submitted", "queued", "claimed", "failed")
	}
	s.clean()
}

func TestTheFolderOfALivingExecutorIsLeftAlone(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	stop := s.start(nil)
	s.offer("job", script("hang"))
	s.awaitEntry("job", contracts.EntryStarted)
	s.start(nil)() // comes and goes
	types, _ := s.life("job")
	sameTypes(t, types, "submitted", "queued", "claimed", "started")
	s.revoke(contracts.Revoke{Job: "job"})
	s.await("job")
	stop()
	s.clean()
}

// The other executor of the node finds a dead one's folder when the ready
// message comes again.
func TestARivalOnTheNodeEndsADeadOnesAttempt(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	stop := s.start(nil)
	if _, err := s.bus.Conn().Subscribe("acks.job", func(msg *nats.Msg) { _ = msg.Respond(nil) }); err != nil {
		t.Fatal(err)
	}
	s.abandon(folder.About{Job: "job", Attempt: 1, Executor: dead, Reply: "acks.job"})
	s.claimed("job", script("exit:0"), dead, &contracts.Started{})
	failed := s.awaitEntry("job", contracts.EntryFailed)
	if data := failed.Data.(*contracts.Failed); data.Kind != contracts.FailureInfrastructure || !strings.Contains(data.Message, "its executor ended") {
		t.Errorf("failed as %+v", data)
	}
	stop()
	s.clean()
}

// abandon makes a folder whose lock is free.
func (s *stage) abandon(about folder.About) {
	s.t.Helper()
	f, err := folder.Create(s.root, about)
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	t.Run("gives back what does not run yet", func(t *testing.T) {
		t.Parallel()
		s := newStage(t)
		s.engine.AddRemote("remote:1", nil)
		stop := s.start(func(cfg *service.Config) { cfg.DrainTimeout = 1 << 40 })
		reached, release := s.engine.Hang(fake.CallPull)
		defer release()
		task := script("exit:0")
		task.Docker.Image, task.Docker.Pull = "remote:1", contracts.PullAlways
		s.offer("job", task)
		<-reached
		stop()
		types, _ := s.life("job")
		sameTypes(t, types, "submitted", "queued", "claimed", "released")
		if s.containers() != 0 || len(s.folders()) != 0 {
			t.Errorf("%d containers, folders %v", s.containers(), s.folders())
		}
		stop = s.start(nil)
		types, end := s.await("job")
		sameTypes(t, types, "submitted", "queued", "claimed", "released", "claimed", "started", "succeeded")
		if end.Crashes != 0 {
			t.Error("a crash was counted")
		}
		stop()
		s.clean()
	})
	t.Run("waits for what runs", func(t *testing.T) {
		t.Parallel()
		s := newStage(t)
		cfg := s.config(s.server.Config())
		cfg.DrainTimeout, cfg.AllowBind = 1<<40, []string{s.root}
		cancel, done := s.run(cfg)
		task := script("await:/data/go", "out:end")
		task.Docker.Volumes = []contracts.Volume{{Name: "data", Type: contracts.VolumeBindMount, HostPath: s.root, ContainerPath: "/data", Mode: "ro"}}
		s.offer("job", task)
		s.awaitEntry("job", contracts.EntryStarted)
		cancel()
		mustWrite(t, filepath.Join(s.root, "go"), "")
		s.succeeds("job")
		<-done
		s.clean()
	})
	t.Run("stops what takes too long", func(t *testing.T) {
		t.Parallel()
		s := newStage(t)
		stop := s.start(func(cfg *service.Config) { cfg.DrainTimeout = 1 })
		s.offer("job", script("hang"))
		s.awaitEntry("job", contracts.EntryStarted)
		stop()
		types, life := s.life("job")
		sameTypes(t, types, "submitted", "queued", "claimed", "started", "failed")
		if failed := life[4].Data.(*contracts.Failed); failed.Kind != contracts.FailureInfrastructure || !failed.WillRetry {
			t.Errorf("failed as %+v", failed)
		}
		s.clean()
	})
	t.Run("ends without NATS", func(t *testing.T) {
		patient(t)
		s := newStage(t)
		stop := s.start(func(cfg *service.Config) { cfg.DrainTimeout, cfg.MaxGrace = 1, 1 })
		s.offer("job", script("hang"))
		s.awaitEntry("job", contracts.EntryStarted)
		s.server.Stop()
		stop()
		s.server.Restart()
		s.start(nil)()
		types, _ := s.life("job")
		sameTypes(t, types, "submitted", "queued", "claimed", "started", "failed")
		s.clean()
	})
}

func TestARestartOfNATSIsSurvived(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	stop := s.start(func(cfg *service.Config) { cfg.AllowBind = []string{s.root} })
	task := script("lines:1000:50", "await:/data/go", "lines:1000:50", "out:end")
	task.Docker.Volumes = []contracts.Volume{{Name: "data", Type: contracts.VolumeBindMount, HostPath: s.root, ContainerPath: "/data", Mode: "ro"}}
	s.offer("job", task)
	s.awaitEntry("job", contracts.EntryStarted)
	s.server.Stop()
	mustWrite(t, filepath.Join(s.root, "go"), "")
	s.server.Restart()
	succeeded := s.succeeds("job")
	text := s.output("job", contracts.LogStdout)
	if len(text) != 100003 || !slices.Equal(strings.Fields(text[:50000]), strings.Fields(text[50000:100000])) {
		t.Errorf("the log has %d bytes", len(text))
	}
	s.lastSeq("job", succeeded.LogSeq)
	s.each(3)
	stop()
	s.clean()
}
