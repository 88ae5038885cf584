// Package executor fills slots with attempts: it adopts what other executors of
// the node left behind, takes ready messages, claims their jobs, and decides
// what to do with a message whose job somebody else claimed before.
package executor

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/attempt"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/folder"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// Settings say what an executor works with.
type Settings struct {
	Tools    *attempt.Tools
	WorkRoot string
	Queues   []contracts.Queue
	Slots    int
	// Presence knows who has been seen lately.
	Presence *bus.Presence
	// TakeoverAfter is for how long the owner of a claim has not been seen, by one
	// who would have seen it, before its silence counts.
	TakeoverAfter time.Duration
	// DrainTimeout is how long running attempts may go on when the executor
	// stops, before they are left to the next one.
	DrainTimeout time.Duration
	// StopOnLostLease stops the containers of an executor that is without NATS
	// for so long that somebody else may soon take over.
	StopOnLostLease bool
}

// Executor runs attempts in a number of slots.
type Executor struct {
	Settings
	active *active
	slots  *slots
	left   atomic.Int32 // attempts that are left to whoever adopts them

	foreign  sync.Map // paths of folders that were said to be another installation's
	unlisted string   // why the last look through the folders did not see all of them
	repeats  repeats

	mu       sync.Mutex
	notReady error
}

// New returns an executor with the given settings.
func New(settings Settings) *Executor {
	return &Executor{Settings: settings, active: newActive(), slots: newSlots(settings.Slots)}
}

const (
	// retryPull is the pause after a pull that failed.
	retryPull = time.Second
	// giveBack is how long a message waits that is left to others.
	giveBack = 2 * time.Second
	// cleanTimeout bounds the removal of what an attempt leaves.
	cleanTimeout = 2 * time.Minute
	// endTimeout is how long what is not left to others may take to end.
	endTimeout = 15 * time.Second
)

// Run adopts what other executors of the node left behind and takes work until
// ctx ends. Then an attempt whose container does not run yet is given back at
// once; one that runs may come to its end within DrainTimeout, and is then left
// as it is, to be adopted.
func (e *Executor) Run(ctx context.Context) error {
	lifetime, kill := context.WithCancelCause(context.WithoutCancel(ctx))
	defer kill(nil)
	running, stop := context.WithCancelCause(lifetime)
	defer stop(nil)

	var attempts, watches, adoption sync.WaitGroup
	defer watches.Wait()
	watching, unwatch := context.WithCancel(lifetime)
	defer unwatch()
	watches.Go(func() { e.watchOwnership(watching) })
	begin := func(serve func()) {
		attempts.Go(func() {
			defer e.slots.release()
			serve()
		})
	}
	e.adoptFree(running, lifetime, begin)
	adoption.Go(func() { e.watchFree(ctx, func() { e.adoptFree(running, lifetime, begin) }) })

	pull := &bus.Puller{Bus: e.Tools.Bus, Queues: e.Queues, Kind: contracts.KindDocker}
	defer pull.Close()
	for e.awaitReady(ctx) && e.slots.take(ctx) {
		answering, release := e.Tools.Engine.WhileAnswering(ctx)
		msg, err := pull.Next(answering)
		unready := context.Cause(answering) != nil
		release()
		if !unready {
			e.repeats.tell(ctx, "queues", err, "no ready message taken")
		}
		if err != nil && !unready {
			pause(ctx, retryPull)
		}
		if msg != nil && (unready || e.slots.crowded()) {
			_ = e.Tools.Bus.GiveBack(msg, 0) // without a connection AckWait does it
			msg = nil
		}
		if msg == nil {
			e.slots.release()
			continue
		}
		begin(func() {
			e.serve(running, lifetime, msg, func() (bool, error) { return e.handle(running, lifetime, msg) })
		})
	}
	adoption.Wait()
	e.drain(lifetime, &attempts, stop, kill)
	if left := e.left.Load(); left > 0 {
		zerolog.Ctx(ctx).Info().Int32("attempts", left).Msg("stopped; attempts are left, their containers run on, and the next start adopts them")
	}
	return context.Cause(ctx)
}

// drain waits for the attempts, leaves those that take too long, and gives up
// what cannot write its end: whoever adopts the attempt does it.
func (e *Executor) drain(lifetime context.Context, attempts *sync.WaitGroup, stop, kill context.CancelCauseFunc) {
	drained, done := context.WithCancel(lifetime)
	var watch sync.WaitGroup
	defer watch.Wait()
	watch.Go(func() {
		pause(drained, e.DrainTimeout)
		stop(attempt.ErrStopping)
		for range int(endTimeout / time.Second) {
			if e.Tools.Bus.Connected() != nil {
				break // without NATS nothing can be written
			}
			pause(drained, time.Second)
		}
		if drained.Err() == nil {
			kill(attempt.ErrStopping)
		}
	})
	attempts.Wait()
	done()
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// awaitReady returns when an attempt can run here, or false when ctx has ended:
// without an engine, or a work folder to write to, no job is claimed.
func (e *Executor) awaitReady(ctx context.Context) bool {
	said := "" // an outage is told once, not each second
	for ctx.Err() == nil {
		err := errors.Join(e.Tools.Engine.Ping(ctx), folder.Writable(e.WorkRoot))
		if ctx.Err() != nil {
			return false
		}
		e.setNotReady(err)
		if err == nil {
			if said != "" {
				zerolog.Ctx(ctx).Info().Msg("tasks can run here again")
			}
			return true
		}
		if err.Error() != said {
			said = err.Error()
			zerolog.Ctx(ctx).Warn().Err(err).Msg("no task can run here, not claiming")
		}
		pause(ctx, retryPull)
	}
	return false
}

func (e *Executor) setNotReady(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.notReady = err
}

// NotReady returns why no work is taken, or nil.
func (e *Executor) NotReady() error {
	if err := e.Tools.Engine.Silence(); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.notReady
}

// Running returns how many attempts there are.
func (e *Executor) Running() int { return e.active.count() }

// Revoke stops the attempt of a job, if it is here.
func (e *Executor) Revoke(revoke *contracts.Revoke) { e.active.revoke(revoke) }

// Owns answers whether an attempt is here: it runs, or it has a folder, so that
// an executor of this node is about to go on with it.
func (e *Executor) Owns(request contracts.OwnsRequest) contracts.OwnsReply {
	return contracts.OwnsReply{Owns: e.active.has(request.Job, request.Attempt) || folder.Has(e.WorkRoot, request.Job, request.Attempt)}
}
