package service_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/contracts/client/leaktest"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
	"github.com/gantry-worker/gantry/services/docker-executor/service"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

func TestMain(m *testing.M) {
	if data := os.Getenv(childConfig); data != "" {
		runChild(data)
	}
	leaktest.Main(m)
}

const (
	// patience is for what must come, on a machine that has much else to do.
	patience = 2 * time.Minute
	// never is longer than any test takes.
	never = 24 * time.Hour
)

// stage is a NATS server, a fake engine, a work folder, and what a dispatcher
// would do. Executors are started on it.
type stage struct {
	t *testing.T
	// ctx ends with the test. It has a deadline, never reached: for a context
	// without one the library sets a deadline of seconds to each request.
	ctx     context.Context
	log     *testLog
	server  *natstest.Server
	bus     *bus.Bus
	engine  *fake.Engine
	root    string
	pipes   []contracts.Pipe // that attempts of dead executors leave
	volumes []string         // of the host, that their tasks bind
}

func newStage(t *testing.T) *stage {
	t.Helper()
	log := &testLog{t: t}
	t.Cleanup(log.end)
	ctx, cancel := context.WithTimeout(t.Context(), never)
	t.Cleanup(cancel)
	server := natstest.Start(t)
	b, err := bus.Open(ctx, server.Config(), "test", "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	for _, lane := range contracts.Lanes {
		if err := b.DeclareConsumer(ctx, contracts.ReadyConsumer(lane, contracts.DefaultQueue, contracts.KindDocker)); err != nil {
			t.Fatal(err)
		}
	}
	root := t.TempDir() // outlives the containers, which may write there
	eng := fake.New()
	t.Cleanup(eng.Close)
	return &stage{t: t, ctx: ctx, log: log, server: server, bus: b, engine: eng, root: root}
}

// testLog writes to the test's log until the test ends. What a connection tells
// of itself may come after its end, and is dropped.
type testLog struct {
	mu sync.Mutex
	t  *testing.T // nil after the end
}

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.t != nil {
		l.t.Log(string(p))
	}
	return len(p), nil
}

func (l *testLog) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.t = nil
}

// config is what an executor on the stage starts with. It is patient when it is
// stopped: a test that leaves attempts to the next start sets no DrainTimeout.
// Nothing is taken over, and a gate or a transfer that is there is waited for,
// unless a test says so.
func (s *stage) config(nats client.Config) service.Config {
	return service.Config{
		NATS: nats, WorkRoot: s.root, Slots: 2, Queues: []contracts.Queue{contracts.DefaultQueue},
		LogLimit: "1m", MaxGrace: never, OrphanGrace: never, TakeoverAfter: never, DrainTimeout: patience, Engine: s.engine,
		GatePatience: never, HoldPatience: never,
	}
}

// leaving makes an executor leave its attempts to the next start as soon as it is
// stopped.
func leaving(cfg *service.Config) { cfg.DrainTimeout = 0 }

// start runs an executor until the returned function is called, which waits for
// its end.
func (s *stage) start(change func(*service.Config)) (stop func()) {
	s.t.Helper()
	cfg := s.config(s.server.Config())
	if change != nil {
		change(&cfg)
	}
	ready := make(chan struct{})
	cfg.OnReady = func() { close(ready) }
	cancel, done := s.run(cfg)
	select {
	case <-ready:
	case <-done:
		s.t.Fatal("the executor ended before it was ready")
	}
	return func() {
		cancel()
		<-done
	}
}

// run runs an executor until it is canceled, or the test ends.
func (s *stage) run(cfg service.Config) (cancel func(), done <-chan struct{}) {
	log := zerolog.New(s.log)
	ctx, cancel := context.WithCancel(log.WithContext(context.Background()))
	ended := make(chan struct{})
	s.t.Cleanup(func() {
		cancel()
		<-ended
	})
	go func() {
		defer close(ended)
		if err := service.Run(ctx, cfg); err != nil && ctx.Err() == nil {
			s.t.Errorf("executor: %v", err)
		}
	}()
	return cancel, ended
}

// offer queues a task as the dispatcher does.
func (s *stage) offer(job contracts.JobID, task *contracts.Task) {
	s.t.Helper()
	s.queue(s.submit(job, task), task, contracts.QueuedSubmit)
}

func (s *stage) submit(job contracts.JobID, task *contracts.Task) *bus.Seen {
	s.t.Helper()
	task.Version, task.ID, task.Name = contracts.Version, job, contracts.TaskDockerRun
	return s.append(job, nil, &contracts.Submitted{Task: task})
}

func (s *stage) append(job contracts.JobID, last *bus.Seen, data contracts.EntryData) *bus.Seen {
	s.t.Helper()
	next, err := s.bus.Append(s.ctx, job, last, data)
	if err != nil {
		s.t.Fatal(err)
	}
	return next
}

func (s *stage) queue(last *bus.Seen, task *contracts.Task, reason contracts.QueuedReason) *bus.Seen {
	s.t.Helper()
	queued := s.append(last.Job, last, &contracts.Queued{
		Lane: task.Lane(), Queue: task.QueueOrDefault(), Kind: task.Kind(), Reason: reason,
	})
	s.ready(queued, task)
	return queued
}

// ready publishes the ready message of a job's present offer.
func (s *stage) ready(last *bus.Seen, task *contracts.Task) {
	s.t.Helper()
	body, err := task.Encode()
	if err != nil {
		s.t.Fatal(err)
	}
	subject := contracts.ReadySubject(task.Lane(), task.QueueOrDefault(), task.Kind(), last.Job, last.Offer)
	if err := s.bus.PublishOnce(s.ctx, subject, body); err != nil {
		s.t.Fatal(err)
	}
}

// script is a task whose container carries out the fake engine's steps.
func script(steps ...string) *contracts.Task {
	docker := &contracts.DockerRun{Image: fake.ScriptImage, Pull: contracts.PullNever}
	for _, step := range steps {
		docker.Args = append(docker.Args, contracts.Arg{Text: step})
	}
	return &contracts.Task{Docker: docker}
}

// awaitEntry returns the first entry of a type in a job's life, waiting for it.
// With EntryFailed that is also one that will be retried.
func (s *stage) awaitEntry(job contracts.JobID, kind contracts.EntryType) *bus.Seen {
	s.t.Helper()
	for msg, err := range s.bus.Messages(s.ctx, contracts.StreamJobs, 1, contracts.LifeSubject(job)) {
		if err != nil {
			s.t.Fatal(err)
		}
		entry, err := contracts.DecodeEntry(msg.Data())
		if err != nil {
			s.t.Fatal(err)
		}
		if entry.Type == kind {
			meta, err := msg.Metadata()
			if err != nil {
				s.t.Fatal(err)
			}
			return &bus.Seen{Entry: entry, Seq: meta.Sequence.Stream}
		}
		if entry.Terminal() {
			s.t.Fatalf("%s ended as %s %+v without %s", job, entry.Type, entry.Data, kind)
		}
	}
	s.t.Fatalf("no %s entry of %s", kind, job)
	return nil
}

// await returns the types of a job's entries up to its end, and the end.
func (s *stage) await(job contracts.JobID) ([]contracts.EntryType, *contracts.Entry) {
	s.t.Helper()
	if _, err := s.bus.Wait(s.ctx, job); err != nil {
		s.t.Fatal(err)
	}
	types, life := s.life(job)
	return types, life[len(life)-1]
}

func (s *stage) life(job contracts.JobID) ([]contracts.EntryType, []*contracts.Entry) {
	s.t.Helper()
	life, err := s.bus.Life(s.ctx, job)
	if err != nil {
		s.t.Fatal(err)
	}
	var types []contracts.EntryType
	for _, entry := range life {
		types = append(types, entry.Type)
	}
	return types, life
}

// succeeds waits for a job's success.
func (s *stage) succeeds(job contracts.JobID) *contracts.Succeeded {
	s.t.Helper()
	types, end := s.await(job)
	succeeded, ok := end.Data.(*contracts.Succeeded)
	if !ok {
		s.t.Fatalf("%s: %v %+v", job, types, end.Data)
	}
	return succeeded
}

// fails waits for a job's failure.
func (s *stage) fails(job contracts.JobID) *contracts.Failed {
	s.t.Helper()
	types, end := s.await(job)
	failed, ok := end.Data.(*contracts.Failed)
	if !ok {
		s.t.Fatalf("%s: %v %+v", job, types, end.Data)
	}
	return failed
}

// output returns what a job's log has for a stream.
func (s *stage) output(job contracts.JobID, stream contracts.LogStream) string {
	s.t.Helper()
	var text []byte
	for _, chunk := range s.chunks(job) {
		if chunk.Stream == stream {
			text = append(text, chunk.Bytes()...)
		}
	}
	return string(text)
}

func (s *stage) chunks(job contracts.JobID) []*contracts.LogChunk {
	s.t.Helper()
	var chunks []*contracts.LogChunk
	for chunk, err := range s.bus.Log(s.ctx, job, false) {
		if err != nil {
			s.t.Fatal(err)
		}
		chunks = append(chunks, chunk)
	}
	return chunks
}

// containers returns how many containers the engine has.
func (s *stage) containers() int {
	s.t.Helper()
	list, err := s.engine.List(s.ctx, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return len(list)
}

// clean checks, after all executors have stopped, that they left nothing.
func (s *stage) clean() {
	s.t.Helper()
	if n := s.containers(); n != 0 {
		s.t.Errorf("%d containers are left", n)
	}
	if left := s.folders(); len(left) != 0 {
		s.t.Errorf("folders are left: %v", left)
	}
	if n := s.messages(contracts.StreamReady); n != 0 {
		s.t.Errorf("%d ready messages are left", n)
	}
}

func (s *stage) folders() []string {
	s.t.Helper()
	left, err := filepath.Glob(filepath.Join(s.root, "attempts", "*"))
	if err != nil {
		s.t.Fatal(err)
	}
	return left
}

func (s *stage) messages(stream string) uint64 {
	s.t.Helper()
	handle, err := s.bus.JetStream().Stream(s.ctx, stream)
	if err != nil {
		s.t.Fatal(err)
	}
	return handle.CachedInfo().State.Msgs
}

func (s *stage) revoke(revoke contracts.Revoke) {
	s.t.Helper()
	revoke.Version, revoke.Terminate = contracts.Version, true
	if err := s.bus.Publish(s.ctx, contracts.RevokeSubject(revoke.Job), "", revoke); err != nil {
		s.t.Fatal(err)
	}
}

func sameTypes(t *testing.T, got []contracts.EntryType, want ...contracts.EntryType) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("life is %v, want %v", got, want)
	}
}

func TestATaskRuns(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	stop := s.start(nil)
	s.offer("job", script("out:hello\n", "exit:0"))
	types, end := s.await("job")
	sameTypes(t, types, "submitted", "queued", "claimed", "started", "succeeded")
	succeeded := end.Data.(*contracts.Succeeded)
	if succeeded.LogSeq != 1 || succeeded.Timings.Started.IsZero() || succeeded.Timings.Ended.Before(succeeded.Timings.Exited) {
		t.Errorf("ended as %+v", succeeded)
	}
	if !succeeded.Timings.StagedIn.IsZero() {
		t.Errorf("inputs came at %v to a task without inputs", succeeded.Timings.StagedIn)
	}
	if got := s.output("job", contracts.LogStdout); got != "hello\n" {
		t.Errorf("log is %q", got)
	}
	stop()
	s.clean()
}

func mustWrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// patient marks a test that waits out a patience of the executor.
func patient(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes long")
	}
	t.Parallel()
}

// removeAndBlock puts a file in a folder's place.
func removeAndBlock(dir string) error {
	if err := os.Remove(dir); err != nil {
		return err
	}
	return os.WriteFile(dir, nil, 0o600)
}
