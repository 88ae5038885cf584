package executor

import (
	"context"
	"errors"
	"fmt"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// Networks of tasks that name none, besides the name of one.
const (
	// AutoNetwork is that of the executor's own container.
	AutoNetwork = "auto"
	// NoNetwork leaves it to the engine.
	NoNetwork = "none"
)

// Locate finds out, before Run, whether the executor itself runs in a container
// of its engine: that one's mounts say what the host calls a path, and names
// resolve alike in its network. It waits for an engine that is away. An error is
// for good.
func (e *Executor) Locate(ctx context.Context, network string) error {
	self, err := e.awaitSelf(ctx)
	if err != nil {
		return err
	}
	e.Tools.Self = self
	if self != nil {
		zerolog.Ctx(ctx).Info().Str("container", self.ID).Strs("networks", self.Networks).Msg("running in a container")
	}
	switch {
	case network == AutoNetwork || network == "":
		if self != nil && len(self.Networks) > 0 {
			e.Tools.Network = self.Networks[0]
		}
	case network != NoNetwork:
		e.Tools.Network = network
	}
	if _, err := e.Tools.OnHost(e.WorkRoot); err != nil {
		return fmt.Errorf("work folder %s: %w: mount a folder of the host there, for containers of tasks to see it too", e.WorkRoot, err)
	}
	return nil
}

func (e *Executor) awaitSelf(ctx context.Context) (*engine.Self, error) {
	for {
		self, err := e.Tools.Engine.Self(ctx)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case !errors.Is(err, engine.ErrUnavailable):
			return self, err
		}
		e.setNotReady(err)
		pause(ctx, retryPull)
	}
}
