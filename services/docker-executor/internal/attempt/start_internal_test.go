package attempt

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// An engine that stays away has its container's start given up, after a while.
func TestAStartOnAnEngineThatStaysAwayIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now() // of the bubble's clock
		a := &Attempt{
			tools: &Tools{Engine: &engine.Watched{Engine: awayEngine{}}}, log: zerolog.Nop(),
			lastAt: began.Add(startPatience), // so that nobody may have taken over
		}
		err := a.startPatiently(t.Context())
		if !errors.Is(err, engine.ErrUnavailable) || time.Since(began) < startPatience {
			t.Errorf("ended with %v after %s", err, time.Since(began))
		}
	})
}
