package setup

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Dockerd is a Docker engine of the test's own, which it may stop: the
// machine's engine is shared. It lives in a network namespace of its own, since
// "--bridge none" removes the interface docker0, whosever it is. Its containers
// have no network.
type Dockerd struct {
	*Process
	// Host is the value for DOCKER_HOST.
	Host string
}

// StartDockerd starts an engine and waits until it answers. Flags are further
// ones, such as --live-restore.
func StartDockerd(t testing.TB, flags ...string) *Dockerd {
	t.Helper()
	OpenEngine(t, "") // skips where there is no Docker
	if os.Geteuid() != 0 {
		t.Skip("a Docker engine of its own needs root")
	}
	path, err := exec.LookPath("dockerd")
	if err != nil {
		t.Fatalf("start dockerd: %v", err)
	}
	// Not in the test's folder: the paths of its sockets would be too long.
	dir, err := os.MkdirTemp("", "gantry-")
	if err != nil {
		t.Fatalf("start dockerd: %v", err)
	}
	t.Cleanup(func() { removeData(t, dir) })
	d := &Dockerd{Host: "unix://" + filepath.Join(dir, "docker.sock")}
	flags = append(flags,
		"--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
		"--host", d.Host, "--pidfile", filepath.Join(dir, "docker.pid"),
		"--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-masq=false")
	// Keeps an engine before 23 from locking up: deploy/ensure-docker.sh.
	d.Process = newProcess(t, dir, "dockerd", path, []string{"GOMAXPROCS=1"}, flags...)
	d.isolated = true
	t.Cleanup(func() { d.Stop() }) // its containerd ends with it
	d.Start()
	return d
}

// Start starts the engine and waits until it answers. Its containerd has 15
// seconds to start, which nobody can change: where that is not enough, it is
// started again.
func (d *Dockerd) Start() {
	d.t.Helper()
	d.begins.Store(true)
	defer d.begins.Store(false)
	for deadline := time.Now().Add(patience); ; {
		d.Process.Start()
		err := d.awaitOutput("API listen on")
		if err == nil {
			return
		}
		if d.PID() != 0 {
			d.t.Fatal(err)
		}
		d.awaitWatched()
		if time.Now().After(deadline) || !strings.Contains(d.Log(), "timeout waiting for containerd to start") {
			d.t.Fatal(err)
		}
	}
}

// removeData removes an engine's folder. What belonged to its last containers
// may be about to end.
func removeData(t testing.TB, dir string) {
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-again.C {
		err := errors.Join(unmount(dir), os.RemoveAll(dir))
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("remove dockerd's data: %v", err)
			return
		}
	}
}

// unmount takes away what an engine left mounted below a folder: one with live
// restore leaves its data.
func unmount(dir string) error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	var errs []error
	lines := strings.Split(strings.TrimSpace(string(mounts)), "\n")
	for _, line := range slices.Backward(lines) { // the last one is on top
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], dir+"/") {
			errs = append(errs, syscall.Unmount(fields[1], 0))
		}
	}
	return errors.Join(errs...)
}
