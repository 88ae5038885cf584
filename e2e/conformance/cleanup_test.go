package conformance

// Sections 4.3 and 4.15: what a container leaves behind is removed, whoever owns
// it and however the attempt ended.

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
)

// stubborn leaves folders of root that nobody else may enter, files of others,
// links, pipes, devices, and a deep tree.
const stubborn = `for v in "$1" "$2"; do
	mkdir -p "$v/closed/inner" "$v/of-another/inner"; echo x > "$v/closed/inner/file"; echo x > "$v/of-another/inner/file"
	chown -R 4711:4712 "$v/of-another"; chmod 0700 "$v/closed/inner" "$v/closed" "$v/of-another"; chmod 0400 "$v/closed/inner/file"; chmod 0500 "$v/of-another/inner"
	mkfifo "$v/pipe"; ln -s / "$v/closed/link"; mkdir -p "$v/a/b/c/d/e/f/g/h"; echo x > "$v/--odd name"; chmod 0000 "$v/a/b"
done
`

func stubbornTask(s *stage, host, then string) *contracts.Task {
	task := s.script(stubborn+then, &contracts.TemporaryVolume{}, &contracts.VolumeRef{Volume: "scratch"})
	task.Docker.Volumes = []contracts.Volume{temporary("scratch", host)}
	return task
}

// checkCleanup lets attempts end in all ways, and waits until nothing is there.
func checkCleanup(t *testing.T, s *stage) {
	t.Run("after success", func(t *testing.T) {
		s, host := stageOf(t, s.Gantry), folder(t)
		s.succeed(stubbornTask(s, host, ""))
		s.awaitNothing("temporary volumes", func() []string { return entries(t, host) })
	})
	t.Run("after failure", func(t *testing.T) {
		s, host := stageOf(t, s.Gantry), folder(t)
		s.fail(stubbornTask(s, host, "exit 3"), "(3)")
		s.awaitNothing("temporary volumes", func() []string { return entries(t, host) })
	})
	t.Run("after a cancel", func(t *testing.T) {
		s, host := stageOf(t, s.Gantry), folder(t)
		job := s.submit(stubbornTask(s, host, "echo ready; sleep 1000"))
		s.AwaitLog(job, "ready")
		s.revoke(job)
		s.end(job).canceled()
		s.awaitNothing("temporary volumes", func() []string { return entries(t, host) })
	})
	t.Run("after the executor was killed and the job was canceled meanwhile", func(t *testing.T) {
		s, host := stageOf(t, s.Gantry), folder(t)
		job := s.submit(stubbornTask(s, host, "echo ready; sleep 1000"))
		s.AwaitLog(job, "ready")
		s.Services[setup.Executor].Kill()
		s.revoke(job)
		s.Services[setup.Executor].Start()
		s.end(job).canceled()
		s.awaitNothing("temporary volumes", func() []string { return entries(t, host) })
	})
	t.Run("after the executor was killed and the container ended meanwhile", func(t *testing.T) {
		s, host := stageOf(t, s.Gantry), folder(t)
		gate := folder(t)
		task := stubbornTask(s, host, "echo ready; while [ ! -e /go/go ]; do usleep 10000; done")
		task.Docker.Volumes = append(task.Docker.Volumes, bindMount("go", gate, "/go", "ro"))
		job := s.submit(task)
		s.AwaitLog(job, "ready")
		s.Services[setup.Executor].Kill()
		write(t, filepath.Join(gate, "go"), "")
		s.Services[setup.Executor].Start()
		s.end(job).succeeded()
		s.awaitNothing("temporary volumes", func() []string { return entries(t, host) })
	})
	// An executor that is killed while it removes leaves that to the next one.
	s.awaitNothing("folders", func() []string { return entries(t, filepath.Join(s.WorkRoot, "attempts")) })
	s.awaitNothing("containers", func() []string { return s.Engine.Containers(s.Label()) })
}

// cleaner is a Gantry whose containers that nobody wants go soon.
func cleaner(user *setup.User) setup.Config {
	return setup.Config{NodeUser: user, Env: map[string]string{"GANTRY_ORPHAN_GRACE": "1s"}}
}

// 4.3 cleanup, by an executor that may do everything
func TestEverythingTemporaryIsRemovedWhoeverOwnsIt(t *testing.T) {
	s := alone(t, cleaner(nil))
	checkCleanup(t, s)
}

// nobody is a user of the host without any right of its own.
const nobody = 65534

// 4.3 cleanup, by an executor that is an ordinary user in the engine's group
func TestEverythingTemporaryIsRemovedByAnExecutorThatIsNotRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("services that are not the test's user need a test that is root's")
	}
	socket, err := os.Stat("/var/run/docker.sock")
	if host := os.Getenv("DOCKER_HOST"); host != "" {
		socket, err = os.Stat(strings.TrimPrefix(host, "unix://"))
	}
	if err != nil {
		t.Skipf("the engine's socket is no file: %v", err)
	}
	s := alone(t, cleaner(&setup.User{ID: nobody, Group: nobody, Also: socket.Sys().(*syscall.Stat_t).Gid}))
	status := read(t, "/proc/"+strconv.Itoa(s.Services[setup.Executor].PID())+"/status")
	if !strings.Contains(status, "Uid:\t65534\t65534") {
		t.Fatalf("the executor is not an ordinary user:\n%s", status)
	}
	checkCleanup(t, s)
}

// 4.3 the removal does not delay the job's end. A folder's time of change says
// when a temporary volume was removed from it.
func TestTheEndOfAJobDoesNotWaitForItsCleanup(t *testing.T) {
	s, host := start(t), folder(t)
	task := s.script(`cd "$1"; for i in $(seq 50); do mkdir "d$i"; for k in $(seq 100); do : > "d$i/$k"; done; done`, &contracts.VolumeRef{Volume: "scratch"})
	task.Docker.Volumes = []contracts.Volume{temporary("scratch", host)}
	end := s.succeed(task)
	s.awaitNothing("temporary volumes", func() []string { return entries(t, host) })
	info, err := os.Stat(host)
	if err != nil {
		t.Fatal(err)
	}
	if removed := info.ModTime(); !removed.After(end.entry.Time) {
		t.Errorf("the temporary volume was removed at %s, the job ended at %s", removed, end.entry.Time)
	}
}
