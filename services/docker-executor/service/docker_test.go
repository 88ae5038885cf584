package service_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

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
	s := &dockerStage{stage: newStage(t), docker: eng, image: enginetest.BuildImage(t, "")}
	t.Cleanup(s.removeLeft)
	return s
}

// removeLeft removes what a test that failed left on the engine, which is
// everybody's.
func (s *dockerStage) removeLeft() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), patience)
	defer cancel()
	installation, err := s.bus.Installation(ctx)
	if err != nil {
		s.t.Error(err)
		return
	}
	list, err := s.docker.List(ctx, map[string]string{"gantry.installation": installation})
	for i := range list {
		err = errors.Join(err, s.docker.Remove(ctx, list[i].ID))
	}
	if err != nil {
		s.t.Error(err)
	}
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
	installation, err := s.bus.Installation(s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	list, err := s.docker.List(s.ctx, map[string]string{"gantry.installation": installation})
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
	// An engine that has too much to do at first may have the job claimed again.
	sameTypes(t, types[max(len(types)-4, 0):], "claimed", "started", "canceling", "canceled")
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
			NATS: c.NATS, WorkRoot: c.Root, Slots: 1, Queues: []contracts.Queue{contracts.DefaultQueue}, AllowBind: []string{c.Root},
			LogLimit: "1g", MaxGrace: never, OrphanGrace: never, TakeoverAfter: never, DrainTimeout: patience,
		})
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// startChild starts an executor that can be killed, which the test's end does too.
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
	executor := exec.Command(program)
	executor.Env = append(os.Environ(), childConfig+"="+string(data))
	executor.Stderr = s.log
	if err := executor.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = executor.Process.Kill() // it may have ended
		_ = executor.Wait()         // it may have been waited for
	})
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
	const width, kills, between = 60, 3, 150_000
	const program = `i=0; while [ ! -e /data/go ]; do printf '%059d\n' $i; i=$((i+1)); [ $((i % 50)) -ne 0 ] || sleep 0.01; done; echo $i >&2`
	task := bound(s.script(program), s.root)
	task.Docker.Entrypoint = contracts.Command{"/bin/sh", "-c"}
	s.offer("job", task)
	started := s.awaitEntry("job", contracts.EntryStarted)
	container := started.Data.(*contracts.Started).Container
	for n := range kills {
		s.awaitLog("job", (n+1)*between)
		if err := executor.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = executor.Wait() // it was killed
		if left := s.left(); len(left) != 1 || left[0].ID != container || left[0].State != engine.Running {
			t.Fatalf("the killed executor left %+v", left)
		}
		executor = s.startChild()
	}
	s.awaitLog("job", (kills+1)*between)
	mustWrite(t, filepath.Join(s.root, "go"), "")
	succeeded := s.succeeds("job")
	types, life := s.life("job")
	for _, entry := range life[slices.Index(types, contracts.EntryStarted):] {
		if entry.Attempt != started.Attempt || entry.Crashes != 0 {
			t.Errorf("entry %+v", entry)
		}
	}
	said := s.output("job", contracts.LogStderr)
	lines, err := strconv.Atoi(strings.TrimSuffix(said, "\n"))
	if err != nil {
		t.Errorf("standard error is %q: %v", said, err)
	}
	var want strings.Builder
	for i := range lines {
		fmt.Fprintf(&want, "%0*d\n", width-1, i)
	}
	if got := s.output("job", contracts.LogStdout); got != want.String() {
		t.Errorf("the log has %d bytes, want %d, or they differ", len(got), want.Len())
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
	s.awaitNode(func(listed bool) bool { return listed })
	if err := executor.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s.awaitNode(func(listed bool) bool { return !listed })
	last := s.append("job", started, &contracts.Claimed{Node: "elsewhere", Executor: "ex-new"})
	if err := executor.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	_, err := s.docker.Wait(s.ctx, started.Data.(*contracts.Started).Container, engine.Run{})
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

// awaitNode returns when a change of the list of executors is what the test waits
// for: one is listed, or one is not any more.
func (s *stage) awaitNode(isIt func(listed bool) bool) {
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
		if update != nil && isIt(update.Operation() == jetstream.KeyValuePut) {
			return
		}
	}
	s.t.Fatal("the watch of the executors ended")
}

// awaitLog returns when that many bytes of a job's log are stored.
func (s *stage) awaitLog(job contracts.JobID, size int) {
	s.t.Helper()
	for chunk, err := range s.bus.Log(s.ctx, job, true) {
		if err != nil {
			s.t.Fatal(err)
		}
		if size -= len(chunk.Bytes()); size <= 0 {
			return
		}
	}
}
