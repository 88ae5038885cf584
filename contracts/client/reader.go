package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Reader reads a stream in order, through a consumer of its own in the server's
// memory. It never makes that anew by itself: whatever breaks it, a lost
// connection too, ends it, and who reads opens another one where it stopped. So
// it waits for nothing but its contexts.
type Reader struct {
	consumer jetstream.Consumer
	messages jetstream.MessagesContext
	read     uint64 // messages

	lost      context.Context // ends with the connection
	cancel    context.CancelFunc
	conn      *nats.Conn
	listening chan nats.Status
	watched   chan struct{}
}

var (
	// errGap is the end of a reader that a message did not reach.
	errGap = errors.New("a message was lost on its way")
	// errDisconnected is the end of a reader whose connection was lost.
	errDisconnected = errors.New("the connection was lost")
)

// readerIdle is how long the server keeps the consumer of a reader that is gone.
const readerIdle = time.Minute

// readAhead is how many bytes a reader asks for at once, far more than the largest
// message has: a log may be long, and read by many.
const readAhead = 4 << 20

// readerBeat is how often the server says that a reader waits. It looks for
// messages then as well: those that a member of a cluster is sent while it
// catches up wake no consumer there. A reader that misses two is opened anew.
const readerBeat = 5 * time.Second

// OpenReader opens a reader. Of config counts what is to be read: filters and
// where to begin; with both a sequence and a time to start from, that is at
// whichever comes first in the stream.
func (c *Client) OpenReader(ctx context.Context, stream string, config jetstream.ConsumerConfig) (*Reader, error) {
	config.AckPolicy, config.MemoryStorage, config.Replicas = jetstream.AckNonePolicy, true, 1
	config.MaxDeliver, config.InactiveThreshold = 1, readerIdle
	r := &Reader{conn: c.conn, listening: c.conn.StatusChanged(nats.RECONNECTING, nats.CLOSED), watched: make(chan struct{})}
	r.lost, r.cancel = context.WithCancel(context.Background())
	go r.watch()
	err := r.open(ctx, c.js, stream, config)
	switch {
	case err == nil:
		return r, nil
	case ctx.Err() == nil && r.lost.Err() != nil:
		err = errDisconnected
	}
	r.forget()
	return nil, err
}

func (r *Reader) open(ctx context.Context, js jetstream.JetStream, stream string, config jetstream.ConsumerConfig) (err error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	defer context.AfterFunc(r.lost, cancel)()
	if r.consumer, err = create(ctx, js, stream, config); err != nil {
		return err
	}
	r.messages, err = r.consumer.Messages(
		jetstream.PullMaxMessagesWithBytesLimit(jetstream.DefaultMaxMessages, readAhead), jetstream.PullHeartbeat(readerBeat))
	return err
}

// create never begins behind the sequence, however the time would have it: the
// member of a cluster that stores now may have a clock that is behind, and of
// several filters nats-server 2.15 may pass over the messages of one up to the
// first of another.
func create(ctx context.Context, js jetstream.JetStream, stream string, config jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	if config.OptStartTime == nil {
		return js.CreateConsumer(ctx, stream, config)
	}
	byTime := config
	byTime.DeliverPolicy, byTime.OptStartSeq = jetstream.DeliverByStartTimePolicy, 0
	consumer, err := js.CreateConsumer(ctx, stream, byTime)
	if err != nil || consumer.CachedInfo().Delivered.Stream < config.OptStartSeq {
		return consumer, err
	}
	config.DeliverPolicy, config.OptStartTime = jetstream.DeliverByStartSequencePolicy, nil
	return js.CreateConsumer(ctx, stream, config)
}

func (r *Reader) watch() {
	defer close(r.watched)
	select {
	case <-r.listening:
		r.cancel()
	case <-r.lost.Done():
	}
}

// Next returns the next message, waiting for it as long as the context lasts.
func (r *Reader) Next(ctx context.Context) (jetstream.Msg, *jetstream.MsgMetadata, error) {
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.lost, cancel)()
	msg, err := r.messages.Next(jetstream.NextContext(waiting))
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, nil, context.Cause(ctx)
	case err != nil && r.lost.Err() != nil:
		return nil, nil, errDisconnected
	case err != nil:
		return nil, nil, err
	}
	meta, err := msg.Metadata()
	if err != nil {
		return nil, nil, err
	}
	if r.read++; meta.Sequence.Consumer != r.read {
		return nil, nil, fmt.Errorf("%w: delivery %d came instead of %d", errGap, meta.Sequence.Consumer, r.read)
	}
	return msg, meta, nil
}

// Close ends the reader.
func (r *Reader) Close() {
	r.messages.Stop()
	r.forget()
}

// forget ends the watch of the connection.
func (r *Reader) forget() {
	r.cancel()
	<-r.watched
	r.conn.RemoveStatusListener(r.listening)
}
