// Package deadletter keeps refused submissions for the operator.
package deadletter

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
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

// maxReason bounds a reason, in bytes: with thousands of problems it would not
// fit into a message.
const maxReason = 8 << 10

// Reason returns an error's text without what looks like a secret in it, and
// not too long for a life or a letter.
func Reason(err error) string {
	reason, mark := err.Error(), ""
	if len(reason) > maxReason {
		// Between words: half a secret would not be recognized as one.
		reason = reason[:maxReason]
		reason, mark = reason[:max(0, strings.LastIndexByte(reason, ' '))], " … (cut)"
	}
	return string(contracts.ScrubPayload([]byte(reason))) + mark
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
	// A server that lost submissions uses their sequences again.
	id := fmt.Sprintf("dead-%d-%x", l.Submission, sha256.Sum256(l.Payload))
	return b.Publish(ctx, contracts.DeadSubject(queue), id, letter)
}
