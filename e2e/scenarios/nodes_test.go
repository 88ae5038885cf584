package scenarios

import (
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
	"github.com/gantry-worker/gantry/e2e/workload"
)

// TestTwoNodes runs mixed tasks on two nodes of one machine whose services are
// killed now and then, beside another installation that shares an engine with
// them and has a job of the same id.
func TestTwoNodes(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"one engine", "two engines"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			second := setup.NodeConfig{}
			if name == "two engines" {
				second.DockerHost = setup.StartDockerd(t).Host
			}
			other := setup.Start(t, setup.Config{})
			c := newChaos(t, name, setup.Config{Nodes: []setup.NodeConfig{{}, second}})
			starts := other.Engine.WatchStarts(other.Label())
			same, theirs := newTicking(c.g, "ours", 20), newTicking(other, "theirs", 100)
			same.ID, theirs.ID = "same", "same"
			other.MustSubmit(theirs.Task)
			other.AwaitLog("same", "tick 1.")
			c.g.MustSubmit(same.Task)

			c.breaks, c.tasks = (c.breaks+4)/5, (c.tasks+1)/2
			c.shortest, c.longest = time.Second, 3*time.Second
			c.g.MayLoseUploads(c.breaks)
			c.during(func() {
				node := c.g.Nodes[c.random.IntN(2)]
				if c.random.IntN(2) == 0 {
					node.Transfer.Restart()
				} else {
					node.Executor.Restart()
				}
			})
			c.work.Check(workload.Expect{})
			c.g.AwaitSuccess("same")
			theirs.check(t, other, starts)
			claims := c.work.Claims()
			for _, node := range c.g.Nodes {
				if id, err := node.ID(); err != nil || claims[id] == 0 {
					t.Errorf("node %s (%v) has none of the claims %v", id, err, claims)
				}
			}
			checkSpread(t, c.g, 2)
		})
	}
}

// checkSpread submits as many tasks as all nodes have slots together: they run at
// once, on each node as many as it has.
func checkSpread(t *testing.T, g *setup.Gantry, slots int) {
	t.Helper()
	jobs := make([]contracts.JobID, slots*len(g.Nodes))
	for i := range jobs {
		jobs[i] = g.MustSubmit(g.Shell("echo ready; sleep 1000"))
	}
	run := map[contracts.NodeID]int{}
	for _, job := range jobs {
		g.AwaitLog(job, "ready")
		run[g.AwaitEntry(job, contracts.EntryClaimed, 1).Data.(*contracts.Claimed).Node]++
	}
	for _, node := range g.Nodes {
		if id, err := node.ID(); err != nil || run[id] != slots {
			t.Errorf("node %s (%v) runs %d of %v, and has %d slots", id, err, run[id], run, slots)
		}
	}
	for _, job := range jobs {
		if err := g.Revoke(g.Context(), contracts.Revoke{Job: job}); err != nil {
			t.Fatal(err)
		}
		g.AwaitEnd(job)
	}
}

// TestStepsGoToTheNodesTransfer has no transfer on the node that runs the task:
// the other node's does not help out.
func TestStepsGoToTheNodesTransfer(t *testing.T) {
	t.Parallel()
	g := setup.Start(t, setup.Config{Nodes: []setup.NodeConfig{{}, {}}, Slots: 1, Hold: []string{setup.Executor, setup.Transfer}})
	runs, other := g.Nodes[0], g.Nodes[1]
	runs.Executor.Start()
	g.AwaitExecutor(runs)
	other.Transfer.Start()
	g.AwaitTransfer(other)
	file := g.Girder.File("in.txt", []byte("content"))
	submit := func(title string) contracts.JobID {
		task := g.Shell(`cat "$1"`, &contracts.GirderFile{ID: file.ID})
		task.Girder = g.Girder.Of(title)
		return g.MustSubmit(task)
	}
	job := submit("waits for its node's transfer")
	g.AwaitEntry(job, contracts.EntryClaimed, 1)
	// The other node's transfer is not slow, but not asked: it does its own.
	other.Executor.Start()
	g.AwaitExecutor(other)
	g.AwaitSuccess(submit("has its node's transfer"))
	if types := g.Types(job); types != "submitted queued claimed" {
		t.Errorf("life: %s", types)
	}
	runs.Transfer.Start()
	g.AwaitSuccess(job)
	if log, _ := g.JobLog(job); log != "content" {
		t.Errorf("log: %q", log)
	}
}
