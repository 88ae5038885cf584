package service_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
	"github.com/gantry-worker/gantry/services/docker-executor/service"
	"github.com/gantry-worker/gantry/services/internal/fifo"
	"github.com/gantry-worker/gantry/services/internal/volume"
)

// bound mounts a folder of the host at /data.
func bound(task *contracts.Task, host string) *contracts.Task {
	task.Docker.Volumes = []contracts.Volume{{Name: "data", Type: contracts.VolumeBindMount, HostPath: host, ContainerPath: "/data", Mode: "ro"}}
	return task
}

// piped has a progress pipe there, named in two arguments.
func piped(host string) *contracts.Task {
	task := bound(script("exit:0"), host)
	for _, name := range []string{"pipe", "./pipe"} {
		task.Docker.Args = append(task.Docker.Args, contracts.Arg{Transform: &contracts.ProgressPipe{Volume: "data", Name: name}})
	}
	return task
}

func isGone(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there, error %v", path, err)
	}
}

func TestAPipeOnABindMountIsNotLeftThere(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	host := t.TempDir()
	// One that nobody removed is taken over.
	if err := fifo.Make(volume.Volume{Host: host}, "pipe"); err != nil {
		t.Fatal(err)
	}
	stop := s.start(func(cfg *service.Config) {
		cfg.AllowBind, cfg.HoldPatience = []string{host + ":rw"}, time.Millisecond // there is no transfer
	})
	for _, job := range []contracts.JobID{"first", "second"} {
		s.offer(job, piped(host))
		s.succeeds(job)
	}
	reached, release := s.engine.Hang(fake.CallCreate)
	s.offer("third", piped(host))
	<-reached
	if about := s.about("third"); len(about.Pipes) != 1 || about.Pipes[0] != (contracts.Pipe{Volume: host, Name: "pipe", End: contracts.PipeRead}) {
		t.Errorf("the attempt's note has the pipes %+v", about.Pipes)
	}
	release()
	s.succeeds("third")
	stop()
	s.clean()
	isGone(t, filepath.Join(host, "pipe"))
}

func TestTheNextStartRemovesThePipeOfAKilledExecutor(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	host := t.TempDir()
	if err := fifo.Make(volume.Volume{Host: host}, "pipe"); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, filepath.Join(host, "file"), "somebody's")
	s.pipes = []contracts.Pipe{{Volume: host, Name: "pipe"}, {Volume: host, Name: "file"}, {Volume: filepath.Join(host, "gone"), Name: "pipe"}}
	s.died("job", script("exit:0"), s.claim(), &contracts.Started{}, &contracts.Succeeded{})
	acked, err := s.bus.Conn().SubscribeSync("$JS.ACK." + contracts.StreamReady + ".>")
	if err != nil {
		t.Fatal(err)
	}
	stop := s.start(nil)
	awaitAck(t, acked)
	stop()
	s.clean()
	isGone(t, filepath.Join(host, "pipe"))
	if data, err := os.ReadFile(filepath.Join(host, "file")); err != nil || string(data) != "somebody's" {
		t.Errorf("the file is %q, error %v", data, err)
	}
}

// A bind mount that was allowed when the attempt began may lead elsewhere when
// its container is created.
func TestAVolumeThatLeadsElsewhereIsRefused(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		to   func(allowed string) string
		says string
	}{
		"inside of what is allowed":  {func(allowed string) string { return filepath.Join(allowed, "other") }, "leads elsewhere"},
		"outside of what is allowed": {func(string) string { return "/etc" }, "outside of what this node allows"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			eng := &recorder{Engine: s.engine}
			allowed := t.TempDir()
			link := filepath.Join(allowed, "link")
			for _, dir := range []string{"data", "other"} {
				if err := os.Mkdir(filepath.Join(allowed, dir), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			point := func(target string) {
				if err := errors.Join(os.Symlink(target, link+".new"), os.Rename(link+".new", link)); err != nil {
					t.Fatal(err)
				}
			}
			point(filepath.Join(allowed, "data"))
			stop := s.start(func(cfg *service.Config) { cfg.Engine, cfg.AllowBind = eng, []string{allowed} })
			reached, release := s.engine.Hang(fake.CallImage)
			s.offer("job", bound(script("exit:0"), link))
			<-reached
			point(test.to(allowed))
			release()
			failed := s.fails("job")
			if failed.Kind != contracts.FailureTask || failed.WillRetry || !strings.Contains(failed.Message, "docker.volumes[0]") || !strings.Contains(failed.Message, test.says) {
				t.Errorf("failed as %+v", failed)
			}
			stop()
			s.clean()
			if len(eng.made()) != 0 {
				t.Error("a container was created")
			}
		})
	}
}
