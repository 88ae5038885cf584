package client

import (
	"context"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
)

// Submit checks the task and publishes it. A task without an id is given one.
// When Submit returns, the task is durable and will run. The error is a
// [*contracts.InvalidTaskError] where the task cannot be accepted.
func (c *Client) Submit(ctx context.Context, task *contracts.Task) (contracts.JobID, error) {
	if task.ID == "" {
		task.ID = contracts.NewJobID()
	}
	if task.Version == 0 {
		task.Version = contracts.Version
	}
	if err := task.Validate(); err != nil {
		return "", err
	}
	data, err := task.Encode()
	if err != nil {
		return "", fmt.Errorf("submit %s: %w", task.ID, err)
	}
	if len(data) > contracts.MaxTaskSize {
		return "", fmt.Errorf("submit %s: the specification has %d bytes, allowed are %d", task.ID, len(data), contracts.MaxTaskSize)
	}
	subject := contracts.SubmitSubject(task.QueueOrDefault())
	if _, err := c.js.Publish(ctx, subject, data, jetstream.WithMsgID("submit-"+string(task.ID)+"-"+contracts.NewToken())); err != nil {
		return "", fmt.Errorf("submit %s: %w", task.ID, err)
	}
	return task.ID, nil
}

// Revoke publishes the order to end a job. It returns when the order is
// durable, not when the job has ended; Wait tells that.
func (c *Client) Revoke(ctx context.Context, revoke contracts.Revoke) error {
	if _, err := contracts.ParseJobID(string(revoke.Job)); err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	revoke.Version, revoke.Terminate = contracts.Version, true
	data, err := json.Marshal(revoke)
	if err != nil {
		return fmt.Errorf("revoke %s: %w", revoke.Job, err)
	}
	if _, err := c.js.Publish(ctx, contracts.RevokeSubject(revoke.Job), data); err != nil {
		return fmt.Errorf("revoke %s: %w", revoke.Job, err)
	}
	return nil
}
