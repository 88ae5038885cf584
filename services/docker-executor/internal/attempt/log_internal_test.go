package attempt

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// awayEngine is an engine that went away for good.
type awayEngine struct{ engine.Engine }

func (awayEngine) Logs(_ context.Context, _ string, _ engine.Streams, since engine.Position, _ func(engine.Frame) error) (engine.Position, error) {
	return since, &engine.Error{Op: "read the log of", Subject: "container x", Kind: engine.ErrUnavailable}
}

func (awayEngine) Start(context.Context, string) error {
	return &engine.Error{Op: "start", Subject: "container x", Kind: engine.ErrUnavailable}
}

// An engine that stays away does not keep an attempt from its end for ever.
func TestTheLogOfAnEngineThatStaysAwayIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := &Attempt{tools: &Tools{Engine: &engine.Watched{Engine: awayEngine{}}}, log: zerolog.Nop()}
		err := a.readLog(t.Context(), engine.Both, engine.Position{}, nil)
		if !errors.Is(err, engine.ErrUnavailable) {
			t.Errorf("ended with %v", err)
		}
	})
}
