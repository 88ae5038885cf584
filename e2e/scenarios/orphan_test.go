package scenarios

import (
	"slices"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
)

// TestOrphans puts containers on the engine of two nodes that look like some of
// theirs. What no life owns goes; what runs on the other node and what belongs
// to somebody else stays.
func TestOrphans(t *testing.T) {
	t.Parallel()
	env := map[string]string{"GANTRY_ORPHAN_GRACE": "4s"}
	g := setup.Start(t, setup.Config{Env: env, Nodes: []setup.NodeConfig{{}, {}}})
	other := setup.Start(t, setup.Config{Env: env})
	starts := g.Engine.WatchStarts(g.Label())
	running := newTicking(g, "runs on one of the nodes", 60)
	g.MustSubmit(running.Task)
	ended := g.MustSubmit(g.Shell("true"))
	g.AwaitSuccess(ended)

	like := func(of *setup.Gantry, job contracts.JobID, attempt string) string {
		return of.Engine.Run(map[string]string{"gantry.installation": of.Installation(), "gantry.job": string(job), "gantry.attempt": attempt})
	}
	foreign := g.Engine.Run(map[string]string{"gantry.installation": "somebody-elses", "gantry.job": "unknown", "gantry.attempt": "1"})
	defer g.Engine.Remove(foreign)
	orphans := []string{like(g, "unknown", "1"), like(g, ended, "1"), like(g, running.ID, "7"), like(other, "unknown", "1")}
	for _, id := range orphans {
		g.Engine.AwaitRemoved(g.Context(), id)
	}
	if here := g.Engine.Containers("gantry.installation=somebody-elses"); !slices.Contains(here, foreign) {
		t.Errorf("the container of another installation is gone: %v", here)
	}
	running.checkAttempt(t, g)
	container := g.AwaitEntry(running.ID, contracts.EntryStarted, 1).Data.(*contracts.Started).Container
	starts.Of(g.Context(), string(running.ID), orphans[2]) // news of it may come later
	if all := starts.Of(g.Context(), string(running.ID), container); !slices.Contains(all, container) || len(all) != 2 {
		t.Errorf("containers %v were started: want %s, and the one like it", all, container)
	}
}
