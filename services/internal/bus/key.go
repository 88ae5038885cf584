package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// key reads a key of a bucket whose keys are stored once and never marked as
// deleted. Any replica answers such a read, also one that does not have yet what
// was stored just before: that there is no such key, [jetstream.ErrKeyNotFound],
// is the word of the leader.
func (b *Bus) key(ctx context.Context, bucket, key string) (jetstream.KeyValueEntry, error) {
	kv, err := b.JetStream().KeyValue(ctx, bucket)
	if err != nil {
		return nil, err
	}
	entry, notFound := kv.Get(ctx, key)
	if !errors.Is(notFound, jetstream.ErrKeyNotFound) {
		return entry, notFound
	}
	stream, err := b.stream(ctx, "KV_"+bucket)
	if err != nil {
		return nil, err
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter("$KV."+bucket+"."+key))
	switch {
	case err != nil:
		return nil, err
	case len(info.State.Subjects) > 0:
		return nil, fmt.Errorf("%w: a replica does not have %s yet", errUndecided, key)
	}
	return nil, notFound
}
