// Package executor fills slots with attempts: it takes ready messages, claims
// their jobs, and decides what to do with a message whose job somebody else
// claimed before.
package executor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
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
	// TakeoverAfter is how long our own connection has stood before the silence
	// of a claim's owner counts.
	TakeoverAfter time.Duration
	// DrainTimeout is how long running attempts may go on when the executor
	// stops.
	DrainTimeout time.Duration
}

// Executor runs attempts in a number of slots.
type Executor struct {
	Settings
	active *active

	mu       sync.Mutex
	notReady error
}

// New returns an executor with the given settings.
func New(settings Settings) *Executor {
	return &Executor{Settings: settings, active: newActive()}
}

const (
	// retryPull is the pause after a pull that failed.
	retryPull = time.Second
	// giveBack is how long a message waits that is left to others.
	giveBack = 2 * time.Second
	// cleanTimeout bounds the removal of what an attempt leaves.
	cleanTimeout = 2 * time.Minute
	// endTimeout is how long an attempt that was stopped may take to write its
	// end, beyond its grace.
	endTimeout = 15 * time.Second
)

// Run takes work until ctx ends, then waits for the attempts that run, at most
// DrainTimeout, and stops them. An attempt whose container does not run yet
// is given back at once.
func (e *Executor) Run(ctx context.Context) error {
	lifetime, kill := context.WithCancelCause(context.WithoutCancel(ctx))
	defer kill(nil)
	running, stop := context.WithCancelCause(lifetime)
	defer stop(nil)

	slots := make(chan struct{}, e.Slots)
	pull := &bus.Puller{Bus: e.Tools.Bus, Queues: e.Queues, Kind: contracts.KindDocker}
	var attempts, watch sync.WaitGroup
	defer watch.Wait()
	watching, unwatch := context.WithCancel(lifetime)
	defer unwatch()
	watch.Go(func() { e.watchConnection(watching) })
	for e.awaitReady(ctx) && take(ctx, slots) {
		msg, err := pull.Next(ctx)
		if err != nil && ctx.Err() == nil {
			zerolog.Ctx(ctx).Debug().Err(err).Msg("no ready message taken")
			pause(ctx, retryPull)
		}
		if msg == nil {
			<-slots
			continue
		}
		if ctx.Err() != nil {
			_ = e.Tools.Bus.GiveBack(msg, 0) // without a connection AckWait does it
			break
		}
		attempts.Go(func() {
			defer func() { <-slots }()
			e.serve(running, lifetime, msg)
		})
	}
	e.drain(&attempts, stop, kill)
	return context.Cause(ctx)
}

// drain waits for attempts, makes them end when that takes too long, and gives
// up those that cannot write their end: the next start finds their folders.
func (e *Executor) drain(attempts *sync.WaitGroup, stop, kill context.CancelCauseFunc) {
	ending := time.AfterFunc(e.DrainTimeout, func() { stop(attempt.ErrStopping) })
	defer ending.Stop()
	giveUp := time.AfterFunc(e.DrainTimeout+e.Tools.MaxGrace+endTimeout, func() { kill(attempt.ErrStopping) })
	defer giveUp.Stop()
	attempts.Wait()
}

func take(ctx context.Context, slots chan struct{}) bool {
	select {
	case <-ctx.Done():
		return false
	case slots <- struct{}{}:
		return true
	}
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
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.notReady
}

// Running returns how many attempts there are.
func (e *Executor) Running() int { return e.active.count() }

// Revoke stops the attempt of a job, if it is here.
func (e *Executor) Revoke(revoke *contracts.Revoke) { e.active.revoke(revoke) }

// Owns answers whether an attempt is here.
func (e *Executor) Owns(request contracts.OwnsRequest) contracts.OwnsReply {
	return e.active.owns(request)
}

// serve does what a ready message asks for, and acknowledges it when nothing
// more is to be done for it.
func (e *Executor) serve(ctx, lifetime context.Context, msg *bus.Message) {
	holding, release := context.WithCancel(lifetime)
	var held sync.WaitGroup
	held.Go(func() { e.Tools.Bus.Hold(holding, msg, contracts.AckWait) })
	defer held.Wait()
	defer release()

	done, err := e.handle(ctx, lifetime, msg)
	if errors.Is(err, errLeftToOwner) {
		return // the owner's lease keeps the message; without one it comes again
	}
	if err != nil {
		zerolog.Ctx(ctx).Error().Err(err).Str("subject", msg.Subject).Msg("ready message not handled, it comes again")
	}
	switch {
	case done:
		err = e.Tools.Bus.Ack(lifetime, msg.Reply)
	case e.stopping():
		err = e.Tools.Bus.GiveBack(msg, 0)
	default: // at once it would only come back here
		err = e.Tools.Bus.GiveBack(msg, giveBack)
	}
	if err != nil {
		zerolog.Ctx(ctx).Warn().Err(err).Str("subject", msg.Subject).Msg("ready message not answered, it comes again")
	}
}

var errLeftToOwner = errors.New("left to its owner")

func (e *Executor) stopping() bool {
	select {
	case <-e.Tools.Draining:
		return true
	default:
		return false
	}
}

// handle is rule 2 of a job's life. done says that the message is to be
// acknowledged.
func (e *Executor) handle(ctx, lifetime context.Context, msg *bus.Message) (done bool, err error) {
	job, offer, err := contracts.ParseReady(msg.Subject)
	if err != nil {
		return true, err
	}
	last, err := e.Tools.Bus.Last(ctx, job)
	if err != nil {
		return false, err
	}
	switch {
	case last == nil || last.Offer != offer || last.Terminal():
		return true, nil
	case last.Claimable(offer):
		return e.claim(ctx, lifetime, msg, last)
	case last.Running():
		return e.contest(ctx, lifetime, msg, last)
	default:
		return true, nil
	}
}

// claim makes the job ours and runs its next attempt.
func (e *Executor) claim(ctx, lifetime context.Context, msg *bus.Message, last *bus.Seen) (done bool, err error) {
	task, err := contracts.ReadTask(msg.Data)
	if err != nil {
		return e.reject(lifetime, last, err)
	}
	number := last.Attempt + 1
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if !e.active.add(last.Job, number, cancel) {
		return false, nil // its last attempt is being removed right now, or this one waits for NATS
	}
	defer e.active.remove(last.Job)

	place, err := folder.Create(e.WorkRoot, folder.About{
		Job: last.Job, Attempt: number, Executor: e.Tools.Executor, Reply: msg.Reply,
		Container: attempt.ContainerName(last.Job, number),
	})
	if errors.Is(err, folder.ErrLocked) {
		return false, nil // somebody looks through the folders right now, or claims: its next delivery tells
	}
	if err != nil {
		return false, err
	}
	claimed, err := e.Tools.Bus.Append(lifetime, last.Job, last, &contracts.Claimed{Node: e.Tools.Node, Executor: e.Tools.Executor})
	if err != nil {
		if errors.Is(err, bus.ErrOvertaken) {
			err = errLeftToOwner // somebody was faster; what the message is worth now, its next delivery tells
		}
		return false, errors.Join(err, place.Remove())
	}
	log := zerolog.Ctx(ctx).With().Str("job", string(last.Job)).Int("attempt", number).
		Str("queue", string(task.QueueOrDefault())).Str("node", string(e.Tools.Node)).Logger()
	log.Info().Msg("attempt claimed")

	a := attempt.New(e.Tools, task, claimed, place, log)
	done, err = a.Run(ctx, lifetime)
	clean, stop := context.WithTimeout(context.WithoutCancel(lifetime), cleanTimeout)
	defer stop()
	if errors.Is(err, attempt.ErrSuperseded) {
		err = errLeftToOwner
	} else if err != nil {
		// The end is not written: the folder stays, to be found.
		return false, errors.Join(err, place.Close())
	}
	if cleanErr := a.Clean(clean); cleanErr != nil {
		log.Warn().Err(cleanErr).Msg("attempt left something behind, it is removed later")
	}
	return done, err
}

// reject ends a job whose task this executor cannot read: offered again and
// again it would never end.
func (e *Executor) reject(lifetime context.Context, last *bus.Seen, cause error) (done bool, err error) {
	_, err = e.Tools.Bus.Append(lifetime, last.Job, last, &contracts.Failed{
		Kind: contracts.FailureRejected, Message: fmt.Sprintf("the executor cannot read the task: %v", cause),
	})
	if errors.Is(err, bus.ErrOvertaken) {
		err = nil
	}
	return err == nil, err
}

// contest is rule 3 of a job's life: a redelivery is no proof that the owner
// is gone.
func (e *Executor) contest(ctx, lifetime context.Context, msg *bus.Message, last *bus.Seen) (done bool, err error) {
	abandoned, err := folder.Take(e.WorkRoot, last.Job, last.Attempt)
	switch {
	case err == nil:
		return e.bury(lifetime, abandoned)
	case errors.Is(err, folder.ErrLocked):
		return false, errLeftToOwner
	case !errors.Is(err, fs.ErrNotExist):
		return false, err
	}
	gone, err := e.ownerIsGone(ctx, last)
	if err != nil {
		return false, err
	}
	if !gone {
		return false, errLeftToOwner
	}
	return e.takeOver(ctx, lifetime, msg, last)
}
