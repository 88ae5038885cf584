// Package retry turns an attempt that ended and may be tried again into the
// next offer of its job, when its backoff is over. The wait is a message
// schedule in the server, so it needs no timer and no living dispatcher.
package retry

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/cancel"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/offer"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// due is the payload of a scheduled retry: which failed attempt it follows.
type due struct {
	Attempt int `json:"attempt"`
	Offer   int `json:"offer"`
}

// Plan schedules the retry that a failed entry asks for. Planning again
// changes nothing, also after the retry.
func Plan(ctx context.Context, b *bus.Bus, failed *bus.Seen) error {
	data, ok := failed.Data.(*contracts.Failed)
	if !ok || !data.WillRetry {
		return nil
	}
	return b.Schedule(ctx, failed.Job, contracts.LaterRetry, data.RetryAt, due{failed.Attempt, failed.Offer})
}

// Handle offers a job again whose retry is due.
func Handle(ctx context.Context, b *bus.Bus, msg *bus.Message) error {
	job, what, err := contracts.ParseDue(msg.Subject)
	if err != nil || what != contracts.LaterRetry {
		return nil // of a newer version, or not ours: there is nothing to wait for
	}
	var d due
	if err := json.Unmarshal(msg.Data, &d); err != nil {
		return fmt.Errorf("read due message of %s: %w", job, err)
	}
	submitted, err := b.Submitted(ctx, job)
	if err != nil || submitted == nil {
		return err
	}
	// Whoever overtakes may die before its ready message, so what to do is
	// decided anew on its entry.
	for err = bus.ErrOvertaken; errors.Is(err, bus.ErrOvertaken); {
		err = again(ctx, b, job, d, submitted.Task)
	}
	if err != nil {
		return err
	}
	return cancel.IfRevoked(ctx, b, job)
}

// again does what the last entry of a job's life asks for when a retry is due.
func again(ctx context.Context, b *bus.Bus, job contracts.JobID, d due, task *contracts.Task) error {
	last, err := b.Last(ctx, job)
	if err != nil || last == nil {
		return err
	}
	switch {
	case last.Type == contracts.EntryFailed && !last.Terminal() && last.Attempt == d.Attempt:
		_, err = offer.Queue(ctx, b, last, task, contracts.QueuedRetry)
	case last.Type == contracts.EntryFailed && !last.Terminal():
		// A late plan for an earlier attempt took the place of this one's.
		err = Plan(ctx, b, last)
	case last.Type == contracts.EntryQueued && last.Offer == d.Offer+1:
		err = offer.Publish(ctx, b, last, task) // a dispatcher died in between
	}
	return err
}
