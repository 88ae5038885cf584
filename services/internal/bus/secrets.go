package bus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

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

// secretsStream is the stream of the bucket of secrets.
const secretsStream = "KV_" + contracts.BucketSecrets

// DeleteSecrets removes all secrets of a job. The messages are purged: a key
// that is deleted would leave a marker for ever.
func (b *Bus) DeleteSecrets(ctx context.Context, job contracts.JobID) error {
	if err := b.Purge(ctx, secretsStream, "$KV."+contracts.BucketSecrets+"."+secretKey(job, "*")); err != nil {
		return fmt.Errorf("delete secrets of %s: %w", job, err)
	}
	return nil
}

// JobsWithSecrets returns the jobs that have secrets, by the names of the keys:
// no secret is read for it.
func (b *Bus) JobsWithSecrets(ctx context.Context) ([]contracts.JobID, error) {
	stream, err := b.stream(ctx, secretsStream)
	if err != nil {
		return nil, fmt.Errorf("list secrets: %w", err)
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(">"))
	if err != nil {
		return nil, fmt.Errorf("list secrets: %w", err)
	}
	jobs := map[contracts.JobID]bool{}
	for subject := range info.State.Subjects {
		key := strings.TrimPrefix(subject, "$KV."+contracts.BucketSecrets+".")
		job, _, _ := strings.Cut(key, ".")
		jobs[contracts.JobID(job)] = true
	}
	return slices.Collect(maps.Keys(jobs)), nil
}
