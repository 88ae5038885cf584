package executor

import (
	"context"
	"sync"
)

// slots counts what runs at once. What is adopted runs already, and is counted
// whether a slot is free for it or not.
type slots struct {
	mu    sync.Mutex
	total int
	used  int
	freed chan struct{} // gets a value when a slot may have become free
}

func newSlots(total int) *slots { return &slots{total: total, freed: make(chan struct{}, 1)} }

// take waits for a free slot and takes it, or returns false when ctx has ended.
func (s *slots) take(ctx context.Context) bool {
	for !s.tryTake() {
		select {
		case <-ctx.Done():
			return false
		case <-s.freed:
		}
	}
	return true
}

func (s *slots) tryTake() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used >= s.total {
		return false
	}
	s.used++
	return true
}

// add takes a slot that need not be free, and reports whether it was not.
func (s *slots) add() (crowded bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used++
	return s.used > s.total
}

// crowded reports whether more runs than there are slots.
func (s *slots) crowded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used > s.total
}

func (s *slots) release() {
	s.mu.Lock()
	s.used--
	s.mu.Unlock()
	select {
	case s.freed <- struct{}{}:
	default:
	}
}
