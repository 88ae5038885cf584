package model

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	dispatcher "github.com/gantry-worker/gantry/services/dispatcher/service"
	executor "github.com/gantry-worker/gantry/services/docker-executor/service"
	tracker "github.com/gantry-worker/gantry/services/job-tracker/service"
)

// What the services are configured with. On a clock that costs nothing these
// are the defaults.
const (
	lostAfter = 15 * time.Minute
	slots     = 2
)

// span is a time in which an actor could not be reached.
type span struct{ from, to time.Time }

// actor is one process: a service, or the client.
type actor struct {
	world *world
	name  string
	node  *node // of an executor
	index int

	cancel context.CancelFunc
	ended  chan struct{} // closed when run has returned

	mu      sync.Mutex
	id      string // as NATS knows it: docker-executor/ex-…
	links   map[*link]bool
	dead    bool
	leaving bool          // told to stop
	held    chan struct{} // closed when the actor is reached again; nil while it is
	stopped bool          // held, and its calls to the engine are as well
	away    []span        // when it was not reached; the last one may be open
}

// start begins the process.
func (w *world) start(name string, n *node, run func(context.Context, *actor) error) *actor {
	a := &actor{world: w, name: name, node: n, index: len(w.actors), links: map[*link]bool{}, ended: make(chan struct{})}
	w.actors = append(w.actors, a)
	ctx, cancel := context.WithCancel(zerolog.New(w.trace.writer(a)).Level(zerolog.InfoLevel).WithContext(context.Background()))
	a.cancel = cancel
	w.trace.event("%s starts", name)
	go func() {
		defer close(a.ended)
		err := run(ctx, a)
		if ctx.Err() == nil && err != nil {
			w.fail("", "%s ended by itself: %v", name, err)
		}
		a.note("ended")
		a.setAway(true)
	}()
	return a
}

func (a *actor) note(text string) { a.world.trace.add(a.name, text) }

// nats is how the actor's service reaches NATS.
func (a *actor) nats() client.Config {
	return client.Config{URL: "nats://127.0.0.1:4222", Token: natstest.Token, Dialer: network{a}}
}

func (w *world) startDispatcher() *actor {
	w.dispatchers++
	return w.start(fmt.Sprint("dispatcher-", w.dispatchers), nil, func(ctx context.Context, a *actor) error {
		return dispatcher.Run(ctx, dispatcher.Config{
			NATS: a.nats(), Replicas: w.server.replicas(), Queues: []contracts.Queue{contracts.DefaultQueue}, MaxQueued: 1000,
			SweepInterval: w.sweep, LostAfter: lostAfter,
		})
	})
}

func (w *world) startTracker() *actor {
	w.trackers++
	return w.start(fmt.Sprint("tracker-", w.trackers), nil, func(ctx context.Context, a *actor) error {
		return tracker.Run(ctx, tracker.Config{
			NATS: a.nats(), GirderLogLimit: 1 << 20, GirderPatience: time.Hour, SecretsRetention: time.Hour, LeaseTTL: 6 * time.Second,
		})
	})
}

func (w *world) startExecutor(n *node) *actor {
	n.executors++
	return w.start(fmt.Sprintf("%s.executor-%d", n.name, n.executors), n, func(ctx context.Context, a *actor) error {
		return n.engine.Run(ctx, executor.Config{
			NATS: a.nats(), WorkRoot: n.root, Slots: slots, Queues: []contracts.Queue{contracts.DefaultQueue},
			MaxGrace: time.Minute, OrphanGrace: 2 * time.Minute, TakeoverAfter: w.takeover, LogLimit: "1m", PullIdle: time.Minute,
		}, a.engineGate)
	})
}

// errDead is what a call says that a dead process makes.
var errDead = errors.New("the process is dead")

// engineGate lets the scheduler decide when a call to the engine is made, and
// ends those of a dead process.
func (a *actor) engineGate(ctx context.Context, call string, done bool) error {
	if err := a.awaitRunning(ctx); err != nil || done {
		return err
	}
	verdict := a.world.atEngine(ctx, a, call)
	if verdict == drop {
		return errDead
	}
	return context.Cause(ctx)
}

// awaitRunning returns when the process runs, which a stopped one does not.
func (a *actor) awaitRunning(ctx context.Context) error {
	for {
		a.mu.Lock()
		dead, stopped, held := a.dead, a.stopped, a.held
		a.mu.Unlock()
		switch {
		case dead:
			return errDead
		case !stopped:
			return nil
		}
		select {
		case <-held:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// awaitReached returns true when the actor is reached by NATS, false when lost
// is closed first.
func (a *actor) awaitReached(lost <-chan struct{}) bool {
	for {
		a.mu.Lock()
		held := a.held
		a.mu.Unlock()
		if held == nil {
			return true
		}
		select {
		case <-held:
		case <-lost:
			return false
		}
	}
}

// kill ends the process without its doing: nothing that it does from now on has
// an effect.
func (a *actor) kill() {
	a.mu.Lock()
	if a.dead {
		a.mu.Unlock()
		return
	}
	a.dead = true
	links := a.links
	a.links = nil
	a.mu.Unlock()
	a.setAway(true)
	a.note("dies")
	for l := range links {
		l.cut()
		_ = l.server.Close()
	}
	a.world.dropTurns(a)
	a.cancel()
}

// leave tells the process to stop, as SIGTERM does.
func (a *actor) leave() {
	a.mu.Lock()
	a.leaving = true
	a.mu.Unlock()
	a.note("is told to stop")
	a.cancel()
}

// hold cuts the actor off from NATS, or stops it as a whole, until release. It
// reports false for one that is cut off already.
func (a *actor) hold(stopped bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.held != nil || a.dead {
		return false
	}
	a.held, a.stopped = make(chan struct{}), stopped
	a.away = append(a.away, span{from: time.Now()})
	return true
}

func (a *actor) release() {
	a.mu.Lock()
	held := a.held
	a.held, a.stopped = nil, false
	a.mu.Unlock()
	if held == nil {
		return
	}
	close(held)
	a.setAway(false)
	a.note("is reached again")
}

func (a *actor) setAway(away bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := len(a.away)
	open := n > 0 && a.away[n-1].to.IsZero()
	switch {
	case away && !open:
		a.away = append(a.away, span{from: time.Now()})
	case !away && open && !a.dead:
		a.away[n-1].to = time.Now()
	}
}

// wasAway reports whether the actor could not be reached for at least d, until
// not longer ago than lately.
func (a *actor) wasAway(d, lately time.Duration) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	for _, s := range a.away {
		end := s.to
		if end.IsZero() {
			end = now
		}
		if end.Sub(s.from) >= d && now.Sub(end) <= lately {
			return true
		}
	}
	return false
}

// isUp reports whether the process runs and was not told to stop.
func (a *actor) isUp() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.dead && !a.leaving
}

func (a *actor) isHeld() (held, stopped bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.held != nil, a.stopped
}

func (a *actor) hasEnded() bool {
	select {
	case <-a.ended:
		return true
	default:
		return false
	}
}

// connect makes a connection of an actor to the server.
func (w *world) connect(a *actor) (net.Conn, error) {
	a.mu.Lock()
	blocked := a.dead || a.held != nil
	a.mu.Unlock()
	if blocked {
		return nil, errUnreachable
	}
	to, err := w.server.dial()
	if err != nil {
		return nil, err
	}
	theirs, ours := net.Pipe()
	l := newLink(a, ours, to)
	a.mu.Lock()
	if a.links == nil {
		a.mu.Unlock()
		_ = to.Close()
		return nil, errUnreachable
	}
	a.links[l] = true
	a.mu.Unlock()
	go func() {
		l.run()
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.links, l)
	}()
	return theirs, nil
}
