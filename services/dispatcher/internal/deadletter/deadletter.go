// Package deadletter keeps refused submissions for the operator.
package deadletter

import (
	"context"
	"fmt"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// Letter is a submission that is refused.
type Letter struct {
	Job     contracts.JobID
	Queue   contracts.Queue
	Reason  string
	Payload []byte
	// Submission is the stream sequence of the submission.
	Submission uint64
}

// Keep stores a refused submission, without what looks like a secret in it.
// Keeping one twice keeps one, unless minutes lie in between.
func Keep(ctx context.Context, b *bus.Bus, l Letter) error {
	queue := l.Queue
	if _, err := contracts.ParseName[contracts.Queue](string(queue)); err != nil {
		queue = contracts.DefaultQueue
	}
	letter := contracts.DeadLetter{
		Version: contracts.Version, Job: l.Job, Queue: queue, Time: time.Now().UTC(), Reason: l.Reason,
		Payload: string(contracts.ScrubPayload(l.Payload)), Submission: l.Submission,
	}
	return b.Publish(ctx, contracts.DeadSubject(queue), fmt.Sprintf("dead-%d", l.Submission), letter)
}
