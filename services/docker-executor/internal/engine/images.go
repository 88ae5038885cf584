package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// PullPolicy says when an image is fetched from its registry.
type PullPolicy string

// The pull policies, in the words of a task specification.
const (
	PullAlways  PullPolicy = "always"
	PullMissing PullPolicy = "missing"
	PullNever   PullPolicy = "never"
)

// DefaultPullIdle is how long a pull may go without any progress.
const DefaultPullIdle = 5 * time.Minute

// PullLimits bound a pull with all its tries.
type PullLimits struct {
	Idle  time.Duration // without any progress; 0: DefaultPullIdle
	Total time.Duration // from its beginning; 0: none
}

// maxPulls is how often a pull is tried that the registry or the network made
// fail. The engine keeps the layers that it got.
const maxPulls = 5

// Images makes sure that images are present. Of each image there is one pull at
// a time, which all who ask for it share; different images are pulled side by
// side.
type Images struct {
	store  ImageStore
	limits PullLimits

	mu    sync.Mutex
	pulls map[string]*pull // by reference
}

// NewImages returns Images over an engine's store.
func NewImages(store ImageStore, limits PullLimits) *Images {
	if limits.Idle <= 0 {
		limits.Idle = DefaultPullIdle
	}
	return &Images{store: store, limits: limits, pulls: map[string]*pull{}}
}

// Ensure returns the image after it was pulled, if the policy asks for that.
// progress may be nil; it is never called concurrently, nor after the return.
// A context that ends leaves a pull to the others who wait for it and stops it
// when there are none.
func (im *Images) Ensure(ctx context.Context, ref string, policy PullPolicy, progress func(PullProgress)) (Image, error) {
	switch policy {
	case PullAlways:
	case PullMissing, PullNever:
		image, err := im.store.Image(ctx, ref)
		if err == nil || !errors.Is(err, ErrImageNotFound) {
			return image, err
		}
		if policy == PullNever {
			return Image{}, &Error{
				Op: "find", Subject: "image " + ref, Kind: ErrImageNotFound,
				Detail: `the engine does not have it, and the pull policy is "never"`,
			}
		}
	default:
		return Image{}, fmt.Errorf("ensure image %s: unknown pull policy %q: want always, missing or never", ref, policy)
	}
	if err := im.pull(ctx, ref, progress); err != nil {
		return Image{}, err
	}
	return im.store.Image(ctx, ref)
}

// pull joins the pull of ref that is under way, or begins one.
func (im *Images) pull(ctx context.Context, ref string, progress func(PullProgress)) error {
	p, listener := im.join(ctx, ref, progress)
	defer im.leave(p, listener)
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (im *Images) join(ctx context.Context, ref string, progress func(PullProgress)) (*pull, *listener) {
	im.mu.Lock()
	defer im.mu.Unlock()
	p := im.pulls[ref]
	if p == nil {
		// The pull outlives the one who asked first while others wait for it.
		pctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
		p = &pull{ref: ref, cancel: cancel, done: make(chan struct{}), listeners: map[*listener]struct{}{}}
		im.pulls[ref] = p
		go im.run(pctx, p)
	}
	l := &listener{progress: progress}
	p.listeners[l] = struct{}{}
	return p, l
}

// leave ends one caller's part. The last one stops a pull that still runs and
// waits until it has ended: no pull outlives all its callers.
func (im *Images) leave(p *pull, l *listener) {
	im.mu.Lock()
	delete(p.listeners, l)
	last := len(p.listeners) == 0
	if last && im.pulls[p.ref] == p {
		delete(im.pulls, p.ref) // whoever comes now begins anew
	}
	im.mu.Unlock()
	l.close()
	if last {
		p.cancel(errNobodyWaits)
		<-p.done
	}
}

var errNobodyWaits = errors.New("nobody waits for this pull any more")

// run pulls within the limits.
func (im *Images) run(ctx context.Context, p *pull) {
	defer close(p.done)
	defer p.cancel(nil)
	p.err = im.tries(ctx, p)
	im.mu.Lock()
	if im.pulls[p.ref] == p {
		delete(im.pulls, p.ref)
	}
	im.mu.Unlock()
}

// tries pulls again where the registry or the network failed and may not the
// next time.
func (im *Images) tries(ctx context.Context, p *pull) error {
	silent := im.limitOf(p, fmt.Sprintf("no progress for %s", im.limits.Idle))
	watchdog := time.AfterFunc(im.limits.Idle, func() { p.cancel(silent) })
	defer watchdog.Stop()
	if total := im.limits.Total; total > 0 {
		late := im.limitOf(p, fmt.Sprintf("not there after %s, the limit of the executor's pull_timeout", total))
		defer time.AfterFunc(total, func() { p.cancel(late) }).Stop()
	}
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = time.Second, 30*time.Second
	var last error
	ended := func(err error) error {
		switch cause := context.Cause(ctx); {
		case errors.Is(cause, silent) && last != nil:
			return last // which says more
		case isLimit(cause):
			return cause
		default:
			return err
		}
	}
	for failed := 1; ; failed++ {
		err := im.store.Pull(ctx, p.ref, func(pp PullProgress) {
			watchdog.Reset(im.limits.Idle)
			im.tell(p, pp)
		})
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ended(err)
		case !errors.Is(err, ErrRegistryUnavailable):
			return err
		case failed == maxPulls:
			return afterTries(err, failed)
		}
		last = err
		select {
		case <-ctx.Done():
			return ended(context.Cause(ctx))
		case <-time.After(pause.NextBackOff()):
		}
	}
}

// afterTries adds to an error how often there was one.
func afterTries(err error, times int) error {
	failed := (*Error)(nil)
	if !errors.As(err, &failed) {
		return err
	}
	again := *failed
	again.Detail = strings.TrimSpace(fmt.Sprintf("%s (tried %d times)", again.Detail, times))
	return &again
}

// limitOf is the cause that ends a pull when a limit is reached.
func (im *Images) limitOf(p *pull, detail string) error {
	return &Error{Op: "pull", Subject: "image " + p.ref, Kind: ErrRegistryUnavailable, Detail: detail}
}

// isLimit reports whether a pull was ended by one of its limits.
func isLimit(cause error) bool {
	limit := (*Error)(nil)
	return errors.As(cause, &limit)
}

func (im *Images) tell(p *pull, pp PullProgress) {
	im.mu.Lock()
	listeners := make([]*listener, 0, len(p.listeners))
	for l := range p.listeners {
		listeners = append(listeners, l)
	}
	im.mu.Unlock()
	for _, l := range listeners {
		l.tell(pp)
	}
}

// pull is one pull that is under way.
type pull struct {
	ref       string
	cancel    context.CancelCauseFunc
	done      chan struct{}
	err       error                  // set before done is closed
	listeners map[*listener]struct{} // guarded by Images.mu
}

// listener is one caller's progress function, silenced once that caller left.
type listener struct {
	mu       sync.Mutex
	progress func(PullProgress)
}

func (l *listener) tell(pp PullProgress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.progress != nil {
		l.progress(pp)
	}
}

func (l *listener) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.progress = nil
}
