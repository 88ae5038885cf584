package service

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/transfer/internal/stage"
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
	steps map[stepKey]runningStep
}

type runningStep struct {
	cancel context.CancelCauseFunc
	left   chan struct{}
	again  func() // is told that somebody asks for it; nil: nobody is
}

type stepKey struct {
	job     contracts.JobID
	attempt int
	step    string
}

func keyOf(step *contracts.Step) stepKey { return stepKey{step.Job, step.Attempt, step.Step} }

func newRunning() *running { return &running{steps: map[stepKey]runningStep{}} }

// enter registers a step. It reports false for one that runs already. Where ctx
// ends, with the service, the step's context is suspended. leave ends that and
// its registration, and must be called.
func (r *running) enter(ctx context.Context, key stepKey) (inside context.Context, leave func(), ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, runs := r.steps[key]; runs {
		return nil, nil, false
	}
	inside, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	unhook := context.AfterFunc(ctx, func() { cancel(stage.ErrSuspended) })
	left := make(chan struct{})
	r.steps[key] = runningStep{cancel: cancel, left: left}
	return inside, func() {
		unhook()
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.steps, key)
		close(left)
		cancel(errNotCurrent)
	}, true
}

// hear has a step that runs told whenever it is asked for again.
func (r *running) hear(key stepKey, again func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if step, runs := r.steps[key]; runs {
		step.again = again
		r.steps[key] = step
	}
}

// askedAgain tells a step that somebody asks for it, who may have heard nothing of
// it yet.
func (r *running) askedAgain(key stepKey) {
	r.mu.Lock()
	step := r.steps[key]
	r.mu.Unlock()
	if step.again != nil {
		step.again()
	}
}

// has reports whether a step runs.
func (r *running) has(key stepKey) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, runs := r.steps[key]
	return runs
}

// drop ends the context of one step.
func (r *running) drop(key stepKey, why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if step, runs := r.steps[key]; runs {
		step.cancel(why)
	}
}

// abort ends the contexts of a job's steps.
func (r *running) abort(job contracts.JobID, why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, step := range r.steps {
		if key.job == job {
			step.cancel(why)
		}
	}
}

// endOlder ends the steps of a job's older attempts and waits until they have:
// two attempts that put the same file into Girder at once would make two of it.
func (r *running) endOlder(ctx context.Context, than *contracts.Step) error {
	for _, left := range r.older(than) {
		select {
		case <-left:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (r *running) older(than *contracts.Step) []chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []chan struct{}
	for key, step := range r.steps {
		if key.job == than.Job && key.attempt < than.Attempt {
			step.cancel(errNotCurrent)
			found = append(found, step.left)
		}
	}
	return found
}
