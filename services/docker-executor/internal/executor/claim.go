package executor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/attempt"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/folder"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// serve holds a ready message while handle does what it asks for, and
// acknowledges it when nothing more is to be done for it.
func (e *Executor) serve(ctx, lifetime context.Context, msg *bus.Message, handle func() (done bool, err error)) {
	holding, release := context.WithCancel(lifetime)
	var held sync.WaitGroup
	held.Go(func() { e.Tools.Bus.Hold(holding, msg, contracts.AckWait) })
	defer held.Wait()
	defer release()

	done, err := handle()
	switch {
	case errors.Is(err, errLeftToOwner):
		return // the owner's lease keeps the message; without one it comes again
	case err != nil && ctx.Err() == nil:
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

// errLeftToOwner says that a ready message is its job's owner's, present or to
// come, to answer.
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
		Job: last.Job, Attempt: number, Installation: e.Tools.Installation, Executor: e.Tools.Executor, Reply: msg.Reply,
		Container: attempt.ContainerName(last.Job, number),
	})
	if errors.Is(err, folder.ErrLocked) {
		return false, nil // somebody looks through the folders right now, or claims: its next delivery tells
	}
	if err != nil {
		return false, err
	}
	claimed, err := e.Tools.Bus.Append(lifetime, last.Job, last, &contracts.Claimed{Node: e.Tools.Node, Executor: e.Tools.Executor})
	if errors.Is(err, bus.ErrOvertaken) {
		// Somebody was faster; what the message is worth now, its next delivery tells.
		return false, errors.Join(errLeftToOwner, place.Remove())
	}
	if err != nil {
		return false, errors.Join(err, place.Close()) // whether the claim is there, whoever takes the folder finds out
	}
	e.active.won(last.Job)
	log := e.logger(ctx, claimed, task)
	log.Info().Msg("attempt claimed")
	return e.try(ctx, lifetime, attempt.New(e.Tools, task, claimed, place, log), place, log)
}

func (e *Executor) logger(ctx context.Context, last *bus.Seen, task *contracts.Task) zerolog.Logger {
	return zerolog.Ctx(ctx).With().Str("job", string(last.Job)).Int("attempt", last.Attempt).
		Str("queue", string(task.QueueOrDefault())).Str("node", string(e.Tools.Node)).Logger()
}

// try runs an attempt and removes what it leaves. done says that its ready
// message is to be acknowledged.
func (e *Executor) try(ctx, lifetime context.Context, a *attempt.Attempt, place *folder.Folder, log zerolog.Logger) (done bool, err error) {
	done, err = a.Run(ctx, lifetime)
	switch {
	case errors.Is(err, attempt.ErrSuperseded):
		err = errLeftToOwner
	case errors.Is(err, attempt.ErrStopping):
		e.left.Add(1)
		return false, errors.Join(errLeftToOwner, place.Close())
	case err != nil:
		// The end is not written: the folder stays, to be adopted.
		return false, errors.Join(err, place.Close())
	}
	clean, stop := context.WithTimeout(context.WithoutCancel(lifetime), cleanTimeout)
	defer stop()
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
	case err == nil && e.isForeign(ctx, abandoned): // ours has none here
	case err == nil:
		abandoned.Reply = msg.Reply // the later delivery
		return e.adopt(ctx, lifetime, abandoned, false)
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
