package docker_test

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/docker"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/enginetest"
)

// dockerd is a Docker engine of the test's own, which it may end: the machine's
// is shared. It lives in a network of its own, where it cannot take away the
// interface docker0 of another one.
type dockerd struct {
	t    *testing.T
	dir  string
	args []string

	cmd    *exec.Cmd
	output sync.WaitGroup
}

func newDockerd(t *testing.T, args ...string) *dockerd {
	t.Helper()
	newEngine(t, docker.Config{}) // skips where there is none
	if os.Geteuid() != 0 {
		enginetest.Unavailable(t, "a Docker engine of its own needs root")
	}
	dir, err := os.MkdirTemp("", "dockerd") // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	d := &dockerd{t: t, dir: dir, args: append([]string{
		"--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"), "--host", "unix://" + filepath.Join(dir, "s"),
		"--pidfile", filepath.Join(dir, "pid"), "--iptables=false", "--ip6tables=false", "--ip-masq=false",
	}, args...)}
	t.Cleanup(func() {
		d.end(syscall.SIGTERM)
		_ = unix.Unmount(filepath.Join(dir, "data"), unix.MNT_DETACH) // it stays if the engine was ever killed
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove dockerd's data: %v", err)
		}
	})
	d.start()
	return d
}

// slowContainerd is what the engine ends with where its containerd takes longer
// to start than the engine waits for it, which nobody can tell it.
const slowContainerd = "timeout waiting for containerd to start"

// start starts the engine and waits until it answers.
func (d *dockerd) start() {
	d.t.Helper()
	for {
		log, listens := d.tryStart()
		if listens {
			return
		}
		_ = d.cmd.Wait() // it has ended
		if !strings.Contains(log, slowContainerd) {
			d.t.Fatalf("dockerd ended:\n%s", log)
		}
	}
}

// tryStart starts the engine, and returns what it logged until it listened, or
// ended.
func (d *dockerd) tryStart() (log string, listens bool) {
	d.t.Helper()
	// One that was killed leaves them, and its processes may not be buried yet.
	for _, file := range []string{"pid", "exec/containerd/containerd.pid"} {
		if err := os.RemoveAll(filepath.Join(d.dir, file)); err != nil {
			d.t.Fatal(err)
		}
	}
	d.cmd = exec.CommandContext(context.WithoutCancel(d.t.Context()), "dockerd", d.args...)
	// A test that is killed takes its engine along.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWNET}
	reader, writer, err := os.Pipe()
	if err != nil {
		d.t.Fatal(err)
	}
	d.cmd.Stderr = writer
	if err := d.cmd.Start(); err != nil {
		enginetest.Unavailable(d.t, "start dockerd: %v", err)
	}
	if err := writer.Close(); err != nil {
		d.t.Error(err)
	}
	lines := bufio.NewScanner(reader)
	for lines.Scan() {
		log += lines.Text() + "\n"
		if strings.Contains(lines.Text(), "API listen on") {
			d.output.Go(func() {
				_, _ = io.Copy(io.Discard, reader) // it would stop, were it not read
				_ = reader.Close()
			})
			return log, true
		}
	}
	_ = reader.Close() // it was read to its end
	return log, false
}

// end sends a signal and waits for the engine's end.
func (d *dockerd) end(signal syscall.Signal) {
	d.t.Helper()
	if d.cmd.Process == nil || d.cmd.ProcessState != nil {
		return // it was never started, or has ended
	}
	if err := d.cmd.Process.Signal(signal); err != nil {
		d.t.Error(err)
	}
	_ = d.cmd.Wait() // however it ended
	d.output.Wait()
}

func (d *dockerd) restart() {
	d.end(syscall.SIGTERM)
	d.start()
}

func (d *dockerd) kill() {
	d.end(syscall.SIGKILL)
	d.start()
}

func (d *dockerd) subject() enginetest.Restartable {
	host := "unix://" + filepath.Join(d.dir, "s")
	return enginetest.Restartable{
		Subject: enginetest.Subject{Engine: newEngine(d.t, docker.Config{Host: host}), Image: enginetest.BuildImage(d.t, host)},
		Restart: d.restart, Kill: d.kill,
	}
}

func TestRestarts(t *testing.T) {
	t.Parallel()
	enginetest.RunRestarts(t, newDockerd(t).subject())
}

// Without its default network the engine is told by its process.
func TestRestartsWithoutBridge(t *testing.T) {
	t.Parallel()
	enginetest.RunRestarts(t, newDockerd(t, "--bridge", "none").subject())
}

func TestKeeping(t *testing.T) {
	t.Parallel()
	enginetest.RunKeeping(t, newDockerd(t, "--live-restore").subject())
}
