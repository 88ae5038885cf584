package contracts

import "time"

// What a task that says nothing gets.
const (
	DefaultMaxCrashes = 3
	DefaultBackoff    = 2 * time.Second
	DefaultMaxBackoff = 5 * time.Minute
)

// Crashes returns how many further attempts may follow infrastructure ends.
func (r *Retry) Crashes() int {
	if r == nil || r.MaxCrashes == nil {
		return DefaultMaxCrashes
	}
	return *r.MaxCrashes
}

// Failures returns how many further attempts may follow the task's own failures.
func (r *Retry) Failures() int {
	if r == nil {
		return 0
	}
	return r.MaxFailures
}

// Delay returns how long to wait before the next attempt when ended attempts
// have ended: the first delay is Backoff, each further one is twice as long,
// up to MaxBackoff.
func (r *Retry) Delay(ended int) time.Duration {
	delay, ceiling := DefaultBackoff, DefaultMaxBackoff
	if r != nil && r.Backoff > 0 {
		delay = time.Duration(r.Backoff)
	}
	if r != nil && r.MaxBackoff > 0 {
		ceiling = time.Duration(r.MaxBackoff)
	}
	for range ended - 1 {
		if delay >= ceiling/2 {
			return ceiling
		}
		delay *= 2
	}
	return min(delay, ceiling)
}
