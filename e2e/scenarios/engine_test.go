package scenarios

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
)

// TestDockerEngineRestarts restarts an engine under a running container and
// under a queue: with the executor or while it is dead as well.
func TestDockerEngineRestarts(t *testing.T) {
	t.Parallel()
	for _, dead := range []bool{false, true} {
		name := "the executor lives"
		if dead {
			name = "the executor is dead"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dockerd := setup.StartDockerd(t)
			folder := t.TempDir()
			g := setup.Start(t, setup.Config{DockerHost: dockerd.Host, Slots: 1, Env: map[string]string{"GANTRY_ALLOW_BIND": folder}})
			task := g.Shell("echo ready; until [ -e /host/go ]; do sleep 0.1; done; echo done")
			task.Docker.Volumes = []contracts.Volume{{Name: "host", Type: contracts.VolumeBindMount, HostPath: folder, ContainerPath: "/host", Mode: "ro"}}
			task.Girder = g.Girder.Of("the engine restarts")
			running := g.MustSubmit(task)
			waiting := g.MustSubmit(g.Shell("echo ran"))
			g.AwaitLog(running, "ready")
			restartEngine(g, dockerd, dead, func() {
				if err := os.WriteFile(filepath.Join(folder, "go"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			})
			checkLostWithEngine(t, g, running)
			g.AwaitSuccess(waiting)
			// What could not be removed without an engine is, before a task is claimed.
			g.Services[setup.Executor].Stop()
			g.Services[setup.Executor].Start()
			g.AwaitSuccess(g.MustSubmit(g.Shell("true")))
		})
	}
}

// restartEngine restarts the engine, with an executor that is dead meanwhile or
// not, and with something that happens while there is no engine.
func restartEngine(g *setup.Gantry, dockerd *setup.Dockerd, dead bool, meanwhile func()) {
	if dead {
		g.Services[setup.Executor].Kill()
	}
	dockerd.Stop()
	meanwhile()
	dockerd.Start()
	g.Services[setup.Executor].Start() // unless it runs
}

// checkLostWithEngine checks that a task was tried again, for a reason.
func checkLostWithEngine(t *testing.T, g *setup.Gantry, job contracts.JobID) {
	t.Helper()
	end := g.AwaitEnd(job)
	// It may be claimed and given back while the engine goes down, or comes up.
	types := strings.NewReplacer("adopted ", "", "claimed released ", "").Replace(g.Types(job))
	if types != "submitted queued claimed started failed queued claimed started succeeded" || end.Crashes != 1 {
		t.Errorf("life: %s, with %d crashes", types, end.Crashes)
		t.Log(g.Story(job))
		return
	}
	lost := g.AwaitEntry(job, contracts.EntryFailed, 1).Data.(*contracts.Failed)
	if lost.Kind != contracts.FailureInfrastructure || !strings.Contains(lost.Message, "engine") {
		t.Errorf("the first attempt ended as %+v", lost)
	}
	mirrored := g.AwaitMirrored(job)
	if got := setup.Statuses(mirrored); !slices.Equal(got, []string{"RUNNING", "SUCCESS"}) {
		t.Errorf("Girder's history: %v", got)
	}
	if log := setup.LogOf(mirrored); !strings.HasSuffix(log, "ready\ndone\n") || !strings.Contains(log, "engine") {
		t.Errorf("Girder's log does not say what happened: %q", log)
	}
}

// TestContainersOutliveTheirEngine restarts an engine whose containers go on
// without it (live restore): nothing of it shows.
func TestContainersOutliveTheirEngine(t *testing.T) {
	t.Parallel()
	for _, dead := range []bool{false, true} {
		name := "the executor lives"
		if dead {
			name = "the executor is dead"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dockerd := setup.StartDockerd(t, "--live-restore")
			folder := t.TempDir()
			g := setup.Start(t, setup.Config{DockerHost: dockerd.Host, Env: map[string]string{"GANTRY_ALLOW_BIND": folder}})
			// What an engine has read of a log when it ends, and has not written
			// down, is lost: the task is silent then, and goes on without an engine.
			task := newHeld(g, "the engine restarts", folder, 40)
			g.MustSubmit(task.Task)
			g.AwaitLog(task.ID, "tick 20.")
			restartEngine(g, dockerd, dead, func() { task.release(t) })
			task.checkAttempt(t, g)
		})
	}
}
