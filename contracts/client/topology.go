package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
)

// minimumAPILevel is JetStream's API level of nats-server 2.14, the first
// whose message schedules Gantry can use.
const minimumAPILevel = 4

// ApplyTopology creates or updates every stream and bucket that package
// contracts declares, with the given number of replicas (1 or 3), and the
// consumers of the dispatcher. It may be called any number of times, by
// several at once.
func (c *Client) ApplyTopology(ctx context.Context, replicas int) error {
	for _, step := range c.TopologySteps(replicas) {
		if err := step.Do(ctx); err != nil {
			return err
		}
	}
	return nil
}

// TopologyStep is a part of what ApplyTopology does. It may be taken again.
type TopologyStep struct {
	Name string // of what there is then
	Do   func(ctx context.Context) error
}

// TopologySteps returns what ApplyTopology does, in order: for those who try
// each step until it works, as each may be the one that a leader is lost in.
func (c *Client) TopologySteps(replicas int) []TopologyStep {
	steps := []TopologyStep{{"JetStream", c.checkJetStream}}
	add := func(name string, do func(context.Context) error) {
		steps = append(steps, TopologyStep{name, func(ctx context.Context) error {
			if err := do(ctx); err != nil {
				return fmt.Errorf("apply %s: %w", name, err)
			}
			return nil
		}})
	}
	for _, stream := range contracts.Streams {
		add("stream "+stream.Name, func(ctx context.Context) error {
			_, err := c.js.CreateOrUpdateStream(ctx, streamConfig(stream, replicas))
			return err
		})
	}
	for _, bucket := range contracts.Buckets {
		add("bucket "+bucket.Name, func(ctx context.Context) error { return c.applyBucket(ctx, bucket, replicas) })
	}
	for _, consumer := range []contracts.Consumer{contracts.SubmitConsumer, contracts.DueConsumer, contracts.ProjectionConsumer} {
		steps = append(steps, TopologyStep{"consumer of " + consumer.Stream, func(ctx context.Context) error {
			_, err := c.ApplyConsumer(ctx, consumer)
			return err
		}})
	}
	return steps
}

func (c *Client) checkJetStream(ctx context.Context) error {
	account, err := c.js.AccountInfo(ctx)
	if err != nil {
		return fmt.Errorf("ask for JetStream: %w", err)
	}
	if account.API.Level < minimumAPILevel {
		return fmt.Errorf("the NATS server's JetStream has API level %d, needed is %d: use nats-server 2.14.3 or later",
			account.API.Level, minimumAPILevel)
	}
	return nil
}

// ApplyConsumer creates or updates one durable consumer.
func (c *Client) ApplyConsumer(ctx context.Context, consumer contracts.Consumer) (jetstream.Consumer, error) {
	config := jetstream.ConsumerConfig{
		Durable:        consumer.Durable,
		FilterSubjects: consumer.Filters,
		AckPolicy:      jetstream.AckExplicitPolicy,
		AckWait:        consumer.AckWait,
		MaxAckPending:  -1,
		MaxDeliver:     -1,
		MaxWaiting:     contracts.MaxWaiting,
	}
	handle, err := c.js.CreateOrUpdateConsumer(ctx, consumer.Stream, config)
	if err != nil {
		return nil, fmt.Errorf("apply consumer %s of %s: %w", consumer.Durable, consumer.Stream, err)
	}
	return handle, nil
}

func streamConfig(s contracts.Stream, replicas int) jetstream.StreamConfig {
	config := jetstream.StreamConfig{
		Name:              s.Name,
		Subjects:          s.Subjects,
		Storage:           jetstream.FileStorage,
		Replicas:          replicas,
		Retention:         jetstream.LimitsPolicy,
		Discard:           jetstream.DiscardOld,
		MaxMsgSize:        s.MaxMsgSize,
		MaxBytes:          s.MaxBytes,
		MaxMsgsPerSubject: s.MaxPerSubject,
		MaxAge:            s.MaxAge,
		Duplicates:        min(2*time.Minute, nonZero(s.MaxAge)),
		AllowMsgSchedules: s.Schedules,
	}
	if s.WorkQueue {
		config.Retention = jetstream.WorkQueuePolicy
	}
	if s.DiscardNew {
		config.Discard = jetstream.DiscardNew
	}
	return config
}

func nonZero(age time.Duration) time.Duration {
	if age == 0 {
		return 1<<63 - 1
	}
	return age
}

func (c *Client) applyBucket(ctx context.Context, b contracts.Bucket, replicas int) error {
	config := jetstream.KeyValueConfig{Bucket: b.Name, History: 1, Storage: jetstream.FileStorage, Replicas: replicas}
	if b.PerKeyTTL {
		config.LimitMarkerTTL = contracts.InstanceTTL
	}
	_, err := c.js.CreateOrUpdateKeyValue(ctx, config)
	return err
}

// StreamState is one stream as the server has it.
type StreamState struct {
	Name      string   `json:"name"`
	Subjects  []string `json:"subjects"`
	Missing   bool     `json:"missing,omitempty"`
	Messages  uint64   `json:"messages"`
	Bytes     uint64   `json:"bytes"`
	Consumers int      `json:"consumers"`
	Replicas  int      `json:"replicas"`
}

// Topology returns the streams and buckets that package contracts declares, as
// the server has them.
func (c *Client) Topology(ctx context.Context) ([]StreamState, error) {
	names := StreamNames()
	states := make([]StreamState, 0, len(names))
	for _, name := range names {
		stream, err := c.js.Stream(ctx, name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			states = append(states, StreamState{Name: name, Missing: true})
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read stream %s: %w", name, err)
		}
		info := stream.CachedInfo()
		states = append(states, StreamState{
			Name: name, Subjects: info.Config.Subjects, Messages: info.State.Msgs, Bytes: info.State.Bytes,
			Consumers: info.State.Consumers, Replicas: info.Config.Replicas,
		})
	}
	return states, nil
}

// StreamNames returns the streams that package contracts declares, those of the
// buckets too.
func StreamNames() []string {
	names := make([]string, 0, len(contracts.Streams)+len(contracts.Buckets))
	for _, stream := range contracts.Streams {
		names = append(names, stream.Name)
	}
	for _, bucket := range contracts.Buckets {
		names = append(names, "KV_"+bucket.Name)
	}
	return names
}
