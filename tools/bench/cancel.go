package main

import (
	"context"
	"fmt"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/tools/bench/internal/measure"
	"github.com/gantry-worker/gantry/tools/bench/internal/rig"
)

// cancelRunning measures how soon the process of a running task gets SIGTERM.
func cancelRunning(ctx context.Context, r *rig.Rig, with settings) (measure.Result, error) {
	result := measure.Result{
		What:      "revoke published → SIGTERM at the container (the engine's kill event)",
		LimitWhat: "the engine's own kill call → the same event", Goal: "p95 ≤ 25 ms more", Difference: true,
	}
	for i := range 1 + with.runsOr(20) {
		gantry, err := revokeLatency(ctx, r)
		if err != nil {
			return result, err
		}
		limit, err := killLatency(ctx, r)
		if err != nil {
			return result, err
		}
		if i > 0 { // the first one warms up
			result.Gantry, result.Limit = append(result.Gantry, gantry), append(result.Limit, limit)
		}
	}
	return result, nil
}

func revokeLatency(ctx context.Context, r *rig.Rig) (time.Duration, error) {
	job, err := r.Client.Submit(ctx, rig.Task("sleep", "60"))
	if err != nil {
		return 0, err
	}
	id, err := awaitContainer(ctx, r, job)
	if err != nil {
		return 0, err
	}
	latency, err := untilKilled(ctx, r, id, func() error {
		return r.Client.Revoke(ctx, contracts.Revoke{Job: job, By: "bench"})
	})
	if err != nil {
		return 0, err
	}
	_, err = r.Client.Wait(ctx, job)
	return latency, err
}

func awaitContainer(ctx context.Context, r *rig.Rig, job contracts.JobID) (string, error) {
	for event, err := range r.Client.Follow(ctx, job) {
		if err != nil {
			return "", err
		}
		if event.Entry == nil {
			continue
		}
		if started, ok := event.Entry.Data.(*contracts.Started); ok {
			return started.Container, nil
		}
	}
	return "", fmt.Errorf("job %s ended without a container", job)
}

func killLatency(ctx context.Context, r *rig.Rig) (time.Duration, error) {
	id, err := r.StartBare(ctx, "sleep", "60")
	if err != nil {
		return 0, err
	}
	latency, err := untilKilled(ctx, r, id, func() error { return r.Docker.ContainerKill(ctx, id, "SIGTERM") })
	if err != nil {
		return 0, err
	}
	return latency, r.Docker.ContainerRemove(ctx, id, container.RemoveOptions{Force: true})
}

func untilKilled(ctx context.Context, r *rig.Rig, id string, kill func() error) (time.Duration, error) {
	ctx, stop := context.WithTimeout(ctx, 30*time.Second)
	defer stop()
	messages, failed := r.Docker.Events(ctx, events.ListOptions{
		Since:   fmt.Sprint(time.Now().Unix()),
		Filters: filters.NewArgs(filters.Arg("container", id), filters.Arg("event", "kill")),
	})
	began := time.Now()
	if err := kill(); err != nil {
		return 0, err
	}
	select {
	case <-messages:
		return time.Since(began), nil
	case err := <-failed:
		return 0, err
	}
}
