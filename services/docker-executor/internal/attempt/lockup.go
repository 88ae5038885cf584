package attempt

import (
	"context"
	"errors"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// lockedUp is what the people who watch are told.
const lockedUp = "the container engine has locked up or its host is overloaded"

// outlasts reports whether a call that ended with err is to be made again, since
// the engine had locked up: then it has waited until the engine answers.
func (a *Attempt) outlasts(ctx context.Context, err error) bool {
	if !errors.Is(err, engine.ErrSilent) {
		return false
	}
	if !errors.Is(err, engine.ErrLockedUp) {
		if _, err := a.tools.Engine.Run(ctx); !errors.Is(err, engine.ErrLockedUp) {
			return false
		}
	}
	a.notes.Phase(contracts.Phase{Phase: contracts.PhaseRunning, Waiting: lockedUp})
	defer a.notes.Phase(contracts.Phase{Phase: contracts.PhaseRunning})
	return a.tools.Engine.Answers(ctx) == nil
}

// wait returns how the container ended. An engine that has said nothing of it,
// and answers otherwise, is asked once more: it may have been locked up until
// just now.
func (a *Attempt) wait(watching context.Context) (exit engine.Exit, err error) {
	for silent := 0; silent < 2; {
		exit, err = a.tools.Engine.Wait(watching, a.container, a.folder.EngineRun)
		if !errors.Is(err, engine.ErrSilent) {
			return exit, err
		}
		if !a.outlasts(watching, err) {
			silent++
		}
	}
	return exit, err
}
