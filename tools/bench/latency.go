package main

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/tools/bench/internal/measure"
	"github.com/gantry-worker/gantry/tools/bench/internal/rig"
)

// claimIdle measures how soon an idle system claims a task. The task names an
// image that is not there, so that no container disturbs the next run.
func claimIdle(ctx context.Context, r *rig.Rig, with settings) (measure.Result, error) {
	result := measure.Result{
		What:      "submit → claimed on an idle system",
		LimitWhat: "one JetStream hop: publish of the same size, delivery to a waiting pull", Goal: "≤ 4 ×",
	}
	hop, err := newHop(ctx, r)
	if err != nil {
		return result, err
	}
	defer hop.close(ctx)
	for i := range 5 + with.runsOr(50) {
		gantry, err := claimLatency(ctx, r)
		if err != nil {
			return result, err
		}
		limit, err := hop.once(ctx)
		if err != nil {
			return result, err
		}
		if i >= 5 { // the first ones warm up
			result.Gantry, result.Limit = append(result.Gantry, gantry), append(result.Limit, limit)
		}
	}
	return result, nil
}

func claimLatency(ctx context.Context, r *rig.Rig) (time.Duration, error) {
	task := rig.Task()
	task.ID = contracts.NewJobID()
	task.Docker.Image = "gantry-bench-missing:none"
	var claimed time.Time
	ended := make(chan struct{})
	subscription, err := r.Client.Conn().Subscribe(contracts.LifeSubject(task.ID), func(msg *nats.Msg) {
		entry, err := contracts.DecodeEntry(msg.Data)
		switch {
		case err != nil:
		case entry.Type == contracts.EntryClaimed:
			claimed = time.Now()
		case entry.Terminal():
			close(ended)
		}
	})
	if err != nil {
		return 0, err
	}
	defer subscription.Unsubscribe() //nolint:errcheck // it ends with the connection at the latest
	began := time.Now()
	if _, err := r.Client.Submit(ctx, task); err != nil {
		return 0, err
	}
	select {
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-ended:
	}
	if claimed.IsZero() {
		return 0, fmt.Errorf("job %s ended without being claimed", task.ID)
	}
	return claimed.Sub(began), nil
}

// hop is a stream with a waiting pull.
type hop struct {
	js       jetstream.JetStream
	consumer jetstream.Consumer
	payload  []byte
}

const hopStream, hopSubject = "BENCH_HOP", "bench.hop"

func newHop(ctx context.Context, r *rig.Rig) (*hop, error) {
	js := r.Client.JetStream()
	stream, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: hopStream, Subjects: []string{hopSubject}, Retention: jetstream.WorkQueuePolicy})
	if err != nil {
		return nil, err
	}
	consumer, err := stream.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{Durable: "hop", AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		return nil, err
	}
	payload, err := rig.Task().Encode()
	return &hop{js: js, consumer: consumer, payload: payload}, err
}

func (h *hop) once(ctx context.Context) (time.Duration, error) {
	delivered := make(chan time.Time, 1)
	failed := make(chan error, 1)
	go func() {
		batch, err := h.consumer.Fetch(1, jetstream.FetchMaxWait(10*time.Second))
		if err != nil {
			failed <- err
			return
		}
		msg, ok := <-batch.Messages()
		if !ok {
			failed <- fmt.Errorf("hop was not delivered: %w", batch.Error())
			return
		}
		delivered <- time.Now()
		_ = msg.Ack()
	}()
	if err := h.awaitPull(ctx); err != nil {
		return 0, err
	}
	began := time.Now()
	if _, err := h.js.Publish(ctx, hopSubject, h.payload); err != nil {
		return 0, err
	}
	select {
	case at := <-delivered:
		return at.Sub(began), nil
	case err := <-failed:
		return 0, err
	}
}

// awaitPull returns when the server has the pull.
func (h *hop) awaitPull(ctx context.Context) error {
	for {
		info, err := h.consumer.Info(ctx)
		if err != nil || info.NumWaiting > 0 {
			return err
		}
	}
}

func (h *hop) close(ctx context.Context) { _ = h.js.DeleteStream(ctx, hopStream) }
