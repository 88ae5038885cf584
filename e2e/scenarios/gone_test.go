package scenarios

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
)

// away is how long an executor is not heard of: longer than AckWait, after which
// a rival has the ready message, and than the rival asks for the owner after
// that; far shorter than [takeover].
const away = contracts.AckWait + 20*time.Second

// takeover is when an executor is taken for gone that is only silent: not while
// the test lasts, however slow the machine is.
const takeover = "30m"

// TestOwnerIsSilentForAWhile lets a second node have the ready message of a task
// whose executor is silent. While the first container lives there is no second.
func TestOwnerIsSilentForAWhile(t *testing.T) {
	t.Parallel()
	cases := map[string]struct{ silence, speak func(*setup.Node) }{
		"stopped":              {func(n *setup.Node) { n.Executor.Pause() }, func(n *setup.Node) { n.Executor.Resume() }},
		"cut off from NATS":    {func(n *setup.Node) { n.Network.Cut() }, func(n *setup.Node) { n.Network.Mend() }},
		"killed, starts again": {func(n *setup.Node) { n.Executor.Kill() }, func(n *setup.Node) { n.Executor.Start() }},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := setup.Start(t, setup.Config{
				Nodes: []setup.NodeConfig{{Proxied: true}, {}}, Hold: []string{setup.Executor}, Env: map[string]string{"GANTRY_TAKEOVER_AFTER": takeover},
			})
			owner, rival := g.Nodes[0], g.Nodes[1]
			owner.Executor.Start()
			g.AwaitExecutor(owner)
			starts := g.Engine.WatchStarts(g.Label())
			task := newTicking(g, "its executor is silent", int((away+10*time.Second)/(200*time.Millisecond)))
			g.MustSubmit(task.Task)
			g.AwaitLog(task.ID, "tick 2.")
			rival.Executor.Start()
			g.AwaitExecutor(rival)

			c.silence(owner)
			<-time.After(away) // the silence is what the test is made of
			awaitRedelivered(g)
			c.speak(owner)
			task.check(t, g, starts)
		})
	}
}

// awaitRedelivered waits until a rival was offered a task that somebody has.
func awaitRedelivered(g *setup.Gantry) {
	g.T.Helper()
	durable := contracts.ReadyConsumer(contracts.LaneNormal, contracts.DefaultQueue, contracts.KindDocker).Durable
	g.AwaitGone("tasks that no rival is offered", func() []string {
		consumer, err := g.JetStream().Consumer(g.Context(), contracts.StreamReady, durable)
		if err != nil {
			return []string{err.Error()}
		}
		if consumer.CachedInfo().NumRedelivered == 0 {
			return []string{"the only one"}
		}
		return nil
	})
}

// TestNodeIsGone takes a node away for good: exactly one new attempt follows, on
// the other node. When the first one is back after all, it removes its container
// and says nothing.
func TestNodeIsGone(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"an engine of its own", "one engine"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkNodeIsGone(t, name == "one engine")
		})
	}
}

func checkNodeIsGone(t *testing.T, oneEngine bool) {
	folder := given(t)
	first := setup.NodeConfig{}
	if !oneEngine {
		first.DockerHost = setup.StartDockerd(t).Host
	}
	g := setup.Start(t, setup.Config{
		Nodes: []setup.NodeConfig{first, {}}, Hold: []string{setup.Executor},
		Env: map[string]string{"GANTRY_TAKEOVER_AFTER": "20s", "GANTRY_ALLOW_BIND": folder + ":rw"},
	})
	owner, rival := g.Nodes[0], g.Nodes[1]
	owner.Executor.Start()
	g.AwaitExecutor(owner)
	task := bound(g, folder, "rw")
	task.Docker.Args[0].Text = `if [ -e /host/given ]; then echo began; sleep 1000; fi; echo ended`
	task.Girder = g.Girder.Of("its node is gone")
	job := g.MustSubmit(task)
	g.AwaitLog(job, "began")
	container := g.AwaitEntry(job, contracts.EntryStarted, 1).Data.(*contracts.Started).Container
	owner.Executor.Kill()
	owner.Transfer.Kill()
	if err := os.Remove(filepath.Join(folder, "given")); err != nil {
		t.Fatal(err)
	}
	rival.Executor.Start()

	end := g.AwaitEnd(job)
	if types := g.Types(job); types != "submitted queued claimed started claimed started succeeded" || end.Attempt != 2 || end.Crashes != 1 {
		t.Errorf("life: %s; it ended in attempt %d with %d crashes", types, end.Attempt, end.Crashes)
		t.Log(g.Story(job))
	}
	if id, err := rival.ID(); err != nil || g.AwaitEntry(job, contracts.EntryClaimed, 2).Data.(*contracts.Claimed).Node != id {
		t.Errorf("the second attempt is not on the second node %s (%v)", id, err)
	}
	if got := setup.Statuses(g.AwaitMirrored(job)); !slices.Equal(got, []string{"RUNNING", "SUCCESS"}) {
		t.Errorf("Girder's history: %v", got)
	}
	if here := owner.Engine.Containers("gantry.job=" + string(job)); slices.Contains(here, container) == oneEngine {
		t.Errorf("containers %v are on the engine of the first attempt, whose container is %s", here, container)
	}
	life := g.Types(job)
	owner.Transfer.Start()
	owner.Executor.Start()
	g.AwaitExecutor(owner)
	owner.Engine.AwaitRemoved(g.Context(), container)
	// It is through with what it found when it takes tasks.
	rival.Executor.Stop()
	g.AwaitSuccess(g.MustSubmit(g.Shell("true")))
	if now := g.Types(job); now != life {
		t.Errorf("life: %s, and before its first node was back %s", now, life)
	}
}
