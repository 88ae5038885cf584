package scenarios

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
	"github.com/gantry-worker/gantry/e2e/workload"
)

// TestClusterLosesItsLeader runs NATS as three servers of which the leader of the
// lives is killed again and again, and then two at once: without a quorum no
// service says that it is ready.
func TestClusterLosesItsLeader(t *testing.T) {
	t.Parallel()
	c := newChaos(t, "cluster", setup.Config{Servers: 3, Health: true, Slots: 4})
	c.breaks, c.tasks = (c.breaks+4)/5, (c.tasks+1)/2
	c.shortest, c.longest = time.Second, 2*time.Second
	c.during(func() {
		leader := awaitWhole(c.g)
		leader.Kill()
		<-time.After(time.Duration(c.random.Int64N(int64(2 * time.Second)))) // so long it is away
		leader.Start()
	})
	awaitWhole(c.g)
	c.work.Check(workload.Expect{})

	for _, server := range c.g.Servers[:2] {
		server.Stop()
	}
	ready := func(want bool) {
		for _, name := range []string{setup.Dispatcher, setup.Executor, setup.Transfer, setup.Tracker} {
			c.g.Services[name].AwaitReady(c.g.Context(), want)
		}
	}
	ready(false)
	for _, server := range c.g.Servers[:2] {
		server.Start()
	}
	ready(true)
	c.g.AwaitSuccess(c.g.MustSubmit(c.g.Shell("true")))
}

// awaitWhole waits until all servers have all of the lives, and returns the
// leader. It has to ask again and again: nobody is told.
func awaitWhole(g *setup.Gantry) *setup.Process {
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		if leader := wholeUnder(g); leader != nil {
			return leader
		}
		select {
		case <-again.C:
		case <-g.Context().Done():
			g.T.Fatal("the cluster does not become whole")
		}
	}
}

// wholeUnder returns the leader of a whole cluster, or nil.
func wholeUnder(g *setup.Gantry) *setup.Process {
	// An answer that is lost with its connection never comes.
	ctx, cancel := context.WithTimeout(g.Context(), 5*time.Second)
	defer cancel()
	stream, err := g.JetStream().Stream(ctx, contracts.StreamJobs)
	if err != nil {
		return nil
	}
	cluster := stream.CachedInfo().Cluster
	if cluster == nil || len(cluster.Replicas) != len(g.Servers)-1 {
		return nil
	}
	if slices.ContainsFunc(cluster.Replicas, func(p *jetstream.PeerInfo) bool { return !p.Current || p.Offline }) {
		return nil
	}
	i := slices.IndexFunc(g.Servers, func(p *setup.Process) bool { return p.Name == cluster.Leader })
	if i < 0 {
		return nil
	}
	return g.Servers[i]
}
