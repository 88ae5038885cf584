package deadletter

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// maxListed and maxListedBytes bound a list of dead letters: the answer is one
// message.
const (
	maxListed      = 1000
	maxListedBytes = 512 << 10
)

// errUnreadable is a message on the stream of dead letters that is none.
var errUnreadable = errors.New("not a dead letter")

type listRequest struct {
	Limit int `json:"limit"`
}

type showRequest struct {
	Seq uint64 `json:"seq"`
}

// Serve answers the queries about dead letters until the context ends.
func Serve(ctx context.Context, b *bus.Bus) error {
	return b.Serve(ctx, "Dead letters of Gantry.",
		bus.NewEndpoint(contracts.DeadListSubject, func(ctx context.Context, r listRequest) ([]client.NumberedDeadLetter, error) {
			return list(ctx, b, r.Limit)
		}),
		bus.NewEndpoint(contracts.DeadShowSubject, func(ctx context.Context, r showRequest) (*client.NumberedDeadLetter, error) {
			return show(ctx, b, r.Seq)
		}),
	)
}

// list returns the newest letters first, without their payloads: show has
// those.
func list(ctx context.Context, b *bus.Bus, limit int) ([]client.NumberedDeadLetter, error) {
	if limit <= 0 || limit > maxListed {
		limit = maxListed
	}
	first, last, err := b.Bounds(ctx, contracts.StreamDead)
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	letters, size := []client.NumberedDeadLetter{}, 0
	for seq := last; seq >= first && seq > 0 && len(letters) < limit && size < maxListedBytes; seq-- {
		letter, err := read(ctx, b, seq)
		if errors.Is(err, bus.ErrNoMessage) || errors.Is(err, errUnreadable) {
			continue
		}
		if err != nil {
			return nil, err
		}
		letter.Payload = ""
		size += len(letter.Reason)
		letters = append(letters, *letter)
	}
	return letters, nil
}

func show(ctx context.Context, b *bus.Bus, seq uint64) (*client.NumberedDeadLetter, error) {
	letter, err := read(ctx, b, seq)
	if errors.Is(err, bus.ErrNoMessage) {
		return nil, &contracts.RequestError{Code: contracts.CodeNotFound, Field: "seq", Message: fmt.Sprintf("there is no dead letter %d", seq)}
	}
	return letter, err
}

func read(ctx context.Context, b *bus.Bus, seq uint64) (*client.NumberedDeadLetter, error) {
	msg, err := b.MessageAt(ctx, contracts.StreamDead, seq)
	if err != nil {
		return nil, fmt.Errorf("read dead letter %d: %w", seq, err)
	}
	letter := client.NumberedDeadLetter{Seq: seq}
	if err := json.Unmarshal(msg.Data, &letter.DeadLetter); err != nil {
		return nil, fmt.Errorf("read dead letter %d: %w: %w", seq, errUnreadable, err)
	}
	return &letter, nil
}
