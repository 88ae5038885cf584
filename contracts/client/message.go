package client

import (
	"context"

	"github.com/nats-io/nats.go/jetstream"
)

// stream returns the handle of a stream, which is looked up once.
func (c *Client) stream(ctx context.Context, name string) (jetstream.Stream, error) {
	if known, ok := c.streams.Load(name); ok {
		return known.(jetstream.Stream), nil
	}
	stream, err := c.js.Stream(ctx, name)
	if err == nil {
		c.streams.Store(name, stream)
	}
	return stream, err
}

// message reads a message of a stream from its leader, also while another one is
// elected.
func (c *Client) message(ctx context.Context, name string, read func(context.Context, jetstream.Stream) (*jetstream.RawStreamMsg, error)) (*jetstream.RawStreamMsg, error) {
	var msg *jetstream.RawStreamMsg
	err := c.outlast(ctx, name, func(ctx context.Context) error {
		stream, err := c.stream(ctx, name)
		if err == nil {
			msg, err = read(ctx, stream)
		}
		return err
	}, "$JS.API.STREAM.INFO."+name, "$JS.API.STREAM.MSG.GET."+name)
	return msg, err
}

// lastMessage reads the last message of a stream on a subject.
func (c *Client) lastMessage(ctx context.Context, name, subject string) (*jetstream.RawStreamMsg, error) {
	return c.message(ctx, name, func(ctx context.Context, stream jetstream.Stream) (*jetstream.RawStreamMsg, error) {
		return stream.GetLastMsgForSubject(ctx, subject)
	})
}
