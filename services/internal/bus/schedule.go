package bus

import (
	"context"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"

	"github.com/gantry-worker/gantry/contracts"
)

// Schedule makes the server publish message on the due subject of a job at a
// time, in place of what was scheduled there before. A time that has passed is
// now.
func (b *Bus) Schedule(ctx context.Context, job contracts.JobID, what contracts.LaterWhat, at time.Time, message any) error {
	data, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("schedule %s of %s: %w", what, job, err)
	}
	msg := nats.NewMsg(contracts.LaterSubject(job, what))
	msg.Data = data
	// nats.go's option truncates to seconds, and so fires too early.
	msg.Header.Set("Nats-Schedule", "@at "+at.UTC().Format(time.RFC3339Nano))
	msg.Header.Set("Nats-Schedule-Target", contracts.DueSubject(job, what))
	return b.publish(ctx, msg)
}
