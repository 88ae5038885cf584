package service

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gantry-worker/gantry/contracts"
)

// manyWays is how many ways have places at the same time, all of them taken.
const manyWays = 4

// places bounds the steps at work, so that none holds up those that it has
// nothing to do with:
//
//   - each way to a Girder has its own places, and the node four times as many, so
//     steps of a Girder that is slow or away wait for one another only;
//   - a step that waits to try something again gives its place up meanwhile, so
//     that a file that Girder cannot send does not hold up those that it can;
//   - the job with the fewest steps at work is served first, so that a task with a
//     thousand files, or with some that Girder never sends, does not hold up one
//     with a single file. Of those alike, who had a place before is served first.
//
// How many files move at the same time is another matter, that of [girder.Traffic].
type places struct {
	each int
	long time.Duration // a wait before the next try in which a step needs no place

	mu      sync.Mutex
	waiting []*waiter // as they came
	all     int       // places that are taken
	ways    map[way]int
	jobs    map[contracts.JobID]int
}

// way is what steps have in common that wait for one another: the Girder that
// they speak to, and the job where the task brings a proxy of its own, which may
// be broken while Girder is well.
type way struct {
	host string
	job  contracts.JobID
}

// waiter is a step without a place.
type waiter struct {
	way   way
	job   contracts.JobID
	again bool // had one before
	got   chan struct{}
}

func newPlaces(each int, long time.Duration) *places {
	return &places{each: each, long: long, ways: map[way]int{}, jobs: map[contracts.JobID]int{}}
}

// wayOf tells a step's way. api replaces the step's URL if it is not empty.
func wayOf(step *contracts.Step, api string) way {
	if api == "" {
		api = step.Girder.APIURL
	}
	w := way{host: api}
	if u, err := url.Parse(api); err == nil {
		w.host = strings.ToLower(u.Host)
	}
	if session := step.Session; session != nil && len(session.Proxies) > 0 {
		w.job = step.Job
	}
	return w
}

// atWork is how many places are taken.
func (p *places) atWork() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all
}

// take waits for a place, to be given back, and calls waits if there is none at
// once. The error is the cause of a context that ended before.
func (p *places) take(ctx context.Context, w *waiter, waits func(context.Context)) error {
	w.got = make(chan struct{})
	p.mu.Lock()
	p.waiting = append(p.waiting, w)
	p.grant()
	p.mu.Unlock()
	select {
	case <-w.got:
		return nil
	default:
		waits(ctx)
	}
	select {
	case <-w.got:
		return nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if at := slices.Index(p.waiting, w); at >= 0 {
		p.waiting = slices.Delete(p.waiting, at, at+1)
	} else {
		p.count(w, -1)
		p.grant()
	}
	return context.Cause(ctx)
}

func (p *places) giveBack(w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count(w, -1)
	p.grant()
}

// grant gives every place that is free to whoever is next.
func (p *places) grant() {
	for {
		next := p.next()
		if next < 0 {
			return
		}
		w := p.waiting[next]
		p.waiting = slices.Delete(p.waiting, next, next+1)
		p.count(w, 1)
		close(w.got)
	}
}

// next returns the waiter whose turn it is, -1 if nobody can have a place.
func (p *places) next() int {
	next := -1
	if p.all == manyWays*p.each {
		return next
	}
	for i, w := range p.waiting {
		if p.ways[w.way] < p.each && (next < 0 || p.before(w, p.waiting[next])) {
			next = i
		}
	}
	return next
}

// before reports whether w comes before one that has waited for longer.
func (p *places) before(w, longer *waiter) bool {
	if mine, others := p.jobs[w.job], p.jobs[longer.job]; mine != others {
		return mine < others
	}
	return w.again && !longer.again
}

func (p *places) count(w *waiter, n int) {
	p.all += n
	if p.ways[w.way] += n; p.ways[w.way] == 0 {
		delete(p.ways, w.way)
	}
	if p.jobs[w.job] += n; p.jobs[w.job] == 0 {
		delete(p.jobs, w.job)
	}
}

// turn is the place of one step, whose files move in several goroutines. It is
// given up as soon as one of them waits for long; the others go on, since how
// many files move at the same time is not the places' matter.
type turn struct {
	places *places
	as     waiter
	told   waitingTold
	taking chan struct{} // by one of them

	mu    sync.Mutex
	place *waiter // nil: none
}

// waitingTold is told when a step begins to wait for a place, and when it has one.
type waitingTold struct {
	waits  func(ctx context.Context)
	goesOn func()
}

// turn waits for a step's first place. end must be called, also after an error.
func (p *places) turn(ctx context.Context, step *contracts.Step, api string, told waitingTold) (*turn, error) {
	t := &turn{places: p, as: waiter{way: wayOf(step, api), job: step.Job}, told: told, taking: make(chan struct{}, 1)}
	err := t.Take(ctx)
	t.as.again = true
	return t, err
}

// Give gives the place up before a wait, unless that is a short one.
func (t *turn) Give(wait time.Duration) {
	if wait >= t.places.long {
		t.end()
	}
}

// Take takes the place again.
func (t *turn) Take(ctx context.Context) error {
	select {
	case t.taking <- struct{}{}:
		defer func() { <-t.taking }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if t.has() {
		return nil
	}
	place := t.as
	if err := t.places.take(ctx, &place, t.told.waits); err != nil {
		return err
	}
	t.mu.Lock()
	t.place = &place
	t.mu.Unlock()
	t.told.goesOn()
	return nil
}

func (t *turn) has() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.place != nil
}

// end gives the place up.
func (t *turn) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.place != nil {
		t.places.giveBack(t.place)
		t.place = nil
	}
}
