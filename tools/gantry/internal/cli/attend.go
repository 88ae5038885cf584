package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"sync"

	"github.com/go-json-experiment/json"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/tools/gantry/internal/show"
)

// errLeft is the cause of a context that the second Ctrl-C ended.
var errLeft = errors.New("left")

// Attend follows a job to its end and shows it. The first signal cancels the
// job, the second leaves it. The error is an [*Exit] with the job's exit code,
// nil for code 0.
func (e *Env) Attend(ctx context.Context, c *client.Client, task *contracts.Task, mode Progress) error {
	ctx, cancel := context.WithCancelCause(ctx)
	s := newScreen(e, mode, task.ID)
	var listener sync.WaitGroup
	listener.Go(func() { e.cancelOnSignal(ctx, cancel, c, task.ID, s) })
	end, err := follow(ctx, c, task, s)
	left := errors.Is(context.Cause(ctx), errLeft)
	cancel(nil)
	listener.Wait()
	for _, warning := range show.Warnings(end) {
		s.notice("%s", warning)
	}
	if end != nil && end.Type != contracts.EntrySucceeded {
		s.notice("%s", show.End(task.ID, end))
	}
	s.close()
	switch {
	case left:
		return &Exit{Code: ExitCanceled, Err: fmt.Errorf("left job %s while it is being canceled: see 'gantry jobs show %s'", task.ID, task.ID)}
	case err != nil:
		return asGantry(err)
	}
	if code := exitOf(end); code != ExitOK {
		return &Exit{Code: code}
	}
	return nil
}

// cancelOnSignal revokes the job on the first signal, and on the second ends
// the context with the cause errLeft.
func (e *Env) cancelOnSignal(ctx context.Context, leave context.CancelCauseFunc, c *client.Client, job contracts.JobID, s *screen) {
	select {
	case <-ctx.Done():
		return
	case <-e.Signals:
	}
	s.notice("canceling %s; once more leaves it to itself", job)
	if err := c.Revoke(ctx, contracts.Revoke{Job: job, By: whoami(), Reason: "interrupted"}); err != nil {
		s.notice("%s", explain(err))
	}
	select {
	case <-ctx.Done():
	case <-e.Signals:
		leave(errLeft)
	}
}

// follow shows what happens to a job, and returns its terminal entry.
func follow(ctx context.Context, c *client.Client, task *contracts.Task, s *screen) (*contracts.Entry, error) {
	var before, end *contracts.Entry
	var places contracts.LogPlaces
	var next int64
	for event, err := range c.Follow(ctx, task.ID) {
		if err != nil {
			return nil, fmt.Errorf("follow %s: %w", task.ID, err)
		}
		switch {
		case event.Log != nil:
			place := places.Place(event.Log)
			if place > next {
				s.notice("%s", missing(next, place))
			}
			if err := s.log(event.Log); err != nil {
				return nil, err
			}
			next = place + int64(len(event.Log.Bytes()))
		case event.Note != nil:
			note(s, event.Note)
		default:
			if err := checkOurs(task, event.Entry); err != nil {
				return nil, err
			}
			entry(s, before, event.Entry)
			before = event.Entry
			if event.Entry.Terminal() {
				end = event.Entry
			}
		}
	}
	if end == nil {
		return nil, fmt.Errorf("follow %s: %w", task.ID, context.Cause(ctx))
	}
	return end, nil
}

// checkOurs refuses the life of another task that has the id already.
func checkOurs(task *contracts.Task, e *contracts.Entry) error {
	first, ok := e.Data.(*contracts.Submitted)
	if !ok || first.Hash == "" || task.Docker == nil {
		return nil
	}
	named := *task
	named.Queue = task.QueueOrDefault() // as the dispatcher writes it down
	hash, err := named.Hash()
	if err != nil {
		return err
	}
	if first.Hash != hash {
		return fmt.Errorf("the id %s belongs to another task already: choose another, or none", task.ID)
	}
	return nil
}

// note shows a hint of the attempt; one that cannot be read is none.
func note(s *screen, n *contracts.Note) {
	switch n.Type {
	case contracts.NoteProgress:
		progress := new(contracts.Progress)
		if json.Unmarshal(n.Data, progress) == nil {
			s.hint(n.Attempt, func(l *show.Live) { l.Progress = progress })
		}
	case contracts.NotePhase:
		phase := new(contracts.Phase)
		if json.Unmarshal(n.Data, phase) == nil {
			s.hint(n.Attempt, func(l *show.Live) { l.Phase = phase })
		}
	}
}

func entry(s *screen, before, e *contracts.Entry) {
	if !e.Terminal() {
		s.entry(e)
	}
	if turn := show.Turn(before, e); turn != "" {
		s.notice("%s", turn)
	}
	if !e.Terminal() {
		for _, warning := range show.Warnings(e) {
			s.notice("%s", warning)
		}
	}
}

// whoami names the person at the terminal.
func whoami() string {
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}
