// Package offer puts jobs in front of executors: the ready message of each
// queued entry, published once, and published again where it is missing.
package offer

import (
	"context"
	"fmt"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// Publish stores the ready message of a life's last offer. It is there once, no
// matter how often it is published.
func Publish(ctx context.Context, b *bus.Bus, last *bus.Seen, task *contracts.Task) error {
	_, err := PublishMissing(ctx, b, last, task)
	return err
}

// PublishMissing is [Publish], and reports whether the message was missing. One
// that an executor holds is not: it stays until it is acknowledged.
func PublishMissing(ctx context.Context, b *bus.Bus, last *bus.Seen, task *contracts.Task) (missing bool, err error) {
	if last.Offer == 0 {
		return false, fmt.Errorf("offer %s: last entry is %s, without an offer", last.Job, last.Type)
	}
	body, err := task.Encode()
	if err != nil {
		return false, fmt.Errorf("offer %s: %w", last.Job, err)
	}
	return b.PublishMissing(ctx, Subject(last, task), body)
}

// Subject is that of the ready message of a life's last offer.
func Subject(last *bus.Seen, task *contracts.Task) string {
	return contracts.ReadySubject(task.Lane(), task.QueueOrDefault(), task.Kind(), last.Job, last.Offer)
}

// Queue appends the queued entry that follows last and publishes its ready
// message.
func Queue(ctx context.Context, b *bus.Bus, last *bus.Seen, task *contracts.Task, reason contracts.QueuedReason) (*bus.Seen, error) {
	queued, err := b.Append(ctx, last.Job, last, &contracts.Queued{
		Lane: task.Lane(), Queue: task.QueueOrDefault(), Kind: task.Kind(), Reason: reason,
	})
	if err != nil {
		return queued, err
	}
	return queued, Publish(ctx, b, queued, task)
}
