package service_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

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

// runChild is the executor that the test's program becomes. It ends only by
// being killed.
func runChild(data string) {
	var c child
	err := json.Unmarshal([]byte(data), &c)
	if err == nil {
		err = service.Run(zerolog.New(os.Stderr).WithContext(context.Background()), service.Config{
			NATS: c.NATS, WorkRoot: c.Root, Slots: 1, Queues: []contracts.Queue{contracts.DefaultQueue}, LogLimit: "1m", MaxGrace: time.Minute,
		})
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func TestDockerAfterAnExecutorIsKilled(t *testing.T) {
	t.Parallel()
	s := newDockerStage(t)
	data, err := json.Marshal(child{NATS: s.server.Config(), Root: s.root})
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	executor := exec.CommandContext(t.Context(), program)
	executor.Env = append(os.Environ(), childConfig+"="+string(data))
	executor.Stderr = &testLog{t: t}
	if err := executor.Start(); err != nil {
		t.Fatal(err)
	}
	s.offer("job", s.script("hang"))
	s.awaitEntry("job", contracts.EntryStarted)
	if err := executor.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = executor.Wait() // it was killed
	if left := s.left(); len(left) != 1 || left[0].State != engine.Running {
		t.Fatalf("the killed executor left %+v", left)
	}
	stop := s.start()
	failed := s.awaitEntry("job", contracts.EntryFailed)
	if data := failed.Data.(*contracts.Failed); data.Kind != contracts.FailureInfrastructure || !data.WillRetry || failed.Crashes != 1 {
		t.Errorf("failed as %+v", data)
	}
	task := s.script("exit:0")
	s.queue(failed, task, contracts.QueuedRetry)
	s.succeeds("job")
	stop()
	s.clean()
}
