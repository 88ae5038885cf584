package girder

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Retry says how patiently something is tried again after a temporary error.
// The waits grow from First to Max, with jitter; a server's Retry-After counts
// where it is longer.
type Retry struct {
	Total time.Duration // give up this long after the last progress; negative: try once
	First time.Duration
	Max   time.Duration
	// Foreign says that refusals for which [IsForeign] holds are temporary too.
	Foreign bool
	// Turns, if not nil, lets others go first while this waits.
	Turns Turns
}

// Turns are what somebody who tries again gives away for the time of each wait.
type Turns interface {
	// Give is called before a wait.
	Give(wait time.Duration)
	// Take is called after it, before the next try, unless the context ended. It may
	// wait, which is not counted as patience. An error ends [Retry.Do].
	Take(ctx context.Context) error
}

// DefaultRetry is what a [Client] does unless told otherwise.
var DefaultRetry = Retry{Total: time.Minute, First: 200 * time.Millisecond, Max: 10 * time.Second}

func (r Retry) withDefaults() Retry {
	if r.Total == 0 {
		r.Total = DefaultRetry.Total
	}
	if r.First == 0 {
		r.First = DefaultRetry.First
	}
	if r.Max == 0 {
		r.Max = DefaultRetry.Max
	}
	return r
}

func (r Retry) again(err error) bool {
	return IsTemporary(err) || r.Foreign && IsForeign(err)
}

// Do calls try until it returns no error, one that is not temporary, or
// patience ends; then it returns the last error, or the cause of an ended
// context. A try that reports progress starts the patience anew. waiting, if
// not nil, is told of each wait.
func (r Retry) Do(ctx context.Context, waiting func(err error, wait time.Duration), try func() (progress bool, err error)) error {
	began := time.Now()
	progress, err := try()
	if err == nil { // which is usual, and needs nothing of what follows
		return nil
	}
	r = r.withDefaults()
	return r.goOn(ctx, waiting, try, newPatience(r, began), progress, err)
}

// goOn is Do after a first try that failed.
func (r Retry) goOn(ctx context.Context, waiting func(error, time.Duration), try func() (bool, error), p *patience, progress bool, err error) error {
	first, gave := true, false
	_, err = backoff.Retry(ctx, func() (struct{}, error) {
		if gave {
			gave = false
			began := time.Now()
			if err := r.Turns.Take(ctx); err != nil {
				return struct{}{}, backoff.Permanent(err)
			}
			p.since = p.since.Add(time.Since(began))
		}
		if !first {
			progress, err = try()
		}
		first = false
		p.note(progress, err)
		if err != nil && (!r.again(err) || r.Total < 0) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(p), backoff.WithMaxElapsedTime(0), backoff.WithNotify(func(err error, wait time.Duration) {
		if waiting != nil {
			waiting(err, wait)
		}
		if r.Turns != nil {
			r.Turns.Give(wait)
			gave = true
		}
	}))
	return err
}

// patience is the backoff of one [Retry.Do].
type patience struct {
	total  time.Duration
	since  time.Time     // of the last progress
	asked  time.Duration // by the server, in its last answer
	growth *backoff.ExponentialBackOff
}

func newPatience(r Retry, began time.Time) *patience {
	growth := backoff.NewExponentialBackOff()
	growth.InitialInterval, growth.MaxInterval, growth.Multiplier = r.First, r.Max, 2
	return &patience{total: r.Total, since: began, growth: growth}
}

func (p *patience) note(progress bool, err error) {
	if progress {
		p.since = time.Now()
		p.growth.Reset()
	}
	p.asked = 0
	var refusal *Error
	if errors.As(err, &refusal) {
		p.asked = refusal.RetryAfter
	}
	// What our own bounds took is not the server's.
	if p.since = p.since.Add(waited(err)); p.since.After(time.Now()) {
		p.since = time.Now()
	}
}

// waited is how long a request was kept by our own bounds on traffic.
func waited(err error) time.Duration {
	var refusal *Error
	var broken *Unreachable
	switch {
	case errors.As(err, &refusal):
		return refusal.Waited
	case errors.As(err, &broken):
		return broken.Waited
	}
	return 0
}

// NextBackOff gives the next wait, or Stop when it would not end in time.
func (p *patience) NextBackOff() time.Duration {
	wait := max(p.growth.NextBackOff(), p.asked)
	if time.Since(p.since)+wait > p.total {
		return backoff.Stop
	}
	return wait
}

// Reset is called once before the first try.
func (p *patience) Reset() { p.growth.Reset() }
