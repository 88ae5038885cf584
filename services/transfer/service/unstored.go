package service

import (
	"sync"

	"github.com/gantry-worker/gantry/contracts"
)

// unstored has the results of steps that are done while their file cannot be
// written, as on a full disk, so that the work is not done again for it.
type unstored struct {
	mu      sync.Mutex
	results map[stepKey]*contracts.StepResult
}

func newUnstored() *unstored { return &unstored{results: map[stepKey]*contracts.StepResult{}} }

// get returns nil for a step that has no result here.
func (u *unstored) get(key stepKey) *contracts.StepResult {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.results[key]
}

func (u *unstored) keep(key stepKey, result *contracts.StepResult) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.results[key] = result
}

func (u *unstored) drop(key stepKey) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.results, key)
}
