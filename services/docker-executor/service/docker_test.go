package service_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/docker"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/enginetest"
	"github.com/gantry-worker/gantry/services/docker-executor/service"
)

// dockerStage is a stage whose executors use the Docker engine.
type dockerStage struct {
	*stage
	docker *docker.Engine
	image  string
}

func newDockerStage(t *testing.T) *dockerStage {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a Docker engine")
	}
	eng, err := docker.New(docker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := eng.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := eng.Ping(t.Context()); err != nil {
		enginetest.Unavailable(t, "no Docker engine: %v", err)
	}
	return &dockerStage{stage: newStage(t), docker: eng, image: enginetest.BuildImage(t, "")}
}

func (s *dockerStage) script(steps ...string) *contracts.Task {
	task := script(steps...)
	task.Docker.Image = s.image
	return task
}

func (s *dockerStage) start() (stop func()) {
	return s.stage.start(func(cfg *service.Config) { cfg.Engine = nil })
}

// left returns the containers of this stage's installation.
func (s *dockerStage) left() []engine.Container {
	s.t.Helper()
	installation, err := s.bus.Installation(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	list, err := s.docker.List(s.t.Context(), map[string]string{"gantry.installation": installation})
	if err != nil {
		s.t.Fatal(err)
	}
	return list
}

func (s *dockerStage) clean() {
	s.t.Helper()
	if left := s.left(); len(left) != 0 {
		s.t.Errorf("containers are left: %+v", left)
	}
	s.stage.clean()
}

func TestDocker(t *testing.T) {
	t.Parallel()
	s := newDockerStage(t)
	stop := s.start()
	s.offer("ok", s.script("out:hello\n", "err:grün\n", "pwd"))
	succeeded := s.succeeds("ok")
	if out, err := s.output("ok", contracts.LogStdout), s.output("ok", contracts.LogStderr); !strings.HasPrefix(out, "hello\n") || err != "grün\n" {
		t.Errorf("log is %q and %q", out, err)
	}
	s.lastSeq("ok", succeeded.LogSeq)

	s.offer("three", s.script("exit:3"))
	if failed := s.fails("three"); failed.Message != "Non-zero exit code from docker container (3)." || failed.Kind != contracts.FailureTask {
		t.Errorf("failed as %+v", failed)
	}
	absent := s.script()
	absent.Docker.Image = "gantry-enginetest:absent"
	s.offer("absent", absent)
	if failed := s.fails("absent"); failed.Kind != contracts.FailureTask || !strings.Contains(failed.Message, absent.Docker.Image) {
		t.Errorf("failed as %+v", failed)
	}
	stop()
	s.clean()
}

func TestDockerStopsARevokedTask(t *testing.T) {
	t.Parallel()
	s := newDockerStage(t)
	stop := s.start()
	s.offer("job", s.script("hang"))
	s.awaitEntry("job", contracts.EntryStarted)
	s.revoke(contracts.Revoke{Job: "job"})
	types, _ := s.await("job")
	sameTypes(t, types, "submitted", "queued", "claimed", "started", "canceling", "canceled")
	stop()
	s.clean()
}

// childConfig is the environment variable that makes the test's program an
// executor, to be killed.
const childConfig = "GANTRY_TEST_EXECUTOR"

type child struct {
	NATS client.Config
	Root string
}

// runChild is the executor that the test's program becomes. It ends by a signal.
func runChild(data string) {
	var c child
	err := json.Unmarshal([]byte(data), &c)
	if err == nil {
		ctx, stop := signal.NotifyContext(zerolog.New(os.Stderr).WithContext(context.Background()), syscall.SIGTERM)
		defer stop()
		err = service.Run(ctx, service.Config{
			NATS: c.NATS, WorkRoot: c.Root, Slots: 1, Queues: []contracts.Queue{contracts.DefaultQueue}, LogLimit: "64m", MaxGrace: time.Minute, OrphanGrace: 2 * time.Minute,
		})
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// startChild starts an executor that can be killed.
func (s *dockerStage) startChild() *exec.Cmd {
	s.t.Helper()
	data, err := json.Marshal(child{NATS: s.server.Config(), Root: s.root})
	if err != nil {
		s.t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	executor := exec.CommandContext(s.t.Context(), program)
	executor.Env = append(os.Environ(), childConfig+"="+string(data))
	executor.Stderr = &testLog{t: s.t}
	if err := executor.Start(); err != nil {
		s.t.Fatal(err)
	}
	return executor
}

// An executor that is killed again and again while its container writes all the
// time: the container goes on, and the log has every byte once.
func TestDockerAfterAnExecutorIsKilled(t *testing.T) {
	t.Parallel()
	s := newDockerStage(t)
	acked, err := s.bus.Conn().SubscribeSync("$JS.ACK." + contracts.StreamReady + ".>")
	if err != nil {
		t.Fatal(err)
	}
	executor := s.startChild()
	const lines, width, kills = 40000, 60, 3
	const program = `i=0; while [ $i -lt 40000 ]; do printf '%059d\n' $i; i=$((i+1)); [ $((i % 100)) -ne 0 ] || sleep 0.01; done; echo end >&2`
	task := s.script(program)
	task.Docker.Entrypoint = contracts.Command{"/bin/sh", "-c"}
	s.offer("job", task)
	container := s.awaitEntry("job", contracts.EntryStarted).Data.(*contracts.Started).Container
	for n := range kills {
		s.awaitLog("job", (n+1)*lines*width/(2*kills))
		if err := executor.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = executor.Wait() // it was killed
		if left := s.left(); len(left) != 1 || left[0].ID != container || left[0].State != engine.Running {
			t.Fatalf("the killed executor left %+v", left)
		}
		executor = s.startChild()
	}
	succeeded := s.succeeds("job")
	_, life := s.life("job")
	for _, entry := range life[3:] {
		if entry.Attempt != 1 || entry.Crashes != 0 {
			t.Errorf("entry %+v", entry)
		}
	}
	var want strings.Builder
	for i := range lines {
		fmt.Fprintf(&want, "%0*d\n", width-1, i)
	}
	if got := s.output("job", contracts.LogStdout); got != want.String() {
		t.Errorf("the log has %d bytes, want %d, or they differ", len(got), want.Len())
	}
	if got := s.output("job", contracts.LogStderr); got != "end\n" {
		t.Errorf("standard error is %q", got)
	}
	s.lastSeq("job", succeeded.LogSeq)
	awaitAck(t, acked) // a message that is not comes again only after its lease
	_ = executor.Process.Kill()
	_ = executor.Wait()
	s.start()()
	s.clean()
}

// An executor that stood still for so long that somebody else took its job over
// removes its container, although its connection never broke, and says nothing.
func TestDockerAfterAnExecutorStoodStill(t *testing.T) {
	patient(t)
	s := newDockerStage(t)
	executor := s.startChild()
	s.offer("job", s.script("hang"))
	started := s.awaitEntry("job", contracts.EntryStarted)
	if err := executor.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s.awaitNobody()
	last := s.append("job", started, &contracts.Claimed{Node: "elsewhere", Executor: "ex-new"})
	if err := executor.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	_, err := s.docker.Wait(t.Context(), started.Data.(*contracts.Started).Container, engine.Run{})
	if err != nil && !errors.Is(err, engine.ErrNotFound) {
		t.Fatal(err)
	}
	if err := errors.Join(executor.Process.Signal(syscall.SIGTERM), ignoreExit(executor.Wait())); err != nil {
		t.Fatal(err)
	}
	if left := s.left(); len(left) != 0 || len(s.folders()) != 0 {
		t.Errorf("containers %+v, folders %v", left, s.folders())
	}
	s.append("job", last, &contracts.Started{})
}

// ignoreExit drops what only says that a program was ended.
func ignoreExit(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	return err
}

// awaitNobody returns when no executor is listed any more.
func (s *stage) awaitNobody() {
	s.t.Helper()
	kv, err := s.bus.JetStream().KeyValue(s.t.Context(), contracts.BucketNodes)
	if err != nil {
		s.t.Fatal(err)
	}
	watch, err := kv.WatchAll(s.t.Context(), jetstream.UpdatesOnly())
	if err != nil {
		s.t.Fatal(err)
	}
	defer watch.Stop() //nolint:errcheck // the test's connection ends
	for update := range watch.Updates() {
		if update != nil && update.Operation() != jetstream.KeyValuePut {
			return
		}
	}
	s.t.Fatal("the watch of the executors ended")
}

// awaitLog returns when that many bytes of a job's log are stored.
func (s *stage) awaitLog(job contracts.JobID, size int) {
	s.t.Helper()
	for chunk, err := range s.bus.Log(s.t.Context(), job, true) {
		if err != nil {
			s.t.Fatal(err)
		}
		if size -= len(chunk.Bytes()); size <= 0 {
			return
		}
	}
}
