package scenarios

import (
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
			g := setup.Start(t, setup.Config{DockerHost: dockerd.Host, Slots: 1})
			task := g.Shell("echo ready; sleep 5; echo done")
			task.Girder = g.Girder.Of("the engine restarts")
			running := g.MustSubmit(task)
			waiting := g.MustSubmit(g.Shell("echo ran"))
			g.AwaitLog(running, "ready")
			restartEngine(g, dockerd, dead)
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
// not.
func restartEngine(g *setup.Gantry, dockerd *setup.Dockerd, dead bool) {
	if dead {
		g.Services[setup.Executor].Kill()
	}
	dockerd.Stop()
	dockerd.Start()
	g.Services[setup.Executor].Start() // unless it runs
}

// checkLostWithEngine checks that a task was tried again, for a reason.
func checkLostWithEngine(t *testing.T, g *setup.Gantry, job contracts.JobID) {
	t.Helper()
	end := g.AwaitEnd(job)
	types := strings.ReplaceAll(g.Types(job), "adopted ", "")
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
			g := setup.Start(t, setup.Config{DockerHost: dockerd.Host})
			task := newTicking(g, "the engine restarts", 40)
			g.MustSubmit(task.Task)
			g.AwaitLog(task.ID, "tick 3.")
			restartEngine(g, dockerd, dead)
			task.checkAttempt(t, g)
		})
	}
}
