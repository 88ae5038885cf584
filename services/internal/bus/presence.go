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
// rest on it. The error is [ErrClosed] where NATS is never to be heard again.
func (b *Bus) Announce(ctx context.Context, describe func() contracts.Instance) error {
	b.announced.Store(true)
	for {
		instance, sent := describe(), time.Now()
		wait := contracts.InstanceTTL / 3
		err := b.try(ctx, func(ctx context.Context) error { return b.renew(ctx, instance) })
		if err == nil {
			b.renewed.Store(&sent)
		} else if ctx.Err() == nil {
			zerolog.Ctx(ctx).Debug().Err(err).Msg("instance not announced") // Ready tells it
			wait = announceAgain
		}
		select {
		case <-ctx.Done():
			b.withdraw(context.WithoutCancel(ctx), instance)
			return nil
		case <-b.closed.Done():
			return context.Cause(b.closed)
		case <-time.After(wait):
		}
	}
}

// refusedFor is how long a service is not ready after NATS refused a message of
// it: longer than the pauses between its tries.
const refusedFor = time.Minute

// Ready reports whether JetStream answers this service: whether what
// [Bus.Announce] says of it was stored lately, and nothing was refused. A
// connection alone is no sign, as a cluster without a quorum has those too.
func (b *Bus) Ready(context.Context) error {
	if err := b.Connected(); err != nil {
		return err
	}
	if refused := b.RefusedAny(time.Now().Add(-refusedFor), b.ConnectedSince()); refused != nil {
		return refused
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

// withdraw takes an instance off the list, from which it goes by itself in the
// end: that NATS is away is no error of a service that stops.
func (b *Bus) withdraw(ctx context.Context, instance contracts.Instance) {
	if b.Connected() != nil {
		return
	}
	err := b.try(ctx, func(ctx context.Context) error {
		kv, err := b.JetStream().KeyValue(ctx, contracts.BucketNodes)
		if err != nil {
			return err
		}
		return kv.Purge(ctx, contracts.InstanceKey(instance.Service, instance.ID), jetstream.PurgeTTL(contracts.InstanceTTL))
	})
	if err != nil {
		zerolog.Ctx(ctx).Debug().Err(err).Msg("instance not taken off the list, where it stays for some seconds")
	}
}

// nodes returns what is in the bucket of nodes. It waits out an outage of NATS.
func (b *Bus) nodes(ctx context.Context) ([]jetstream.KeyValueEntry, error) {
	subjects := append(onBucket(contracts.BucketNodes), "$JS.API.CONSUMER.CREATE."+nodesStream)
	var kv jetstream.KeyValue
	var keys []string
	err := b.persist(ctx, func(ctx context.Context) (err error) {
		if kv, err = b.JetStream().KeyValue(ctx, contracts.BucketNodes); err != nil {
			return err
		}
		listed, err := kv.ListKeys(ctx)
		if err != nil {
			return err
		}
		keys = nil
		for key := range listed.Keys() {
			keys = append(keys, key)
		}
		return ctx.Err() // it ends the list as well
	}, subjects...)
	if err != nil {
		return nil, err
	}
	var entries []jetstream.KeyValueEntry
	for _, key := range keys {
		err := b.persist(ctx, func(ctx context.Context) error {
			entry, err := kv.Get(ctx, key)
			if errors.Is(err, jetstream.ErrKeyNotFound) {
				return nil
			}
			if err == nil {
				entries = append(entries, entry)
			}
			return err
		}, subjects...)
		if err != nil {
			return nil, err
		}
	}
	return entries, nil
}

// Instances returns all listed instances, without those that are not readable.
func (b *Bus) Instances(ctx context.Context) ([]contracts.Instance, error) {
	entries, err := b.nodes(ctx)
	if err != nil {
		return nil, fmt.Errorf("list instances: %w", err)
	}
	var newest time.Time
	for _, entry := range entries {
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
