package service_test

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/folder"
	"github.com/gantry-worker/gantry/services/docker-executor/service"
)

// lockable is an engine that locks up as soon as it is asked for one call.
type lockable struct {
	*fake.Engine
	at     fake.Call
	once   sync.Once
	unlock chan func() // has what ends the lock-up
}

func (l *lockable) lock(call fake.Call) (locks bool) {
	if call == l.at {
		l.once.Do(func() {
			l.unlock <- l.LockUp()
			locks = true
		})
	}
	return locks
}

func (l *lockable) Create(ctx context.Context, spec engine.Spec) (string, error) {
	l.lock(fake.CallCreate)
	return l.Engine.Create(ctx, spec)
}

func (l *lockable) Start(ctx context.Context, id string) error {
	l.lock(fake.CallStart)
	return l.Engine.Start(ctx, id)
}

func (l *lockable) Run(ctx context.Context) (engine.Run, error) {
	l.lock(fake.CallRun)
	return l.Engine.Run(ctx)
}

func (l *lockable) Remove(ctx context.Context, id string) error {
	l.lock(fake.CallRemove)
	return l.Engine.Remove(ctx, id)
}

// Wait says what it does when a container's state is not told in time.
func (l *lockable) Wait(ctx context.Context, id string, began engine.Run) (engine.Exit, error) {
	if l.lock(fake.CallWait) {
		return engine.Exit{}, &engine.Error{Op: "wait for", Subject: "container x", Kind: engine.ErrSilent}
	}
	return l.Engine.Wait(ctx, id, began)
}

// suspicious makes an executor suspect its engine soon, and be sure of it only
// after more time than a machine takes that has much else to do.
func suspicious(cfg *service.Config) {
	cfg.EngineSuspicion, cfg.EnginePatience = 100*time.Millisecond, 5*time.Second
}

// startLockable runs an executor on an engine that locks up.
func (s *stage) startLockable(at fake.Call) (eng *lockable, stop func()) {
	s.t.Helper()
	eng = &lockable{Engine: s.engine, at: at, unlock: make(chan func(), 1)}
	return eng, s.start(func(cfg *service.Config) {
		suspicious(cfg)
		cfg.Engine = eng
	})
}

const locked = "has locked up or its host is overloaded"

// waits is the phase of an attempt that has begun.
var waits = contracts.Phase{Phase: contracts.PhaseRunning, Waiting: "the container engine " + locked}

// What has not begun is given back, as often as it takes; nothing is claimed
// until the engine answers.
func TestALockedUpEngineDelaysWhatHasNotBegun(t *testing.T) {
	t.Parallel()
	for name, releases := range map[string]int{"the first time": 0, "the sixth time": 5} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			task := script("out:late")
			last := s.append("job", s.submit("job", task), &contracts.Queued{Lane: task.Lane(), Queue: task.QueueOrDefault(), Kind: task.Kind()})
			for range releases {
				last = s.append("job", last, &contracts.Claimed{Executor: dead})
				last = s.append("job", last, &contracts.Released{Executor: dead})
			}
			before, _ := s.life("job")
			s.ready(last, task)
			eng, stop := s.startLockable(fake.CallCreate)
			if said := s.awaitNotReady(locked); !strings.Contains(said, "restart Docker") {
				t.Errorf("not ready: %s", said)
			}
			back := s.entryAfter("job", len(before)+1)
			if released, ok := back.Data.(*contracts.Released); !ok || !strings.Contains(released.Reason, locked) {
				t.Fatalf("%s %+v", back.Type, back.Data)
			}
			s.offer("other", script("exit:0"))
			(<-eng.unlock)()
			types, end := s.await("job")
			sameTypes(t, types, append(before, "claimed", "released", "claimed", "started", "succeeded")...)
			if end.Attempt != releases+2 || end.Crashes != 0 || end.Failures != 0 {
				t.Errorf("end is %+v", end)
			}
			types, end = s.await("other")
			sameTypes(t, types, "submitted", "queued", "claimed", "started", "succeeded")
			if end.Attempt != 1 {
				t.Errorf("end is %+v", end)
			}
			stop()
			s.clean()
		})
	}
}

// What has begun is gone on with, in the same attempt.
func TestALockedUpEngineDelaysWhatHasBegun(t *testing.T) {
	t.Parallel()
	const wantsGPU = "gpu:1"
	for at, offer := range map[fake.Call]func(*stage, *contracts.Task){
		fake.CallStart: func(s *stage, task *contracts.Task) { s.offer("job", task) },
		fake.CallWait:  func(s *stage, task *contracts.Task) { s.offer("job", task) },
		// The first container cannot start, and another one takes its place.
		fake.CallRemove: func(s *stage, task *contracts.Task) {
			s.engine.AddImage(wantsGPU, map[string]string{"com.nvidia.volumes.needed": "nvidia_driver"})
			task.Docker.Image = wantsGPU
			s.offer("job", task)
		},
		// Its former owner was killed while it started the container.
		fake.CallRun: (*stage).diedStarting,
	} {
		t.Run(string(at), func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			task := script("out:late")
			offer(s, task)
			before, _ := s.life("job")
			eng, stop := s.startLockable(at)
			said := s.awaitPhaseBehind("job", 0, waits)
			(<-eng.unlock)()
			s.awaitPhaseBehind("job", said, contracts.Phase{Phase: contracts.PhaseRunning})
			types, end := s.await("job")
			took := contracts.EntryClaimed
			if at == fake.CallRun {
				took = contracts.EntryAdopted
			}
			sameTypes(t, types, append(before, took, "started", "succeeded")...)
			if end.Attempt != 1 || end.Crashes != 0 {
				t.Errorf("end is %+v", end)
			}
			if got := s.output("job", contracts.LogStdout); got != "late" {
				t.Errorf("it printed %q", got)
			}
			stop()
			s.clean()
		})
	}
}

// diedStarting makes what an executor leaves that is killed when it has noted
// that it is about to start the container.
func (s *stage) diedStarting(task *contracts.Task) {
	s.t.Helper()
	s.died("job", task, s.claim())
	id := s.container("job", "out:late")
	run, err := s.engine.Run(s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	f, err := folder.Take(s.root, "job", 1)
	if err != nil {
		s.t.Fatal(err)
	}
	f.ContainerID, f.EngineRun = id, run
	if err := f.Note(); err != nil {
		s.t.Error(err)
	}
	s.letGo(f)
}

// A container that is to be stopped while the engine is locked up is stopped when
// it answers; what ran all the while is not touched.
func TestARevokeOutlastsALockUp(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	host := t.TempDir()
	stop := s.start(func(cfg *service.Config) {
		suspicious(cfg)
		cfg.AllowBind = []string{host}
	})
	s.offer("revoked", script("hang"))
	s.offer("untouched", bound(script("await:/data/go"), host))
	s.awaitEntry("revoked", contracts.EntryStarted)
	s.awaitEntry("untouched", contracts.EntryStarted)
	unlock := s.engine.LockUp()
	s.revoke(contracts.Revoke{Job: "revoked", By: "somebody"})
	s.awaitNotReady(locked)
	unlock()
	types, _ := s.await("revoked")
	sameTypes(t, types, "submitted", "queued", "claimed", "started", "canceling", "canceled")
	mustWrite(t, filepath.Join(host, "go"), "")
	types, _ = s.await("untouched")
	sameTypes(t, types, "submitted", "queued", "claimed", "started", "succeeded")
	stop()
	s.clean()
}
