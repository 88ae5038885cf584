package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Message is one message of a stream.
type Message struct {
	Subject string
	Data    []byte
	// ID is its Nats-Msg-Id, empty for none.
	ID string
	// Seq is its stream sequence, Time when the server stored it.
	Seq  uint64
	Time time.Time
	// Reply is its acknowledgement subject, empty for a message that was only
	// read. It works from any connection.
	Reply string
}

// NewMessage returns what a consumer delivered.
func NewMessage(msg jetstream.Msg) (*Message, error) {
	meta, err := msg.Metadata()
	if err != nil {
		return nil, fmt.Errorf("read message on %s: %w", msg.Subject(), err)
	}
	return &Message{
		Subject: msg.Subject(), Data: msg.Data(), ID: msg.Headers().Get(nats.MsgIdHdr),
		Seq: meta.Sequence.Stream, Time: meta.Timestamp.UTC(), Reply: msg.Reply(),
	}, nil
}

// ErrNoMessage is returned by MessageAt for a sequence that has no message.
var ErrNoMessage = errors.New("no such message")

// Bounds returns the first and last sequence of a stream; first is greater than
// last for an empty one.
func (b *Bus) Bounds(ctx context.Context, streamName string) (first, last uint64, err error) {
	err = b.persist(ctx, func(ctx context.Context) error {
		stream, err := b.JetStream().Stream(ctx, streamName)
		if err != nil {
			return err
		}
		state := stream.CachedInfo().State
		first, last = state.FirstSeq, state.LastSeq
		return nil
	}, onStream(streamName)...)
	if err != nil {
		return 0, 0, fmt.Errorf("read bounds of %s: %w", streamName, err)
	}
	return first, last, nil
}

// MessageAt returns the message of a stream at a sequence, or [ErrNoMessage].
func (b *Bus) MessageAt(ctx context.Context, streamName string, seq uint64) (*Message, error) {
	var raw *jetstream.RawStreamMsg
	err := b.persist(ctx, func(ctx context.Context) error {
		stream, err := b.stream(ctx, streamName)
		if err != nil {
			return err
		}
		raw, err = stream.GetMsg(ctx, seq)
		return err
	}, onStream(streamName)...)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, fmt.Errorf("read message %d of %s: %w", seq, streamName, ErrNoMessage)
	}
	if err != nil {
		return nil, fmt.Errorf("read message %d of %s: %w", seq, streamName, err)
	}
	return &Message{Subject: raw.Subject, Data: raw.Data, ID: raw.Header.Get(nats.MsgIdHdr), Seq: raw.Sequence, Time: raw.Time}, nil
}

// GiveBack lets a message come again, to anybody, after a delay.
func (b *Bus) GiveBack(msg *Message, delay time.Duration) error {
	body := nakBody
	if delay > 0 {
		body = fmt.Appendf(slices.Clip(body), ` {"delay": %d}`, delay.Nanoseconds())
	}
	if err := b.Conn().Publish(msg.Reply, body); err != nil {
		return fmt.Errorf("give back %s: %w", msg.Subject, err)
	}
	return nil
}
