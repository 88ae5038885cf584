package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/tools/gantry/internal/show"
)

// Workers is `gantry workers`.
type Workers struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Run lists the running services.
func (w *Workers) Run(ctx context.Context, env *Env) error {
	return env.query(ctx, func(ctx context.Context, c *client.Client) error {
		workers, err := c.Workers(ctx)
		if err != nil {
			return err
		}
		slices.SortFunc(workers, func(a, b contracts.Instance) int {
			return strings.Compare(contracts.InstanceKey(a.Service, a.ID), contracts.InstanceKey(b.Service, b.ID))
		})
		if w.JSON {
			return env.printJSON(workers)
		}
		return env.print(show.Workers(workers, now(), env.OutStyle()))
	})
}
