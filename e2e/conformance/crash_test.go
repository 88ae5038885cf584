package conformance

// Section 4.15: services that die in the middle of a stream.

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// triedAgain checks that a job succeeded after attempts that failed by our fault.
func (e *ending) triedAgain() {
	e.t.Helper()
	if e.entry.Type != contracts.EntrySucceeded || e.entry.Attempt < 2 {
		e.t.Fatalf("the job %s in attempt %d: %+v; its life is %s", e.entry.Type, e.entry.Attempt, e.entry.Data, e.Types(e.job))
	}
	for _, entry := range e.life(e.job) {
		if failed, ok := entry.Data.(*contracts.Failed); ok && failed.Kind != contracts.FailureInfrastructure {
			e.t.Errorf("an attempt ended as %+v", failed)
		}
	}
	e.statuses("RUNNING", "SUCCESS")
}

// Whoever is killed while a container reads a stream: no container ever takes a
// part for the whole. What each one read to the end is in a file of the host.
func TestAReaderNeverTakesAPartForTheWhole(t *testing.T) {
	for _, c := range []struct {
		name  string
		again bool // another attempt has to follow
		kill  []string
	}{
		{"transfer is killed", true, []string{setup.Transfer}},
		{"the executor is killed", false, []string{setup.Executor}},
		{"both are killed", true, []string{setup.Transfer, setup.Executor}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := alone(t, setup.Config{})
			host := folder(t)
			const size = 8 << 20
			id, sum := s.bigFile(size)
			task := s.script(`exec 3< "$1"; dd bs=1 count=5000 <&3 > /data/begin 2> /dev/null; echo reading; while [ ! -e /data/go ]; do usleep 10000; done
				{ cat /data/begin; cat <&3; } > /data/taken; sha256sum < /data/taken | cut -d ' ' -f 1 | tee -a /data/sums`, streamOf(id, "in"))
			task.Docker.Volumes = []contracts.Volume{bindMount("data", host, "/data", "rw")}
			task.Retry = &contracts.Retry{Backoff: contracts.Duration(1e8)}
			job := s.submit(task)
			s.AwaitLog(job, "reading")
			for _, name := range c.kill {
				s.Services[name].Kill()
			}
			write(t, filepath.Join(host, "go"), "")
			for _, name := range c.kill {
				s.Services[name].Start()
			}
			end := s.end(job)
			if c.again {
				end.triedAgain()
			} else {
				end.succeeded()
			}
			if !strings.HasSuffix(end.log, sum+"\n") {
				t.Errorf("the log is %q, and the checksum %s", end.log, sum)
			}
			if len(c.kill) == 2 {
				return // with nobody left a container may see an end: its attempt never counts
			}
			sums := strings.Fields(read(t, filepath.Join(host, "sums")))
			if !slices.Equal(sums, []string{sum}) {
				t.Errorf("containers took %v for the whole, want %s once", sums, sum)
			}
		})
	}
}

// A stream out of the container has no second chance either: the attempt is run
// again, and nothing half is left in Girder.
func TestAWriterIsRunAgainWhenItsStreamIsLost(t *testing.T) {
	s := alone(t, setup.Config{})
	host := folder(t)
	item := s.Girder.Item("of a stream")
	task := s.script(`exec 3> "$1"; echo half >&3; echo writing; while [ ! -e /data/go ]; do usleep 10000; done; echo half >&3`,
		upload(&contracts.NamedOutputPipe{Name: "out"}, &contracts.GirderUploadItem{ItemID: item.ID}))
	task.Docker.Volumes = []contracts.Volume{bindMount("data", host, "/data", "rw")}
	task.Retry = &contracts.Retry{Backoff: contracts.Duration(1e8)}
	job := s.submit(task)
	s.AwaitLog(job, "writing")
	s.Services[setup.Transfer].Kill()
	write(t, filepath.Join(host, "go"), "")
	s.Services[setup.Transfer].Start()
	s.end(job).triedAgain()
	if file, content := s.Girder.Uploaded(item.ID); file.Name != "out" || string(content) != "half\nhalf\n" {
		t.Errorf("uploaded %s: %q", file.Name, content)
	}
}

// Of standard streams and of pipes into the log the executor is the mover.
func TestAStandardStreamThatLostItsMoverIsRunAgain(t *testing.T) {
	s := alone(t, setup.Config{})
	host := folder(t)
	server := newPosted(t)
	task := s.script(`echo one; echo ready >&2; while [ ! -e /data/go ]; do usleep 10000; done; echo two`)
	task.Docker.Volumes = []contracts.Volume{bindMount("data", host, "/data", "rw")}
	task.Docker.Streams = contracts.Connects{*connect(&contracts.ContainerStdout{}, &contracts.ChunkedStream{URL: server.url("/")})}
	task.Retry = &contracts.Retry{Backoff: contracts.Duration(1e8)}
	job := s.submit(task)
	s.AwaitLog(job, "ready")
	s.Services[setup.Executor].Kill()
	write(t, filepath.Join(host, "go"), "")
	s.Services[setup.Executor].Start()
	s.end(job).triedAgain()
	for {
		post := server.next(s)
		if post.whole {
			if string(post.body()) != "one\ntwo\n" {
				t.Errorf("posted %q as a whole", post.body())
			}
			return
		}
	}
}

// The log and the progress of a task go on after the executor's death.
func TestLogAndProgressGoOnAfterTheExecutorsDeath(t *testing.T) {
	s := alone(t, setup.Config{})
	host := folder(t)
	task := s.script(`exec 3> "$1"; echo '{"total": 2, "current": 1, "message": "half"}' >&3; echo before
		while [ ! -e /data/go ]; do usleep 10000; done; echo '{"current": 2, "message": "whole"}' >&3; echo after`, &contracts.ProgressPipe{})
	task.Docker.Volumes = []contracts.Volume{bindMount("data", host, "/data", "rw")}
	job := s.submit(task)
	s.AwaitLog(job, "before")
	s.Girder.JobOf(s.Context(), s.AwaitGirderJob(job), func(j girdersim.Job) bool {
		return j.Progress != nil && j.Progress.Current != nil && *j.Progress.Current == 1
	})
	s.awaitHolding(s.Services[setup.Transfer], job)
	for i := range 3 {
		s.Services[setup.Executor].Restart()
		s.AwaitService(setup.Executor)
		if i == 2 {
			write(t, filepath.Join(host, "go"), "")
		}
	}
	s.end(job).succeeded().wrote("before\nafter\n").progressed(2, 2, "whole")
}

// awaitHolding waits until a process has a pipe of a job open: whoever holds it
// keeps the container from noticing that the other one died.
func (s *stage) awaitHolding(p *setup.Process, job contracts.JobID) {
	s.t.Helper()
	s.await(p.Name+" holds no pipe", func() error {
		open, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.PID()))
		for _, fd := range open {
			info, statErr := os.Stat(fd)
			path, linkErr := os.Readlink(fd)
			if errors.Join(statErr, linkErr) == nil && info.Mode()&fs.ModeNamedPipe != 0 && strings.Contains(path, string(job)) {
				return nil
			}
		}
		return errors.Join(errors.New("it has other files open"), err)
	})
}

// Time limits count from the start, whoever looks after the container.
func TestATimeLimitHoldsAfterTheExecutorsDeath(t *testing.T) {
	s := alone(t, setup.Config{})
	task := s.script(`trap '' TERM; while :; do sleep 1000; done`)
	task.Limits = &contracts.Limits{Time: contracts.Duration(3e9)}
	job := s.submit(task)
	s.AwaitEntry(job, contracts.EntryStarted, 1)
	s.Services[setup.Executor].Restart()
	s.end(job).failed(contracts.FailureTimeout, "3s")
}

// What a killed executor left of a container that nobody wants is removed.
func TestAKeptContainerOutlivesItsExecutor(t *testing.T) {
	s := alone(t, setup.Config{Env: map[string]string{"GANTRY_ORPHAN_GRACE": "1s"}})
	task := s.command("echo", "kept")
	task.Docker.RemoveContainer = ptr(false)
	end := s.succeed(task)
	kept := s.Engine.Containers("gantry.job=" + string(end.job))
	if len(kept) != 1 {
		t.Fatalf("the job's containers are %v", kept)
	}
	t.Cleanup(func() { s.Engine.Remove(kept[0]) })
	s.Services[setup.Executor].Kill() // it would find the orphan before that is started
	orphan := s.Engine.RunNamed("", map[string]string{"gantry.installation": s.Installation(), "gantry.job": "nobodys", "gantry.attempt": "1", "gantry.executor": "ex-gone"})
	s.Services[setup.Executor].Start()
	s.Engine.AwaitRemoved(s.Context(), orphan) // the reconciler has looked
	s.succeed(s.command("true"))
	if now := s.Engine.Containers("gantry.job=" + string(end.job)); !slices.Equal(now, kept) {
		t.Errorf("the kept containers are %v, and were %v", now, kept)
	}
}
