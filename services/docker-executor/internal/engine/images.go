package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
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

// Images makes sure that images are present. Of each image there is one pull at
// a time, which all who ask for it share; different images are pulled side by
// side.
type Images struct {
	store ImageStore
	idle  time.Duration

	mu    sync.Mutex
	pulls map[string]*pull // by reference
}

// NewImages returns Images over an engine's store. A pull that makes no
// progress for idle is given up; 0 means DefaultPullIdle.
func NewImages(store ImageStore, idle time.Duration) *Images {
	if idle <= 0 {
		idle = DefaultPullIdle
	}
	return &Images{store: store, idle: idle, pulls: map[string]*pull{}}
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

// run pulls and watches that the pull moves.
func (im *Images) run(ctx context.Context, p *pull) {
	defer close(p.done)
	defer p.cancel(nil)
	silent := &Error{
		Op: "pull", Subject: "image " + p.ref, Kind: ErrRegistryUnavailable,
		Detail: fmt.Sprintf("no progress for %s", im.idle),
	}
	watchdog := time.AfterFunc(im.idle, func() { p.cancel(silent) })
	defer watchdog.Stop()

	p.err = im.store.Pull(ctx, p.ref, func(pp PullProgress) {
		watchdog.Reset(im.idle)
		im.tell(p, pp)
	})
	if p.err != nil && context.Cause(ctx) == silent {
		p.err = silent
	}
	im.mu.Lock()
	if im.pulls[p.ref] == p {
		delete(im.pulls, p.ref)
	}
	im.mu.Unlock()
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
