package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
)

// announceAgain is the pause after a renewal that failed: when JetStream is
// back, the service is soon to say so.
const announceAgain = time.Second

// Announce keeps a service instance listed in the bucket of nodes until the
// context ends, and then takes it off the list. describe is asked at each
// renewal, every third of [contracts.InstanceTTL]. [Bus.Ready] and [Presence]
// rest on it.
func (b *Bus) Announce(ctx context.Context, describe func() contracts.Instance) error {
	for {
		instance, sent := describe(), time.Now()
		wait := contracts.InstanceTTL / 3
		err := b.try(ctx, func(ctx context.Context) error { return b.renew(ctx, instance) })
		if err == nil {
			b.renewed.Store(&sent)
		} else if ctx.Err() == nil {
			zerolog.Ctx(ctx).Debug().Err(err).Msg("instance not announced")
			wait = announceAgain
		}
		pause(ctx, wait)
		if ctx.Err() != nil {
			return b.withdraw(context.WithoutCancel(ctx), instance)
		}
	}
}

// Ready reports whether JetStream answers this service: whether what
// [Bus.Announce] says of it was stored lately. A connection alone is no sign, as
// a cluster without a quorum has those too.
func (b *Bus) Ready(context.Context) error {
	if err := b.Connected(); err != nil {
		return err
	}
	renewed := b.renewed.Load()
	if renewed == nil {
		return errors.New("not announced to JetStream yet")
	}
	if silent := time.Since(*renewed); silent > contracts.InstanceTTL {
		return fmt.Errorf("JetStream has not answered for %s", silent.Round(time.Second))
	}
	return nil
}

func (b *Bus) renew(ctx context.Context, instance contracts.Instance) error {
	data, err := json.Marshal(instance)
	if err != nil {
		return err
	}
	// A plain put would drop the key's time to live.
	subject := "$KV." + contracts.BucketNodes + "." + contracts.InstanceKey(instance.Service, instance.ID)
	_, err = b.JetStream().Publish(ctx, subject, data, jetstream.WithMsgTTL(contracts.InstanceTTL))
	return err
}

func (b *Bus) withdraw(ctx context.Context, instance contracts.Instance) error {
	if b.Connected() != nil {
		return nil // it expires by itself
	}
	return b.try(ctx, func(ctx context.Context) error {
		kv, err := b.JetStream().KeyValue(ctx, contracts.BucketNodes)
		if err != nil {
			return err
		}
		return kv.Purge(ctx, contracts.InstanceKey(instance.Service, instance.ID), jetstream.PurgeTTL(contracts.InstanceTTL))
	})
}

// Instances returns all listed instances, without those that are not readable.
func (b *Bus) Instances(ctx context.Context) ([]contracts.Instance, error) {
	kv, err := b.JetStream().KeyValue(ctx, contracts.BucketNodes)
	if err != nil {
		return nil, fmt.Errorf("list instances: %w", err)
	}
	keys, err := kv.ListKeys(ctx)
	if err != nil {
		return nil, fmt.Errorf("list instances: %w", err)
	}
	var entries []jetstream.KeyValueEntry
	var newest time.Time
	for key := range keys.Keys() {
		entry, err := kv.Get(ctx, key)
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list instances: %w", err)
		}
		entries = append(entries, entry)
		if entry.Created().After(newest) {
			newest = entry.Created()
		}
	}
	instances := []contracts.Instance{}
	for _, entry := range entries {
		// A server that was killed may forget when a key is to expire. Both times
		// are the server's.
		isStale := newest.Sub(entry.Created()) > contracts.InstanceTTL
		if isLease(entry.Key()) || isStale {
			continue
		}
		var instance contracts.Instance
		if err := json.Unmarshal(entry.Value(), &instance); err != nil {
			zerolog.Ctx(ctx).Warn().Err(err).Str("key", entry.Key()).Msg("instance is not readable, left out")
			continue
		}
		instances = append(instances, instance)
	}
	return instances, nil
}
