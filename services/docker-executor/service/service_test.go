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
	"go.uber.org/goleak"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
	"github.com/gantry-worker/gantry/services/docker-executor/service"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

func TestMain(m *testing.M) {
	if data := os.Getenv(childConfig); data != "" {
		runChild(data)
	}
	goleak.VerifyTestMain(m)
}

// stage is a NATS server, a fake engine, a work folder, and what a dispatcher
// would do. Executors are started on it.
type stage struct {
	t       *testing.T
	server  *natstest.Server
	bus     *bus.Bus
	engine  *fake.Engine
	root    string
	pipes   []contracts.Pipe // that attempts of dead executors leave
	volumes []string         // of the host, that their tasks bind
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

// testLog writes to the test's log until the test ends.
type testLog struct {
	mu sync.Mutex
	t  *testing.T
}

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.t.Log(string(p))
	return len(p), nil
}

// config is what an executor on the stage starts with.
func (s *stage) config(nats client.Config) service.Config {
	return service.Config{
		NATS: nats, WorkRoot: s.root, Slots: 2, Queues: []contracts.Queue{contracts.DefaultQueue},
		LogLimit: "1m", MaxGrace: time.Minute, OrphanGrace: 2 * time.Minute, Engine: s.engine,
	}
}

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
	stop = func() {
		cancel()
		<-done
	}
	s.t.Cleanup(stop)
	return stop
}

func (s *stage) run(cfg service.Config) (cancel func(), done <-chan struct{}) {
	log := zerolog.New(&testLog{t: s.t})
	ctx, cancel := context.WithCancel(log.WithContext(context.Background()))
	ended := make(chan struct{})
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
	next, err := s.bus.Append(s.t.Context(), job, last, data)
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
	if err := s.bus.PublishOnce(s.t.Context(), subject, body); err != nil {
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
	for msg, err := range s.bus.Messages(s.t.Context(), contracts.StreamJobs, 1, contracts.LifeSubject(job)) {
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
	if _, err := s.bus.Wait(s.t.Context(), job); err != nil {
		s.t.Fatal(err)
	}
	types, life := s.life(job)
	return types, life[len(life)-1]
}

func (s *stage) life(job contracts.JobID) ([]contracts.EntryType, []*contracts.Entry) {
	s.t.Helper()
	life, err := s.bus.Life(s.t.Context(), job)
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
	for chunk, err := range s.bus.Log(s.t.Context(), job, false) {
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
	list, err := s.engine.List(s.t.Context(), nil)
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
	handle, err := s.bus.JetStream().Stream(s.t.Context(), stream)
	if err != nil {
		s.t.Fatal(err)
	}
	return handle.CachedInfo().State.Msgs
}

func (s *stage) revoke(revoke contracts.Revoke) {
	s.t.Helper()
	revoke.Version, revoke.Terminate = contracts.Version, true
	if err := s.bus.Publish(s.t.Context(), contracts.RevokeSubject(revoke.Job), "", revoke); err != nil {
		s.t.Fatal(err)
	}
}

func sameTypes(t *testing.T, got []contracts.EntryType, want ...contracts.EntryType) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("life is %v, want %v", got, want)
	}
}

func (r *recorder) only(t *testing.T) engine.Spec {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.specs) != 1 {
		t.Fatalf("%d containers were created", len(r.specs))
	}
	return r.specs[0]
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
