// Package cancel ends revoked jobs that wait: no executor owns them, so the
// dispatcher writes their end. A job that runs is its owner's to stop.
package cancel

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// IfRevoked ends a job that waits if there is a revoke for it. Whoever brings a
// job to its queue calls it after the ready message.
func IfRevoked(ctx context.Context, b *bus.Bus, job contracts.JobID) error {
	revoke, err := b.LastRevoke(ctx, job)
	if err != nil || revoke == nil {
		return err
	}
	return end(ctx, b, revoke)
}

// Waiting ends the job of a revoke if it waits: queued, given back or about to
// be retried. A job that runs, has ended or was never submitted is left alone.
// So is one whose intake is under way: intake looks for a revoke when the
// job's secrets are stored, without which nobody could tell Girder.
func Waiting(ctx context.Context, b *bus.Bus, revoke *contracts.Revoke) error {
	last, err := b.Last(ctx, revoke.Job)
	if err != nil || last == nil || last.Type == contracts.EntrySubmitted {
		return err
	}
	return end(ctx, b, revoke)
}

func end(ctx context.Context, b *bus.Bus, revoke *contracts.Revoke) error {
	for {
		last, err := b.Last(ctx, revoke.Job)
		switch {
		case err != nil:
			return err
		case last == nil || last.Running():
			return nil
		case last.Type == contracts.EntryCanceled:
			// A ready message may have come after the purge.
			return purge(ctx, b, revoke.Job)
		case last.Terminal():
			return nil
		}
		_, err = b.Append(ctx, revoke.Job, last, &contracts.Canceled{By: revoke.By, Reason: revoke.Reason})
		if errors.Is(err, bus.ErrOvertaken) {
			continue
		}
		if err != nil {
			return err
		}
		return purge(ctx, b, revoke.Job)
	}
}

// purgeTimeout bounds the removal of what a canceled job leaves, which is
// brought to its end also when the dispatcher is told to stop.
const purgeTimeout = 10 * time.Second

// purge removes what would have run the job. A ready message that an executor
// holds already tells it nothing: the life has ended.
func purge(ctx context.Context, b *bus.Bus, job contracts.JobID) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), purgeTimeout)
	defer cancel()
	submitted, err := b.Submitted(ctx, job)
	if err != nil {
		return err
	}
	if submitted == nil {
		return fmt.Errorf("purge %s: its life has no first entry", job)
	}
	task := submitted.Task
	ready := contracts.ReadyJobFilter(task.Lane(), task.QueueOrDefault(), task.Kind(), job)
	return errors.Join(
		b.Purge(ctx, contracts.StreamReady, ready),
		b.Purge(ctx, contracts.StreamLater, contracts.LaterSubject(job, contracts.LaterRetry)),
	)
}
