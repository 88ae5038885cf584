package docker

import (
	"sync"
	"time"
)

// freshFor is for how long a container that was just created is taken to be only
// created: nobody else starts it so soon.
const freshFor = 5 * time.Second

// fresh are the containers that were created a moment ago and not started since,
// so that nobody has to ask the engine whether they were.
type fresh struct {
	mu sync.Mutex
	at map[string]time.Time // by container: when it was created
}

func (f *fresh) add(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if f.at == nil {
		f.at = map[string]time.Time{}
	}
	for old, at := range f.at {
		if !isFresh(at, now) {
			delete(f.at, old)
		}
	}
	f.at[id] = now
}

// take reports whether the container is one of them, and forgets it.
func (f *fresh) take(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	at, ok := f.at[id]
	delete(f.at, id)
	return ok && isFresh(at, time.Now())
}

// isFresh goes by the wall clock, which goes on while the machine sleeps.
func isFresh(at, now time.Time) bool { return now.Round(0).Sub(at.Round(0)).Abs() < freshFor }
