package service_test

import (
	"context"
	"testing"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
	"github.com/gantry-worker/gantry/services/docker-executor/service"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// stage is a NATS server, an executor on a fake engine, and what a dispatcher
// would do.
type stage struct {
	t      *testing.T
	server *natstest.Server
	bus    *bus.Bus
	engine *fake.Engine
	root   string
}

func newStage(t *testing.T) *stage {
	t.Helper()
	server := natstest.Start(t)
	b, err := bus.Open(t.Context(), server.Config(), "test", "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	for _, lane := range contracts.Lanes {
		if err := b.DeclareConsumer(t.Context(), contracts.ReadyConsumer(lane, contracts.DefaultQueue, contracts.KindDocker)); err != nil {
			t.Fatal(err)
		}
	}
	eng := fake.New()
	t.Cleanup(eng.Close)
	return &stage{t: t, server: server, bus: b, engine: eng, root: t.TempDir()}
}

// start runs an executor until the returned function is called.
func (s *stage) start(change func(*service.Config)) (stop func()) {
	s.t.Helper()
	ready := make(chan struct{})
	cfg := service.Config{
		NATS: s.server.Config(), WorkRoot: s.root, Slots: 2, Queues: []contracts.Queue{contracts.DefaultQueue},
		LogLimit: "1m", MaxGrace: 60e9, Engine: s.engine, OnReady: func() { close(ready) },
	}
	if change != nil {
		change(&cfg)
	}
	log := zerolog.New(zerolog.NewTestWriter(s.t))
	ctx, cancel := context.WithCancel(log.WithContext(context.Background()))
	done := make(chan error, 1)
	go func() { done <- service.Run(ctx, cfg) }()
	select {
	case <-ready:
	case err := <-done:
		s.t.Fatalf("executor ended: %v", err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		<-done
	}
	s.t.Cleanup(stop)
	return stop
}

// offer queues a task as the dispatcher does.
func (s *stage) offer(job contracts.JobID, task *contracts.Task) {
	s.t.Helper()
	task.Version, task.ID, task.Name = contracts.Version, job, contracts.TaskDockerRun
	last, err := s.bus.Append(s.t.Context(), job, nil, &contracts.Submitted{Task: task})
	if err != nil {
		s.t.Fatal(err)
	}
	s.requeue(last, task)
}

func (s *stage) requeue(last *bus.Seen, task *contracts.Task) {
	s.t.Helper()
	queued, err := s.bus.Append(s.t.Context(), last.Job, last, &contracts.Queued{
		Lane: task.Lane(), Queue: task.QueueOrDefault(), Kind: task.Kind(), Reason: contracts.QueuedSubmit,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	body, err := task.Encode()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.bus.PublishOnce(s.t.Context(), contracts.ReadySubject(task.Lane(), task.QueueOrDefault(), task.Kind(), last.Job, queued.Offer), body); err != nil {
		s.t.Fatal(err)
	}
}

func script(steps ...string) *contracts.Task {
	docker := &contracts.DockerRun{Image: fake.ScriptImage, Pull: contracts.PullNever}
	for _, step := range steps {
		docker.Args = append(docker.Args, contracts.Arg{Text: step})
	}
	return &contracts.Task{Docker: docker}
}

// await returns the types of a job's entries up to its end, and the end.
func (s *stage) await(job contracts.JobID) ([]contracts.EntryType, *contracts.Entry) {
	s.t.Helper()
	if _, err := s.bus.Wait(s.t.Context(), job); err != nil {
		s.t.Fatal(err)
	}
	life, err := s.bus.Life(s.t.Context(), job)
	if err != nil {
		s.t.Fatal(err)
	}
	var types []contracts.EntryType
	for _, entry := range life {
		types = append(types, entry.Type)
	}
	return types, life[len(life)-1]
}

func TestATaskRuns(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.start(nil)
	s.offer("job", script("out:hello", "exit:0"))
	types, end := s.await("job")
	t.Log(types, end.Data)
	if end.Type != contracts.EntrySucceeded {
		t.Errorf("ended as %+v", end.Data)
	}
}
