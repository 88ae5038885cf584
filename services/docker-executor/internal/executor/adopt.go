package executor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/attempt"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/folder"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// lookForFree is how often the folders of dead executors are looked for.
const lookForFree = 5 * time.Second

// watchFree calls adopt every now and then until ctx ends.
func (e *Executor) watchFree(ctx context.Context, adopt func()) {
	ticker := time.NewTicker(lookForFree)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			adopt()
		}
	}
}

// adoptFree begins to go on with every attempt of this node whose executor died
// or stopped. A container that runs does so whether a slot is free or not. Of an
// engine that is silent nothing can be found out: that waits.
func (e *Executor) adoptFree(ctx, lifetime context.Context, begin func(serve func())) {
	if e.Tools.Engine.Silence() != nil {
		return
	}
	free, err := folder.Abandoned(e.WorkRoot)
	e.sayUnlisted(ctx, err)
	for _, f := range free {
		if e.isForeign(ctx, f) {
			continue
		}
		crowded := e.slots.add()
		begin(func() {
			msg := &bus.Message{Subject: string(f.Job), Reply: f.Reply}
			e.serve(ctx, lifetime, msg, func() (bool, error) { return e.adopt(ctx, lifetime, f, crowded) })
		})
	}
}

// sayUnlisted tells why folders could not be looked at, when the reason changes.
func (e *Executor) sayUnlisted(ctx context.Context, err error) {
	reason := ""
	if err != nil {
		reason = err.Error()
	}
	if reason != "" && reason != e.unlisted {
		zerolog.Ctx(ctx).Error().Err(err).Msg("not every attempt folder is readable")
	}
	e.unlisted = reason
}

// isForeign reports whether a folder whose lock we took is of an attempt of
// another installation, and then gives it back: our NATS knows nothing of the
// attempt, whose container may run. It is said once.
func (e *Executor) isForeign(ctx context.Context, f *folder.Folder) bool {
	if f.BelongsTo(e.Tools.Installation) {
		return false
	}
	err := f.Close()
	if _, said := e.foreign.LoadOrStore(f.Path(), true); !said {
		zerolog.Ctx(ctx).Warn().Err(err).Str("folder", f.Path()).Str("installation", f.Installation).
			Msg("folder of another installation's attempt left alone: is this the right NATS? if that installation is gone for good, remove the folder")
	}
	return true
}

// adopt goes on with the attempt of a folder whose lock we took, if it still is
// its job's, and else removes what it left. done says that its ready message is
// to be acknowledged.
//
// Until the adopted entry is written the attempt is not ours: whatever fails
// leaves it to the next look.
func (e *Executor) adopt(ctx, lifetime context.Context, f *folder.Folder, crowded bool) (done bool, err error) {
	if f.Job == "" {
		clean, stop := context.WithTimeout(lifetime, cleanTimeout)
		defer stop()
		err := e.Tools.RemoveFolder(clean, f) // its executor died while making or removing it
		e.repeats.tell(ctx, f.Path(), err, "folder of no attempt is not removed yet, trying again")
		return false, errLeftToOwner
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if !e.active.add(f.Job, f.Attempt, cancel) {
		return false, errors.Join(errLeftToOwner, f.Close()) // our last attempt at it is just ending
	}
	defer e.active.remove(f.Job)
	life, err := e.read(ctx, f.Job)
	switch {
	case err != nil:
		return e.leave(ctx, f, err)
	case !life.restsWith(f, e.Tools.Node):
		return e.discard(lifetime, f, life.last)
	case ownerOf(life.entries).executor == e.Tools.Executor:
		return e.giveUp(lifetime, f, life)
	}
	container, err := e.Tools.Find(ctx, f)
	if err != nil {
		return e.leave(ctx, f, err)
	}
	begun := container.ID != "" && (container.State != engine.Created || f.EngineRun.ID != "") // it may be starting
	if crowded && !begun && (life.last.Type == contracts.EntryClaimed || life.last.Type == contracts.EntryAdopted) {
		return e.giveBack(lifetime, f, life)
	}
	adopted, err := e.Tools.Bus.Append(lifetime, f.Job, life.last, &contracts.Adopted{Node: e.Tools.Node, Executor: e.Tools.Executor})
	if err != nil {
		return e.leave(ctx, f, err)
	}
	e.active.won(f.Job)
	e.repeats.tell(ctx, f.Path(), nil, "")
	log := e.logger(ctx, adopted, life.task)
	f.Installation, f.Executor = e.Tools.Installation, e.Tools.Executor
	if err := f.Note(); err != nil {
		log.Warn().Err(err).Msg("folder does not name its new owner")
	}
	log.Info().Str("container", container.ID).Msg("attempt adopted")
	return e.try(ctx, lifetime, attempt.Adopt(e.Tools, life.task, adopted, life.entries, f, container, log), f, log)
}

// leave gives the lock of a folder back, for the next look.
func (e *Executor) leave(ctx context.Context, f *folder.Folder, why error) (done bool, err error) {
	e.repeats.tell(ctx, f.Path(), why, "attempt not adopted, trying again")
	return false, errors.Join(errLeftToOwner, f.Close())
}

// life is what a job's life says; last is nil for a job that has none.
type life struct {
	last    *bus.Seen
	entries []*contracts.Entry
	task    *contracts.Task
}

func (e *Executor) read(ctx context.Context, job contracts.JobID) (l life, err error) {
	// The last entry first: what comes after it is found out by whoever appends.
	if l.last, err = e.Tools.Bus.Last(ctx, job); l.last == nil || err != nil {
		return l, err
	}
	if l.entries, err = e.Tools.Bus.Life(ctx, job); err != nil {
		return l, err
	}
	if len(l.entries) == 0 {
		return l, fmt.Errorf("life of %s was removed just now", job)
	}
	submitted, ok := l.entries[0].Data.(*contracts.Submitted)
	if !ok {
		return l, fmt.Errorf("life of %s begins with %s", job, l.entries[0].Type)
	}
	l.task = submitted.Task
	return l, nil
}

// restsWith reports whether a job's life still rests with the attempt of a
// folder: it is the last one, has not ended, and is owned by an executor of the
// folder's node.
func (l life) restsWith(f *folder.Folder, node contracts.NodeID) bool {
	return l.last != nil && l.last.Attempt == f.Attempt && l.last.Running() && ownerOf(l.entries).node == node
}

// owner is who owns an attempt.
type owner struct {
	node     contracts.NodeID
	executor contracts.ExecutorID
}

// ownerOf returns the executor of the last claimed or adopted entry.
func ownerOf(life []*contracts.Entry) owner {
	for _, entry := range slices.Backward(life) {
		switch data := entry.Data.(type) {
		case *contracts.Claimed:
			return owner{data.Node, data.Executor}
		case *contracts.Adopted:
			return owner{data.Node, data.Executor}
		}
	}
	return owner{}
}

// giveUp ends an attempt that this very executor could not bring to an end: to
// adopt it would be to try the same again.
func (e *Executor) giveUp(lifetime context.Context, f *folder.Folder, life life) (done bool, err error) {
	if err := e.Tools.RemoveContainers(lifetime, f); err != nil { // first: the next attempt may run elsewhere
		return e.leave(lifetime, f, err)
	}
	if err := e.endFor(lifetime, life.last, life.task, "its executor could not write its end"); err != nil {
		return e.leave(lifetime, f, err)
	}
	e.clean(lifetime, f)
	return true, nil
}

// discard removes what an attempt left that was never won, or has ended, or was
// taken over. In the last case its ready message is another attempt's by now;
// where the job waits to be claimed, it is given back for that.
func (e *Executor) discard(lifetime context.Context, f *folder.Folder, last *bus.Seen) (done bool, err error) {
	e.clean(lifetime, f)
	switch {
	case last == nil:
		return false, errLeftToOwner
	case last.Claimable(last.Offer):
		return false, nil
	case last.Attempt == f.Attempt && (last.Terminal() || last.Type == contracts.EntryFailed):
		return true, nil
	default:
		return false, errLeftToOwner
	}
}

// clean removes what an attempt left; what stays is found at the next look.
func (e *Executor) clean(lifetime context.Context, f *folder.Folder) {
	clean, stop := context.WithTimeout(lifetime, cleanTimeout)
	defer stop()
	log := zerolog.Ctx(lifetime).With().Str("job", string(f.Job)).Int("attempt", f.Attempt).Logger()
	err := e.Tools.Clean(clean, f)
	e.repeats.tell(log.WithContext(lifetime), f.Path(), err, "what an attempt left is not removed yet, trying again")
	if err != nil {
		return
	}
	log.Info().Msg("removed what an attempt left")
}

// giveBack lets another executor run an attempt that has no container yet and
// finds no free slot here.
func (e *Executor) giveBack(lifetime context.Context, f *folder.Folder, life life) (done bool, err error) {
	_, err = e.Tools.Bus.Append(lifetime, f.Job, life.last, &contracts.Released{
		Node: e.Tools.Node, Executor: e.Tools.Executor, Reason: "its executor was stopped before the container started, and no slot is free here",
	})
	if err != nil {
		return e.leave(lifetime, f, err)
	}
	zerolog.Ctx(lifetime).Info().Str("job", string(f.Job)).Int("attempt", f.Attempt).Msg("no slot is free for an attempt that has not begun, given back")
	e.clean(lifetime, f)
	return false, nil
}
