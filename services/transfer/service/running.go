package service

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/gantry-worker/gantry/contracts"
)

// errAborted is the cause of every step that ends because nobody wants its result any more.
var errAborted = errors.New("aborted")

// errNotCurrent ends the steps of an attempt that is not the job's current one, or of a job that is ending.
var errNotCurrent = fmt.Errorf("%w: the attempt has ended", errAborted)

func revokedBy(r *contracts.Revoke) error {
	if r.By == "" {
		return fmt.Errorf("%w: the job was revoked", errAborted)
	}
	return fmt.Errorf("%w: the job was revoked by %s", errAborted, r.By)
}

// running knows the steps that run, so that a revoke finds them.
type running struct {
	mu    sync.Mutex
	steps map[stepKey]context.CancelCauseFunc
}

type stepKey struct {
	job     contracts.JobID
	attempt int
	step    string
}

func keyOf(step *contracts.Step) stepKey { return stepKey{step.Job, step.Attempt, step.Step} }

func newRunning() *running { return &running{steps: map[stepKey]context.CancelCauseFunc{}} }

// enter registers a step. It reports false for one that runs already. leave
// ends the step's context and its registration, and must be called.
func (r *running) enter(ctx context.Context, key stepKey) (inside context.Context, leave func(), ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.steps[key] != nil {
		return nil, nil, false
	}
	inside, cancel := context.WithCancelCause(ctx)
	r.steps[key] = cancel
	return inside, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.steps, key)
		cancel(errNotCurrent)
	}, true
}

// abort ends the contexts of a job's steps.
func (r *running) abort(job contracts.JobID, why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, cancel := range r.steps {
		if key.job == job {
			cancel(why)
		}
	}
}

func (r *running) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.steps)
}
