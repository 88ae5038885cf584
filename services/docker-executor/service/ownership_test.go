package service_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
	"github.com/gantry-worker/gantry/services/docker-executor/service"
	"github.com/gantry-worker/gantry/services/internal/bus/bustest"
)

// Two executors share a node; one of them is killed, and the other goes on with
// its attempt.
func TestTheOtherExecutorOfTheNodeGoesOn(t *testing.T) {
	patient(t)
	s := newStage(t)
	l := newLife(-1, bustest.Cut)
	s.startMortal(l, &startRecorder{Engine: s.engine})
	s.offer("job", bound(script("out:before\n", "await:/data/go", "out:after\n"), s.root))
	s.awaitEntry("job", contracts.EntryStarted)
	stop := s.start(nil)
	l.kill()
	s.awaitEntry("job", contracts.EntryAdopted)
	mustWrite(t, s.root+"/go", "")
	types, end := s.await("job")
	sameTypes(t, types, "submitted", "queued", "claimed", "started", "adopted", "succeeded")
	if got := s.output("job", contracts.LogStdout); got != "before\nafter\n" || end.Attempt != 1 {
		t.Errorf("attempt %d printed %q", end.Attempt, got)
	}
	stop()
	s.clean()
}

// An executor that is to stop its containers when it may lose them does so, and
// says it when NATS is back.
func TestALostLeaseStopsTheContainer(t *testing.T) {
	patient(t)
	s := newStage(t)
	stop := s.start(func(cfg *service.Config) {
		cfg.OnLostLease, cfg.TakeoverAfter = service.StopContainers, 3*time.Second
	})
	s.offer("job", script("hang"))
	container := s.awaitEntry("job", contracts.EntryStarted).Data.(*contracts.Started).Container
	s.server.Stop()
	if exit, err := s.engine.Wait(s.ctx, container, engine.Run{}); err != nil || exit.Signal != "SIGTERM" {
		t.Errorf("the container ended as %+v, %v", exit, err)
	}
	s.server.Restart()
	failed := s.awaitEntry("job", contracts.EntryFailed)
	if data := failed.Data.(*contracts.Failed); data.Kind != contracts.FailureInfrastructure || !strings.Contains(data.Message, "lost its lease") || failed.Crashes != 1 {
		t.Errorf("failed as %+v", data)
	}
	stop()
	s.clean()
}

// An attempt that took long to come to its start makes sure that it is still its
// job's before the container runs: two never run side by side.
func TestAnAttemptThatWasOvertakenBeforeItsStartDoesNotStart(t *testing.T) {
	patient(t)
	s := newStage(t)
	eng := &startAndRemoveRecorder{startRecorder{Engine: s.engine}, make(chan string, 1)}
	stop := s.start(func(cfg *service.Config) { cfg.Engine = eng })
	reached, release := s.engine.Hang(fake.CallImage)
	s.offer("job", script("exit:0"))
	<-reached
	last := s.append("job", s.awaitEntry("job", contracts.EntryClaimed), &contracts.Claimed{Node: "elsewhere", Executor: "ex-new"})
	s.awaitRenewals(3) // more than ten seconds
	release()
	<-eng.removed
	stop()
	if n := eng.starts.Load(); n != 0 || s.containers() != 0 || len(s.folders()) != 0 {
		t.Errorf("%d containers were started, %d are left, folders %v", n, s.containers(), s.folders())
	}
	s.append("job", last, &contracts.Started{})
}

type startAndRemoveRecorder struct {
	startRecorder
	removed chan string
}

func (r *startAndRemoveRecorder) Remove(ctx context.Context, id string) error {
	err := r.startRecorder.Remove(ctx, id)
	r.removed <- id
	return err
}

// awaitRenewals waits until an executor has renewed its announcement a number of
// times.
func (s *stage) awaitRenewals(n int) {
	s.t.Helper()
	kv, err := s.bus.JetStream().KeyValue(s.ctx, contracts.BucketNodes)
	if err != nil {
		s.t.Fatal(err)
	}
	watch, err := kv.WatchAll(s.ctx, jetstream.UpdatesOnly())
	if err != nil {
		s.t.Fatal(err)
	}
	defer watch.Stop() //nolint:errcheck // the test's connection ends
	for update := range watch.Updates() {
		if update == nil {
			continue
		}
		if n--; n == 0 {
			return
		}
	}
	s.t.Fatal("the watch of the executors ended")
}

// An attempt whose end NATS refuses is not adopted for ever.
func TestAnEndThatCannotBeWrittenIsInfrastructure(t *testing.T) {
	patient(t)
	s := newStage(t)
	jobs, err := s.bus.JetStream().Stream(s.ctx, contracts.StreamJobs)
	if err != nil {
		t.Fatal(err)
	}
	narrow := jobs.CachedInfo().Config
	narrow.MaxMsgSize = 3 << 10
	s.transfers(true, func(step contracts.Step) *contracts.StepResult {
		if _, err := s.bus.JetStream().UpdateStream(s.ctx, narrow); err != nil {
			t.Error(err)
		}
		// There is room for one of them, and not for both.
		return &contracts.StepResult{Outcome: contracts.StepDone, Files: []contracts.GirderSent{{Name: strings.Repeat("x", 2<<10)}}}
	})
	stop := s.start(nil)
	task := script("exit:0")
	task.Outputs = []contracts.Output{upload("a", "item"), upload("b", "item")}
	s.offer("job", task)
	types, life := s.ended("job")
	sameTypes(t, types, "submitted", "queued", "claimed", "started", "pushing", "pushed", "pushed", "failed")
	if data := life[len(life)-1].Data.(*contracts.Failed); data.Kind != contracts.FailureInfrastructure || !strings.Contains(data.Message, "could not write its end") {
		t.Errorf("failed as %+v", data)
	}
	stop()
	s.clean()
}

// Containers that the engine ended when it was restarted did not end by
// themselves; those that it let live on are followed further.
func TestAnEngineIsRestartedWhileNobodyWatches(t *testing.T) {
	t.Parallel()
	for name, live := range map[string]bool{"and ends its containers": false, "and keeps its containers": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			if live {
				s.engine.Keep()
			}
			stop := s.start(func(cfg *service.Config) { leaving(cfg); cfg.AllowBind = []string{s.root} })
			s.offer("job", bound(script("out:before\n", "await:/data/go", "out:after\n"), s.root))
			s.awaitEntry("job", contracts.EntryStarted)
			stop()
			s.engine.Restart()
			mustWrite(t, s.root+"/go", "")
			stop = s.start(nil)
			types, life := s.ended("job")
			if live {
				sameTypes(t, types, "submitted", "queued", "claimed", "started", "adopted", "succeeded")
				if got := s.output("job", contracts.LogStdout); got != "before\nafter\n" {
					t.Errorf("the log is %q", got)
				}
			} else {
				sameTypes(t, types, "submitted", "queued", "claimed", "started", "adopted", "failed")
				if failed := life[len(life)-1]; failed.Crashes != 1 || !strings.Contains(failed.Data.(*contracts.Failed).Message, "engine stopped") {
					t.Errorf("failed as %+v", failed.Data)
				}
			}
			stop()
			s.clean()
		})
	}
}
