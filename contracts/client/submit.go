package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"
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
	id := jetstream.WithMsgID("submit-" + string(task.ID) + "-" + contracts.NewToken())
	if err := c.publish(ctx, contracts.StreamSubmit, subject, data, id); err != nil {
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
	subject := contracts.RevokeSubject(revoke.Job)
	if err := c.publish(ctx, contracts.StreamRevoke, subject, data); err != nil {
		return fmt.Errorf("revoke %s: %w", revoke.Job, err)
	}
	return nil
}

// A cluster whose leader was lost elects another one in 4 to 9 seconds. In
// between nobody answers for a stream, or one who cannot keep the message.
const (
	electionTime  = 20 * time.Second
	fewestTries   = 5               // also where the time went by while this process stood still
	answerTime    = 2 * time.Second // until the same is asked again
	electionPause = 100 * time.Millisecond
)

// publish outlasts an election of the stream's leader. What it publishes may
// come twice.
func (c *Client) publish(ctx context.Context, stream, subject string, data []byte, options ...jetstream.PublishOpt) error {
	return c.outlast(ctx, stream, func(ctx context.Context) error {
		_, err := c.js.Publish(ctx, subject, data, options...)
		return err
	}, subject)
}

// outlast does something that a stream's leader answers, again where an election
// keeps it from that. subjects are those that it publishes to.
func (c *Client) outlast(ctx context.Context, stream string, do func(context.Context) error, subjects ...string) error {
	start := time.Now()
	for tries := 1; ; tries++ {
		err := c.once(ctx, do, subjects)
		isLate := tries >= fewestTries && time.Since(start) > max(electionTime, c.patience)
		switch refused := c.Refused(start, subjects...); {
		case err != nil && refused != nil:
			return refused
		case ctx.Err() != nil || err == nil || isLate:
			return err
		case errors.Is(err, jetstream.ErrNoStreamResponse):
			if c.isMissing(ctx, stream) {
				return err
			}
		case !isElection(err):
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(electionPause):
		}
	}
}

func (c *Client) once(ctx context.Context, do func(context.Context) error, subjects []string) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	ctx, stop := c.UntilRefused(ctx, subjects...)
	defer stop()
	return do(ctx)
}

// notStored is the code of a 503 that does not pass: the stream is full, or cannot
// be written.
const notStored jetstream.ErrorCode = 10077

// undecided are the codes of further answers that pass.
var undecided = []jetstream.ErrorCode{
	10005, // no suitable peers for placement
	10007, // not assigned to this server
	10009, // cannot handle the request: not the leader
	// An earlier copy of the message, with the same id, is not stored yet: it may
	// still be lost with the leader.
	10158,
}

// isElection reports whether an error says that nobody has decided about the
// message.
func isElection(err error) bool {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return api.Code == http.StatusServiceUnavailable && api.ErrorCode != notStored || slices.Contains(undecided, api.ErrorCode)
	}
	for _, silence := range []error{
		context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders, nats.ErrDisconnected, nats.ErrConnectionReconnecting,
		nats.ErrReconnectBufExceeded,
	} {
		if errors.Is(err, silence) {
			return true
		}
	}
	return ConnectionBroke(err)
}

// isMissing reports whether the servers say that there is no such stream, or
// no JetStream at all.
func (c *Client) isMissing(ctx context.Context, stream string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := c.js.Stream(ctx, stream)
	return errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrJetStreamNotEnabled) ||
		errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount)
}
