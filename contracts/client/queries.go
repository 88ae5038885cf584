package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"

	"github.com/gantry-worker/gantry/contracts"
)

// queryTimeout is how long a query waits for an answer of a service that is there.
const queryTimeout = 30 * time.Second

// ErrNobodyAnswers is returned by a query when no service is there to answer it.
var ErrNobodyAnswers = errors.New("no service answers; is Gantry running?")

// Job returns the projection of one job.
func (c *Client) Job(ctx context.Context, job contracts.JobID) (*contracts.Job, error) {
	return ask[contracts.Job](ctx, c, contracts.JobsGetSubject, map[string]contracts.JobID{"job": job})
}

// Jobs returns a page of jobs, the newest first.
func (c *Client) Jobs(ctx context.Context, filter contracts.JobFilter) (*contracts.JobList, error) {
	return ask[contracts.JobList](ctx, c, contracts.JobsListSubject, filter)
}

// LogPage returns a part of a job's log.
func (c *Client) LogPage(ctx context.Context, request contracts.LogRequest) (*contracts.LogPage, error) {
	return ask[contracts.LogPage](ctx, c, contracts.JobsLogSubject, request)
}

// Workers returns the running service instances.
func (c *Client) Workers(ctx context.Context) ([]contracts.Instance, error) {
	workers, err := ask[[]contracts.Instance](ctx, c, contracts.WorkersListSubject, struct{}{})
	if err != nil {
		return nil, err
	}
	return *workers, nil
}

// NumberedDeadLetter is a dead letter with its stream sequence, by which
// DeadLetter finds it.
type NumberedDeadLetter struct {
	Seq uint64 `json:"seq"`
	contracts.DeadLetter
}

// DeadLetters returns the refused submissions, the newest first, at most limit.
func (c *Client) DeadLetters(ctx context.Context, limit int) ([]NumberedDeadLetter, error) {
	letters, err := ask[[]NumberedDeadLetter](ctx, c, contracts.DeadListSubject, map[string]int{"limit": limit})
	if err != nil {
		return nil, err
	}
	return *letters, nil
}

// DeadLetter returns one refused submission.
func (c *Client) DeadLetter(ctx context.Context, seq uint64) (*NumberedDeadLetter, error) {
	return ask[NumberedDeadLetter](ctx, c, contracts.DeadShowSubject, map[string]uint64{"seq": seq})
}

func ask[T any](ctx context.Context, c *Client, subject string, request any) (*T, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", subject, err)
	}
	ctx, cancel := context.WithTimeout(ctx, max(queryTimeout, c.patience))
	defer cancel()
	ctx, stop := c.UntilRefused(ctx, subject)
	defer stop()
	start := time.Now()
	reply, err := c.conn.RequestWithContext(ctx, subject, body)
	err = c.explain(err, start, subject)
	switch {
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("ask %s: %w", subject, ErrNobodyAnswers)
	case err != nil:
		return nil, fmt.Errorf("ask %s: %w", subject, err)
	}
	var refused struct {
		Error *contracts.RequestError `json:"error"`
	}
	if reply.Header.Get("Nats-Service-Error-Code") != "" {
		if err := json.Unmarshal(reply.Data, &refused); err == nil && refused.Error != nil {
			return nil, refused.Error
		}
		return nil, fmt.Errorf("ask %s: %s", subject, reply.Header.Get("Nats-Service-Error"))
	}
	answer := new(T)
	if err := json.Unmarshal(reply.Data, answer); err != nil {
		return nil, fmt.Errorf("ask %s: %w", subject, err)
	}
	return answer, nil
}
