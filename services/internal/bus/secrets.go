package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
)

func secretKey(job contracts.JobID, kind contracts.SecretKind) string {
	return string(job) + "." + string(kind)
}

// Secrets returns the secrets of one kind and job, nil if there are none. A
// service asks only for the kind that it may read.
func (b *Bus) Secrets(ctx context.Context, job contracts.JobID, kind contracts.SecretKind) (contracts.Secrets, error) {
	var secrets contracts.Secrets
	err := b.persist(ctx, func(ctx context.Context) error {
		kv, err := b.JetStream().KeyValue(ctx, contracts.BucketSecrets)
		if err != nil {
			return err
		}
		entry, err := kv.Get(ctx, secretKey(job, kind))
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return json.Unmarshal(entry.Value(), &secrets)
	})
	if err != nil {
		return nil, fmt.Errorf("read %s secrets of %s: %w", kind, job, err)
	}
	return secrets, nil
}

// PutSecrets stores the secrets of one kind and job, in place of those that
// may be there.
func (b *Bus) PutSecrets(ctx context.Context, job contracts.JobID, kind contracts.SecretKind, secrets contracts.Secrets) error {
	data, err := json.Marshal(secrets)
	if err == nil {
		err = b.persist(ctx, func(ctx context.Context) error {
			kv, err := b.JetStream().KeyValue(ctx, contracts.BucketSecrets)
			if err != nil {
				return err
			}
			_, err = kv.Put(ctx, secretKey(job, kind), data)
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("store %s secrets of %s: %w", kind, job, err)
	}
	return nil
}

// DeleteSecrets removes all secrets of a job, and leaves no marker that could
// be read instead.
func (b *Bus) DeleteSecrets(ctx context.Context, job contracts.JobID) error {
	for _, kind := range contracts.SecretKinds {
		err := b.persist(ctx, func(ctx context.Context) error {
			kv, err := b.JetStream().KeyValue(ctx, contracts.BucketSecrets)
			if err != nil {
				return err
			}
			return kv.Purge(ctx, secretKey(job, kind))
		})
		if err != nil {
			return fmt.Errorf("delete %s secrets of %s: %w", kind, job, err)
		}
	}
	return nil
}
