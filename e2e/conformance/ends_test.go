package conformance

// Sections 4.1, 4.7 and 4.12: how tasks end.

import (
	"context"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// revoke cancels a job whose container heeds the stop signal, however late.
func (s *stage) revoke(job contracts.JobID) {
	s.t.Helper()
	s.revokeWith(contracts.Revoke{Job: job, Grace: ptr(contracts.Duration(patience))})
}

func (s *stage) revokeWith(order contracts.Revoke) {
	s.t.Helper()
	order.By = "a test"
	if err := s.Revoke(s.Context(), order); err != nil {
		s.t.Fatal(err)
	}
}

func (e *ending) canceled() *ending {
	e.t.Helper()
	if e.entry.Type != contracts.EntryCanceled {
		e.t.Errorf("the job %s: %+v", e.entry.Type, e.entry.Data)
	}
	e.statuses("RUNNING", "CANCELED")
	return e
}

// 4.1 cancel_sigterm
func TestACanceledContainerIsToldToStop(t *testing.T) {
	s := start(t)
	job := s.submit(s.script(`trap 'echo told; exit 0' TERM; echo ready; while :; do sleep 1000 & wait $!; done`))
	s.AwaitLog(job, "ready")
	s.revoke(job)
	s.end(job).canceled().wrote("ready\ntold\n")
}

// 4.1 cancel_sigkill
func TestACanceledContainerThatDoesNotListenIsKilled(t *testing.T) {
	s := start(t)
	job := s.submit(s.script(`trap '' TERM; echo ready; while :; do sleep 1000; done`))
	s.AwaitLog(job, "ready")
	s.revokeWith(contracts.Revoke{Job: job, Grace: ptr(contracts.Duration(time.Second))})
	s.end(job).canceled().wrote("ready\n")
}

// 4.1 the stop signal of the revoke
func TestTheSignalOfARevokeReachesTheContainer(t *testing.T) {
	s := start(t)
	job := s.submit(s.script(`trap 'echo interrupted; exit 0' INT; echo ready; while :; do sleep 1000 & wait $!; done`))
	s.AwaitLog(job, "ready")
	s.revokeWith(contracts.Revoke{Job: job, Signal: "SIGINT", Grace: ptr(contracts.Duration(patience))})
	s.end(job).canceled().wrote("ready\ninterrupted\n")
}

// 4.7 a canceled run has no outputs; 4.12 nor an exit code in its log
func TestACanceledRunUploadsNothing(t *testing.T) {
	s := start(t)
	item := s.Girder.Item("result of a canceled run")
	task := s.script(`echo content > "$1"; trap 'exit 4' TERM; echo ready; while :; do sleep 1000 & wait $!; done`, volumePath("out"))
	task.Outputs = []contracts.Output{uploadTo(item, "out")}
	job := s.submit(task)
	s.AwaitLog(job, "ready")
	s.revoke(job)
	s.end(job).canceled().wrote("ready\n")
	if files := s.Girder.Files(item.ID); len(files) > 0 {
		t.Errorf("uploaded %v", files)
	}
}

// 4.1 canceled by Girder itself
func TestAJobThatIsCanceledInGirderIsCanceledThere(t *testing.T) {
	s := start(t)
	job := s.submit(s.script(`echo ready; sleep 1000`))
	s.AwaitLog(job, "ready")
	ref := s.AwaitGirderJob(job)
	s.Girder.JobOf(s.Context(), ref, func(j girdersim.Job) bool { return j.Status == girdersim.Running })
	s.Girder.Cancel(s.Context(), ref.ID)
	end := s.end(job)
	if end.entry.Type != contracts.EntryCanceled {
		t.Errorf("the job %s: %+v", end.entry.Type, end.entry.Data)
	}
	end.statuses("RUNNING", "CANCELING", "CANCELED")
}

// 4.12 a non-zero exit; signals are named
func TestASignalThatEndedAContainerIsNamed(t *testing.T) {
	for _, c := range []struct{ signal, name, code string }{{"KILL", "SIGKILL", "137"}, {"SEGV", "SIGSEGV", "139"}, {"ABRT", "SIGABRT", "134"}} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t)
			s.fail(s.script(`kill -`+c.signal+` $$`), c.name, c.code)
		})
	}
}

// 4.15 out of memory
func TestAContainerThatRunsOutOfMemorySaysSo(t *testing.T) {
	s, host := start(t), folder(t)
	// The engine may hear of it late, when a container that ends with it is gone.
	task := s.script(`await() { while [ ! -e "/data/$1" ]; do usleep 10000; done; }; await hunger; program eat 500000000; code=$?; await end; exit $code`)
	task.Docker.Options.MemLimit, task.Docker.Options.MemswapLimit = 32<<20, 32<<20
	task.Docker.Volumes = []contracts.Volume{bindMount("data", host, "/data", "ro")}
	job := s.submit(task)
	container := s.AwaitEntry(job, contracts.EntryStarted, 1).Data.(*contracts.Started).Container
	s.runOutOfMemory(container, func() { write(t, filepath.Join(host, "hunger"), "") })
	write(t, filepath.Join(host, "end"), "")
	end := s.end(job).failed(contracts.FailureTask, "memory", "137")
	if failed := end.entry.Data.(*contracts.Failed); !failed.OOMKilled {
		t.Errorf("the failure is %+v", failed)
	}
}

// runOutOfMemory calls what makes a container take too much memory, and waits
// until the engine knows of it.
func (s *stage) runOutOfMemory(container string, eat func()) {
	s.t.Helper()
	engine, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		s.t.Fatal(err)
	}
	defer engine.Close() //nolint:errcheck // it was only read from
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	heard, ended := engine.Events(ctx, events.ListOptions{
		Since:   strconv.FormatInt(time.Now().Unix(), 10), // the engine answers before it listens
		Filters: filters.NewArgs(filters.Arg("container", container), filters.Arg("event", "oom")),
	})
	eat()
	select {
	case <-heard:
	case err := <-ended:
		s.t.Fatalf("the engine heard of no lack of memory: %v", err)
	}
}

// 4.12 an entry point that is not there, with a first process of the engine's and
// without
func TestAProgramThatIsNotInTheImageIsAnErrorThatNamesIt(t *testing.T) {
	for name, init := range map[string]*bool{"with init": nil, "without init": ptr(false)} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			task := s.command("x")
			task.Docker.Entrypoint, task.Docker.Options.Init = contracts.Command{"/no/such/program"}, init
			end := s.fail(task)
			if log := setup.LogOf(end.girder); !strings.Contains(log, "/no/such/program") {
				t.Errorf("Girder's log is %q", log)
			}
		})
	}
}

// limits.time
func TestATimeLimitKillsTheContainer(t *testing.T) {
	s := start(t)
	task := s.script(`trap '' TERM; echo ready; while :; do sleep 1000; done`)
	task.Limits = &contracts.Limits{Time: contracts.Duration(2 * time.Second)}
	s.run(task).failed(contracts.FailureTimeout, "2s")
}

// limits.soft_time
func TestASoftTimeLimitTellsTheContainerOnce(t *testing.T) {
	s := start(t)
	item := s.Girder.Item("saved in time")
	task := s.script(`trap 'echo saved > "$1"; exit 0' TERM; echo ready; while :; do sleep 1000 & wait $!; done`, volumePath("out"))
	// The trap has to be there by then, and what it does has to be done in time.
	task.Limits = &contracts.Limits{SoftTime: contracts.Duration(10 * time.Second), Time: contracts.Duration(patience)}
	task.Outputs = []contracts.Output{uploadTo(item, "out")}
	end := s.succeed(task)
	if !strings.HasPrefix(end.log, "ready\n") || !strings.Contains(end.log, "time limit") {
		t.Errorf("the log is %q", end.log)
	}
	if _, content := s.Girder.Uploaded(item.ID); string(content) != "saved\n" {
		t.Errorf("uploaded %q", content)
	}
}

// limits within which a task stays change nothing
func TestATaskWithinItsLimitsIsLeftAlone(t *testing.T) {
	s := start(t)
	task := s.command("echo", "quick")
	task.Limits = &contracts.Limits{SoftTime: contracts.Duration(patience), Time: contracts.Duration(2 * patience)}
	s.succeed(task).wrote("quick\n")
}

// 4.12 remove_container
func TestAContainerIsKeptWhenAsked(t *testing.T) {
	for name, script := range map[string]string{"that succeeded": "echo kept", "that failed": "echo kept; exit 3"} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			task := s.script(script)
			task.Docker.RemoveContainer = ptr(false)
			end := s.run(task)
			kept := s.Engine.Containers("gantry.job=" + string(end.job))
			if len(kept) != 1 {
				t.Fatalf("the job's containers are %v", kept)
			}
			t.Cleanup(func() { s.Engine.Remove(kept[0]) })
			text := s.Engine.Inspect(kept[0])
			for _, want := range []string{`"Status": "exited"`, `"gantry.keep": "true"`, `"gantry.installation": "` + s.Installation() + `"`, `"gantry.attempt": "1"`} {
				if !strings.Contains(text, want) {
					t.Errorf("the kept container has no %s:\n%s", want, text)
				}
			}
			if log := s.Engine.Logs(kept[0]); log != "kept\n" {
				t.Errorf("the kept container's log is %q", log)
			}
		})
	}
}

// 4.12 containers that failed to start are removed too
func TestAContainerThatCannotStartIsRemoved(t *testing.T) {
	s := start(t)
	task := s.command("x")
	task.Docker.Entrypoint, task.Docker.Options.Init = contracts.Command{"/bin"}, ptr(false) // a folder
	end := s.fail(task, "/bin")
	s.awaitNothing("containers", func() []string { return s.Engine.Containers("gantry.job=" + string(end.job)) })
}

// options.init is on unless said otherwise: it reaps, and lets signals work
func TestAnInitProcessRunsUnlessSaidOtherwise(t *testing.T) {
	s := start(t)
	end := s.succeed(s.script(`echo $$`))
	if end.log == "1\n" {
		t.Errorf("the shell is process %q", end.log)
	}
	task := s.script(`echo $$`)
	task.Docker.Options.Init = ptr(false)
	s.succeed(task).wrote("1\n")
}

// A name that an older attempt of ours holds is no hindrance; another's is.
func TestAContainersNameIsTheTasksOwn(t *testing.T) {
	s := start(t)
	named := "gantry-conformance-" + contracts.NewToken()[:8]
	task := s.command("hostname")
	task.Docker.Options.Name, task.Docker.Options.Hostname = named, "box"
	end := s.succeed(task).wrote("box\n")
	s.awaitNothing("what has the name", func() []string { return s.left(end.job) })

	other := s.Engine.RunNamed(named, map[string]string{"gantry-conformance": "other"})
	t.Cleanup(func() { s.Engine.Remove(other) })
	again := s.command("true")
	again.Docker.Options.Name = named
	s.fail(again, named)
}

// No diagnostics of ours are in a job's log.
func TestALogHasNothingButTheContainersWords(t *testing.T) {
	s := start(t)
	file, item := s.Girder.File("in", []byte("x")), s.Girder.Item("out")
	task := s.script(`cp "$1" "$2"`, &contracts.GirderFile{ID: file.ID}, volumePath("out"), &contracts.ProgressPipe{})
	task.Outputs = []contracts.Output{setup.UploadTo(item, "out")}
	s.succeed(task).wrote("")
}
