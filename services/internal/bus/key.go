package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// key reads a key of a bucket whose keys are stored once. Any replica answers such
// a read, also one that does not have yet what was stored just before: that there
// is no such key, [jetstream.ErrKeyNotFound], is the word of the leader. A key that
// somebody deleted is not found either, and the message is the mark of that.
func (b *Bus) key(ctx context.Context, bucket, key string) (*jetstream.RawStreamMsg, error) {
	stream, err := b.stream(ctx, "KV_"+bucket)
	if err != nil {
		return nil, err
	}
	subject := "$KV." + bucket + "." + key
	msg, err := stream.GetLastMsgForSubject(ctx, subject)
	switch {
	case err == nil && isMark(msg):
		return msg, fmt.Errorf("%w: %s was deleted", jetstream.ErrKeyNotFound, key)
	case !errors.Is(err, jetstream.ErrMsgNotFound):
		return msg, err
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(subject))
	switch {
	case err != nil:
		return nil, err
	case len(info.State.Subjects) > 0:
		return nil, fmt.Errorf("%w: a replica does not have %s yet", errUndecided, key)
	}
	return nil, jetstream.ErrKeyNotFound
}

// isMark reports whether a message only says that a key was deleted: by whom, or
// by the server.
func isMark(msg *jetstream.RawStreamMsg) bool {
	return msg.Header.Get("KV-Operation") != "" || msg.Header.Get(jetstream.MarkerReasonHeader) != ""
}
