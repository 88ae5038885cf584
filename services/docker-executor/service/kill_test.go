package service_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
	"github.com/gantry-worker/gantry/services/docker-executor/service"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/internal/bus/bustest"
	"github.com/gantry-worker/gantry/services/internal/fifo"
	"github.com/gantry-worker/gantry/services/internal/volume"
)

// life is that of an executor that is killed at its n-th request to NATS or to
// its engine: from then on nobody hears of it.
type life struct {
	verdict bustest.Verdict // of the last request: never sent, or never answered
	killed  context.Context
	kill    context.CancelFunc

	mu   sync.Mutex
	left int
}

func newLife(requests int, verdict bustest.Verdict) *life {
	l := &life{left: requests, verdict: verdict}
	l.killed, l.kill = context.WithCancel(context.Background())
	return l
}

// request returns what becomes of a request, and of the executor.
func (l *life) request() bustest.Verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.killed.Err() != nil {
		return bustest.Cut
	}
	if l.left--; l.left != 0 {
		return bustest.Pass
	}
	l.kill()
	return l.verdict
}

// Dial connects to NATS, until the executor is killed.
func (l *life) Dial(network, address string) (net.Conn, error) {
	if l.killed.Err() != nil {
		return nil, net.ErrClosed
	}
	return new(net.Dialer).DialContext(l.killed, network, address)
}

// judge lets through what is not about the job, as long as the executor lives.
func (l *life) judge(subject string) bustest.Verdict {
	about := strings.Contains(subject, "job") || strings.HasPrefix(subject, "$JS.ACK."+contracts.StreamReady) ||
		strings.HasPrefix(subject, "$JS.API.STREAM.MSG.GET.")
	if about || l.killed.Err() != nil {
		return l.request()
	}
	return bustest.Pass
}

// mortal is the engine of an executor that is killed.
type mortal struct {
	*startRecorder
	life *life
}

// startRecorder counts the containers that were started.
type startRecorder struct {
	*fake.Engine
	starts atomic.Int32
}

func (r *startRecorder) Start(ctx context.Context, id string) error {
	r.starts.Add(1)
	return r.Engine.Start(ctx, id)
}

func (m *mortal) call(ctx context.Context, f func(context.Context) error) error {
	verdict := m.life.request()
	if verdict == bustest.Cut {
		return unavailable
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(m.life.killed, cancel)()
	if verdict == bustest.LoseAnswer {
		return errors.Join(f(context.WithoutCancel(ctx)), unavailable)
	}
	return f(ctx)
}

func (m *mortal) Create(ctx context.Context, spec engine.Spec) (id string, err error) {
	err = m.call(ctx, func(ctx context.Context) error { id, err = m.Engine.Create(ctx, spec); return err })
	return id, err
}

func (m *mortal) Start(ctx context.Context, id string) error {
	return m.call(ctx, func(ctx context.Context) error { return m.startRecorder.Start(ctx, id) })
}

func (m *mortal) Run(ctx context.Context) (run engine.Run, err error) {
	err = m.call(ctx, func(ctx context.Context) error { run, err = m.Engine.Run(ctx); return err })
	return run, err
}

func (m *mortal) Logs(ctx context.Context, id string, streams engine.Streams, since engine.Position, emit func(engine.Frame) error) (p engine.Position, err error) {
	err = m.call(ctx, func(context.Context) error { return nil })
	if err != nil {
		return since, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(m.life.killed, cancel)()
	return m.Engine.Logs(ctx, id, streams, since, emit)
}

func (m *mortal) Wait(ctx context.Context, id string, began engine.Run) (exit engine.Exit, err error) {
	if err := m.call(ctx, func(context.Context) error { return nil }); err != nil {
		return exit, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(m.life.killed, cancel)()
	return m.Engine.Wait(ctx, id, began)
}

func (m *mortal) Remove(ctx context.Context, id string) error {
	return m.call(ctx, func(ctx context.Context) error { return m.Engine.Remove(ctx, id) })
}

func (m *mortal) List(ctx context.Context, labels map[string]string) (list []engine.Container, err error) {
	err = m.call(ctx, func(ctx context.Context) error { list, err = m.Engine.List(ctx, labels); return err })
	return list, err
}

// startMortal runs an executor until it is killed, or stopped by the returned
// function.
func (s *stage) startMortal(l *life, eng *startRecorder) (stop func()) {
	s.t.Helper()
	proxy := bustest.Start(s.t, s.server.Config())
	proxy.Judge(l.judge)
	cfg := s.config(proxy.Config())
	leaving(&cfg)
	cfg.NATS.Dialer = l
	cfg.AllowBind, cfg.Engine = []string{s.root + ":rw"}, &mortal{eng, l}
	cancel, done := s.run(cfg)
	context.AfterFunc(l.killed, cancel)
	return func() {
		cancel()
		<-done
	}
}

// wholeTask has an input, a progress pipe on a folder of the host, a log on both
// streams, and two outputs. Its container waits for the file go.
func (s *stage) wholeTask() *contracts.Task {
	task := script("out:one\n", "err:two\n", "lines:2000:40", `write:/data/pipe:{"total":2,"current":2}\n`,
		"await:/data/go", "out:three\n", "err:four", "exit:0")
	task.Docker.Volumes = []contracts.Volume{{
		Name: "data", Type: contracts.VolumeBindMount, HostPath: filepath.Join(s.root, "data"), ContainerPath: "/data", Mode: "rw",
	}}
	task.Docker.Args = append(task.Docker.Args,
		girderFile("aa", ""), contracts.Arg{Transform: &contracts.ProgressPipe{Volume: "data", Name: "pipe"}})
	task.Outputs = []contracts.Output{upload("a", "item"), upload("b", "item")}
	return task
}

func wholeLog() (stdout, stderr string) {
	var lines strings.Builder
	lines.WriteString("one\n")
	for i := range 2000 {
		fmt.Fprintf(&lines, "%039d\n", i)
	}
	lines.WriteString("three\n")
	return lines.String(), "two\nfour"
}

// requests is more than an executor makes for a whole task, also on a machine
// that is so slow that it asks some things again.
const requests = 200

// An executor is killed before, or after, each of its requests, and the next one
// goes on: one attempt, one container, every byte of the log and every output
// once, one end, and nothing left.
func TestAnExecutorIsKilledAtEveryRequest(t *testing.T) {
	patient(t)
	killedAtEach(t, killAt)
}

// killedAtEach has a test kill an executor at one request after the other, before
// and after each, until it makes no more.
func killedAtEach(t *testing.T, kill func(t *testing.T, n int, verdict bustest.Verdict) (killed bool)) {
	t.Helper()
	for name, verdict := range map[string]bustest.Verdict{"before": bustest.Cut, "after": bustest.LoseAnswer} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := 0
			for killed := true; killed && n < requests; {
				n++
				t.Run(fmt.Sprintf("request %d", n), func(t *testing.T) {
					killed = false
					killed = kill(t, n, verdict)
				})
			}
			if n < 10 || n == requests {
				t.Errorf("an executor makes %d requests", n-1)
			}
			t.Logf("killed at each of %d requests", n-1)
		})
	}
}

// killAt kills an executor at its n-th request for a task and reports whether it
// made so many.
func killAt(t *testing.T, n int, verdict bustest.Verdict) (killed bool) {
	t.Helper()
	s := newStage(t)
	data := filepath.Join(s.root, "data")
	if err := os.Mkdir(data, 0o777); err != nil {
		t.Fatal(err)
	}
	tr := s.transfers(true, s.bringSendOrHold)
	eng := &startRecorder{Engine: s.engine}
	acked, err := s.bus.Conn().SubscribeSync("$JS.ACK." + contracts.StreamReady + ".>")
	if err != nil {
		t.Fatal(err)
	}
	l := newLife(n, verdict)
	stop := s.startMortal(l, eng)
	s.offer("job", s.wholeTask())
	ended := make(chan struct{})
	t.Cleanup(func() { <-ended })
	go func() {
		defer close(ended)
		s.awaitEntry("job", contracts.EntryStarted)
		mustWrite(t, filepath.Join(data, "go"), "")
		awaitAck(t, acked)
	}()
	select {
	case <-ended: // whatever comes now, the executor has no more to say
	case <-l.killed.Done():
		s.awaitLock()
		if len(s.folders()) == 0 {
			s.giveBackFirst() // else it would come again after its lease
		}
		stop = s.start(func(cfg *service.Config) { cfg.Engine, cfg.AllowBind = eng, []string{s.root + ":rw"} })
	}
	<-ended
	types, life := s.life("job")
	for _, kind := range []contracts.EntryType{"claimed", "started", "pushing", "succeeded"} {
		if count(types, kind) != 1 {
			t.Errorf("life is %v", types)
		}
	}
	end := life[len(life)-1]
	succeeded, ok := end.Data.(*contracts.Succeeded)
	if !ok || end.Attempt != 1 || end.Crashes != 0 || len(succeeded.Outputs) != 2 {
		t.Fatalf("ended as %+v %+v after %v", end, end.Data, types)
	}
	stdout, stderr := wholeLog()
	if out, err := s.output("job", contracts.LogStdout), s.output("job", contracts.LogStderr); out != stdout || err != stderr {
		t.Errorf("the log has %d and %d bytes, want %d and %d, or they differ", len(out), len(err), len(stdout), len(stderr))
	}
	s.lastSeq("job", succeeded.LogSeq)
	if n := eng.starts.Load(); n != 1 {
		t.Errorf("%d containers were started", n)
	}
	done := map[string]int{}
	for _, step := range tr.asked() {
		if done[step.Step]++; done[step.Step] > 1 {
			t.Errorf("step %s was done %d times", step.Step, done[step.Step])
		}
	}
	stop()
	s.clean()
	isGone(t, filepath.Join(data, "pipe"))
	return l.killed.Err() != nil
}

// bringSendOrHold holds pipes until the test ends.
func (s *stage) bringSendOrHold(step contracts.Step) *contracts.StepResult {
	if step.Kind != contracts.StepHold {
		return bringOrSend(step)
	}
	for _, p := range step.Pipes {
		held, err := fifo.Hold(volume.Volume{Host: p.Volume}, p.Name, p.End)
		if err != nil {
			return &contracts.StepResult{Outcome: contracts.StepInfrastructure, Message: err.Error()}
		}
		s.t.Cleanup(func() { _ = held.Close() }) // nothing was written
	}
	return &contracts.StepResult{Outcome: contracts.StepDone}
}

// giveBackFirst has the stage's first ready message come again at once, if it is
// still there.
func (s *stage) giveBackFirst() {
	s.t.Helper()
	consumer := contracts.ReadyConsumer(contracts.LaneNormal, contracts.DefaultQueue, contracts.KindDocker)
	reply := fmt.Sprintf("$JS.ACK.%s.%s.1.1.1.0.0", consumer.Stream, consumer.Durable)
	if err := s.bus.GiveBack(&bus.Message{Reply: reply}, 0); err != nil {
		s.t.Fatal(err)
	}
}

// awaitAck returns when a ready message is acknowledged for good.
func awaitAck(t *testing.T, acks *nats.Subscription) {
	t.Helper()
	for {
		msg, err := acks.NextMsgWithContext(t.Context())
		if err != nil {
			t.Error(err)
			return
		}
		if string(msg.Data) == "+ACK" {
			return
		}
	}
}

func count[T comparable](all []T, one T) (n int) {
	for _, each := range all {
		if each == one {
			n++
		}
	}
	return n
}

// awaitLock returns when nobody holds the lock of the job's first attempt.
func (s *stage) awaitLock() {
	s.t.Helper()
	lock, err := os.Open(filepath.Join(s.root, "attempts", "job.1", "lock"))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		err = errors.Join(unix.Flock(int(lock.Fd()), unix.LOCK_EX), lock.Close())
	}
	if err != nil {
		s.t.Fatal(err)
	}
}
