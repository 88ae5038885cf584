package executor

import (
	"context"
	"sync"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/attempt"
)

// active knows the attempts that this executor owns or is about to claim.
type active struct {
	mu   sync.Mutex
	jobs map[contracts.JobID]*owned
}

type owned struct {
	attempt int
	cancel  context.CancelCauseFunc
	won     bool // the job's life says that it is ours
}

func newActive() *active { return &active{jobs: map[contracts.JobID]*owned{}} }

// add registers an attempt before it is claimed, so that no revoke falls in
// between. It reports false for a job that is registered already.
func (a *active) add(job contracts.JobID, number int, cancel context.CancelCauseFunc) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.jobs[job] != nil {
		return false
	}
	a.jobs[job] = &owned{attempt: number, cancel: cancel}
	return true
}

// won says that the attempt of a job, which was added before, is ours now.
func (a *active) won(job contracts.JobID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.jobs[job].won = true
}

func (a *active) remove(job contracts.JobID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.jobs, job)
}

// revoke stops the attempt of a job, if there is one.
func (a *active) revoke(revoke *contracts.Revoke) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if o := a.jobs[revoke.Job]; o != nil {
		o.cancel(&attempt.Revoked{Revoke: *revoke})
	}
}

// stop ends an attempt for a reason, if it is still there.
func (a *active) stop(job contracts.JobID, number int, why error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if o := a.jobs[job]; o != nil && o.attempt == number {
		o.cancel(why)
	}
}

// stopAll ends all attempts for a reason.
func (a *active) stopAll(why error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, o := range a.jobs {
		o.cancel(why)
	}
}

// attempts returns the number of each job's attempt that is ours. One that is
// about to be is not: what its life says of others is no loss.
func (a *active) attempts() map[contracts.JobID]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	numbers := make(map[contracts.JobID]int, len(a.jobs))
	for job, o := range a.jobs {
		if o.won {
			numbers[job] = o.attempt
		}
	}
	return numbers
}

func (a *active) has(job contracts.JobID, number int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	o := a.jobs[job]
	return o != nil && o.attempt == number
}

func (a *active) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.jobs)
}
