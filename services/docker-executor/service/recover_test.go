package service_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/folder"
	"github.com/gantry-worker/gantry/services/docker-executor/service"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/internal/node"
)

// dead is the executor that died.
const dead contracts.ExecutorID = "ex-dead"

// claim is the claim of the dead executor.
func (s *stage) claim() *contracts.Claimed { return &contracts.Claimed{Node: s.node(), Executor: dead} }

func (s *stage) node() contracts.NodeID {
	s.t.Helper()
	id, err := node.Open(s.root)
	if err != nil {
		s.t.Fatal(err)
	}
	return id
}

// died makes what an executor leaves that is killed during its first attempt at
// a job: the ready message taken, the folder with its lock free, and the life up
// to the given entries.
func (s *stage) died(job contracts.JobID, task *contracts.Task, then ...contracts.EntryData) (last *bus.Seen) {
	s.t.Helper()
	last = s.queue(s.submit(job, task), task, contracts.QueuedSubmit)
	var volumes []folder.Volume
	for _, host := range s.volumes {
		volumes = append(volumes, folder.Volume{
			Name: "data", Host: host, Container: "/data", ReadOnly: true, Fields: []string{"docker.volumes[0]"}, Asked: host,
		})
	}
	s.abandon(folder.About{
		Job: job, Attempt: 1, Executor: dead, Reply: s.take().Reply(), Container: "gantry-" + string(job) + "-1", Pipes: s.pipes,
		Volumes: append(volumes, folder.Volume{Host: s.t.TempDir(), Container: "/mnt/x"}),
	})
	for _, data := range then {
		last = s.append(job, last, data)
	}
	return last
}

// take takes a ready message.
func (s *stage) take() jetstream.Msg {
	s.t.Helper()
	declared := contracts.ReadyConsumer(contracts.LaneNormal, contracts.DefaultQueue, contracts.KindDocker)
	consumer, err := s.bus.JetStream().Consumer(s.ctx, declared.Stream, declared.Durable)
	if err != nil {
		s.t.Fatal(err)
	}
	msg, err := consumer.Next(jetstream.FetchContext(s.ctx))
	if err != nil {
		s.t.Fatal(err)
	}
	return msg
}

// container makes the container of a job's first attempt.
func (s *stage) container(job contracts.JobID, steps ...string) (id string) {
	s.t.Helper()
	installation, err := s.bus.Installation(s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	id, err = s.engine.Create(s.ctx, engine.Spec{
		Name: "gantry-" + string(job) + "-1", Image: fake.ScriptImage, Args: steps,
		Labels: map[string]string{
			"gantry.installation": installation, "gantry.node": string(s.node()), "gantry.job": string(job), "gantry.attempt": "1",
		},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return id
}

// running makes that container and starts it.
func (s *stage) running(job contracts.JobID, steps ...string) (id string) {
	s.t.Helper()
	id = s.container(job, steps...)
	if err := s.engine.Start(s.ctx, id); err != nil {
		s.t.Fatal(err)
	}
	return id
}

// exited makes that container and returns when it has ended.
func (s *stage) exited(job contracts.JobID, steps ...string) {
	s.t.Helper()
	if _, err := s.engine.Wait(s.ctx, s.running(job, steps...), engine.Run{}); err != nil {
		s.t.Fatal(err)
	}
}

// A folder whose claim was never won, or was given back, ends nothing: the job
// runs.
func TestAFolderWithoutAClaimIsOnlyRemoved(t *testing.T) {
	t.Parallel()
	for name, released := range map[string]bool{"before the claim": false, "after the release": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			task, then := script("exit:0"), []contracts.EntryData(nil)
			if released {
				then = []contracts.EntryData{s.claim(), &contracts.Released{Executor: dead}}
			}
			last := s.died("job", task, then...)
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
	if err := s.bus.GiveBack(&bus.Message{Reply: s.about(job).Reply}, 0); err != nil {
		s.t.Fatal(err)
	}
}

// The attempt of a folder may have been won by another node, or the job may have
// gone on: the message is left to them, and so is a container of theirs.
func TestWhatBelongsToOthersIsLeftToThem(t *testing.T) {
	t.Parallel()
	elsewhere := &contracts.Claimed{Node: "b", Executor: "ex-b"}
	for name, newer := range map[string]bool{"a claim that another one won": false, "a newer attempt": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			then := []contracts.EntryData{elsewhere}
			if newer {
				then = []contracts.EntryData{s.claim(), elsewhere}
			}
			last := s.died("job", script("exit:0"), then...)
			s.running("job", "hang")
			removed := &removeRecorder{Engine: s.engine, removed: make(chan string, 1)}
			stop := s.start(func(cfg *service.Config) { cfg.Engine = removed })
			<-removed.removed
			stop()
			if types, _ := s.life("job"); len(types) != 2+len(then) {
				t.Errorf("life is %v", types)
			}
			if n := s.messages(contracts.StreamReady); n != 1 || len(s.folders()) != 0 || s.containers() != 0 {
				t.Errorf("%d ready messages, folders %v, %d containers", n, s.folders(), s.containers())
			}
			s.append("job", last, &contracts.Started{})
		})
	}
}

// An executor that was started with another NATS finds attempts of which that one
// knows nothing, and whose containers run: the right NATS has them gone on with.
func TestAnotherInstallationsAttemptIsLeftAlone(t *testing.T) {
	t.Parallel()
	theirs, other := newStage(t), newStage(t)
	stop := theirs.start(leaving)
	theirs.offer("job", script("hang"))
	theirs.awaitEntry("job", contracts.EntryStarted)
	stop()
	kept := filepath.Join(theirs.root, "attempts", "job.1", "volumes", "kept")
	mustWrite(t, kept, "")

	stop = other.start(func(cfg *service.Config) { cfg.WorkRoot, cfg.Engine = theirs.root, theirs.engine })
	other.offer("another", script("exit:0"))
	other.succeeds("another")
	stop()
	if _, err := os.Stat(kept); err != nil {
		t.Fatalf("an attempt of which NATS knows nothing: %v", err)
	}

	stop = theirs.start(nil)
	theirs.awaitEntry("job", contracts.EntryAdopted)
	theirs.revoke(contracts.Revoke{Job: "job"})
	types, _ := theirs.await("job")
	sameTypes(t, types, "submitted", "queued", "claimed", "started", "adopted", "canceling", "canceled")
	stop()
	theirs.clean()
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

// abandon makes a folder whose lock is free.
func (s *stage) abandon(about folder.About) {
	s.t.Helper()
	f, err := folder.Create(s.root, about)
	if err != nil {
		s.t.Fatal(err)
	}
	s.letGo(f)
}

// letGo gives the lock of a folder back, for good: a program that another test
// starts right now would keep it until it runs.
func (s *stage) letGo(f *folder.Folder) {
	s.t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := f.Close(); err != nil {
		s.t.Fatal(err)
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	t.Run("gives back what does not run yet", func(t *testing.T) {
		t.Parallel()
		s := newStage(t)
		s.engine.AddRemote("remote:1", nil)
		stop := s.start(func(cfg *service.Config) { cfg.DrainTimeout = never })
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
		cfg.AllowBind = []string{s.root}
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
	t.Run("leaves what takes too long", func(t *testing.T) {
		t.Parallel()
		s := newStage(t)
		stop := s.start(func(cfg *service.Config) { leaving(cfg); cfg.AllowBind = []string{s.root} })
		s.offer("job", bound(script("out:before\n", "await:/data/go", "out:after\n"), s.root))
		container := s.awaitEntry("job", contracts.EntryStarted).Data.(*contracts.Started).Container
		stop()
		types, _ := s.life("job")
		sameTypes(t, types, "submitted", "queued", "claimed", "started")
		stop = s.start(nil) // which would not allow the task's volume
		s.awaitEntry("job", contracts.EntryAdopted)
		mustWrite(t, filepath.Join(s.root, "go"), "")
		types, end := s.await("job")
		sameTypes(t, types, "submitted", "queued", "claimed", "started", "adopted", "succeeded")
		if end.Attempt != 1 || end.Crashes != 0 {
			t.Errorf("ended as %+v", end)
		}
		if got := s.output("job", contracts.LogStdout); got != "before\nafter\n" {
			t.Errorf("container %s printed %q", container, got)
		}
		stop()
		s.clean()
	})
	t.Run("ends without NATS", func(t *testing.T) {
		patient(t)
		s := newStage(t)
		stop := s.start(leaving)
		s.offer("job", script("trap:TERM:0", "hang"))
		s.awaitEntry("job", contracts.EntryStarted)
		s.server.Stop()
		stop()
		s.server.Restart()
		stop = s.start(nil)
		s.awaitEntry("job", contracts.EntryAdopted)
		s.revoke(contracts.Revoke{Job: "job"})
		types, _ := s.await("job")
		sameTypes(t, types, "submitted", "queued", "claimed", "started", "adopted", "canceling", "canceled")
		stop()
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
