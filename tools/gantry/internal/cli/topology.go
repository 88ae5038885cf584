package cli

import (
	"context"

	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/tools/gantry/internal/show"
)

// Topology is `gantry topology`.
type Topology struct {
	Show  TopologyShow  `cmd:"" default:"withargs" help:"Show the streams and buckets."`
	Apply TopologyApply `cmd:"" help:"Create or update the streams and buckets; the dispatcher does it too when it starts."`
}

// TopologyShow is `gantry topology show`.
type TopologyShow struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Run shows the topology.
func (s *TopologyShow) Run(ctx context.Context, env *Env) error {
	return env.query(ctx, func(ctx context.Context, c *client.Client) error { return env.showTopology(ctx, c, s.JSON) })
}

// TopologyApply is `gantry topology apply`.
type TopologyApply struct {
	Replicas int  `help:"Replicas of every stream: 1, or 3 on a cluster." enum:"1,3" default:"1"`
	JSON     bool `name:"json" help:"Print JSON."`
}

// Run applies the topology and shows it.
func (a *TopologyApply) Run(ctx context.Context, env *Env) error {
	return env.query(ctx, func(ctx context.Context, c *client.Client) error {
		if err := c.ApplyTopology(ctx, a.Replicas); err != nil {
			return err
		}
		return env.showTopology(ctx, c, a.JSON)
	})
}

func (e *Env) showTopology(ctx context.Context, c *client.Client, asJSON bool) error {
	states, err := c.Topology(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		return e.printJSON(states)
	}
	return e.print(show.Topology(states, e.OutStyle()))
}
