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
	secrets, _, err := b.secrets(ctx, secretKey(job, kind))
	if err != nil {
		return nil, fmt.Errorf("read %s secrets of %s: %w", kind, job, err)
	}
	return secrets, nil
}

func (b *Bus) secrets(ctx context.Context, key string) (secrets contracts.Secrets, revision uint64, err error) {
	err = b.persist(ctx, func(ctx context.Context) error {
		entry, err := b.key(ctx, contracts.BucketSecrets, key)
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			secrets, revision = nil, 0
			if entry != nil {
				revision = entry.Sequence
			}
			return nil
		}
		if err != nil {
			return err
		}
		revision = entry.Sequence
		return json.Unmarshal(entry.Data, &secrets)
	}, onBucket(contracts.BucketSecrets)...)
	return secrets, revision, err
}

// PutSecrets stores the secrets of one kind and job, unless some are there:
// others may have added to them since.
func (b *Bus) PutSecrets(ctx context.Context, job contracts.JobID, kind contracts.SecretKind, secrets contracts.Secrets) error {
	if _, err := b.storeSecrets(ctx, secretKey(job, kind), secrets, 0); err != nil {
		return fmt.Errorf("store %s secrets of %s: %w", kind, job, err)
	}
	return nil
}

// AddSecrets stores further secrets of one kind and job beside those that are
// there, and returns all. Where another service was faster with the name of any,
// nothing is stored: the other's stay.
func (b *Bus) AddSecrets(ctx context.Context, job contracts.JobID, kind contracts.SecretKind, added contracts.Secrets) (contracts.Secrets, error) {
	for {
		secrets, revision, err := b.secrets(ctx, secretKey(job, kind))
		if err != nil {
			return nil, fmt.Errorf("add %s secrets of %s: %w", kind, job, err)
		}
		all := contracts.Secrets{}
		maps.Copy(all, secrets)
		for name, value := range added {
			if _, taken := all[name]; taken {
				return secrets, nil
			}
			all[name] = value
		}
		stored, err := b.storeSecrets(ctx, secretKey(job, kind), all, revision)
		if err != nil {
			return nil, fmt.Errorf("add %s secrets of %s: %w", kind, job, err)
		}
		if stored {
			return all, nil
		}
	}
}

// storeSecrets reports false where the key has another revision by now, which
// may be our own after an answer that was lost.
func (b *Bus) storeSecrets(ctx context.Context, key string, secrets contracts.Secrets, revision uint64) (bool, error) {
	data, err := json.Marshal(secrets)
	if err != nil {
		return false, err
	}
	err = b.persist(ctx, func(ctx context.Context) error {
		_, err := b.JetStream().Publish(ctx, "$KV."+contracts.BucketSecrets+"."+key, data, jetstream.WithExpectLastSequencePerSubject(revision))
		return err
	}, onBucket(contracts.BucketSecrets)...)
	if isWrongSequence(err) {
		return false, nil
	}
	return err == nil, err
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
	subjects, err := b.subjects(ctx, secretsStream, ">")
	if err != nil {
		return nil, fmt.Errorf("list secrets: %w", err)
	}
	jobs := map[contracts.JobID]bool{}
	for subject := range subjects {
		key := strings.TrimPrefix(subject, "$KV."+contracts.BucketSecrets+".")
		job, _, _ := strings.Cut(key, ".")
		jobs[contracts.JobID(job)] = true
	}
	return slices.Collect(maps.Keys(jobs)), nil
}
