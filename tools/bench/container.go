package main

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gantry-worker/gantry/tools/bench/internal/measure"
	"github.com/gantry-worker/gantry/tools/bench/internal/rig"
)

// oneContainer measures one short task at a time.
func oneContainer(ctx context.Context, r *rig.Rig, with settings) (measure.Result, error) {
	result := measure.Result{
		What:      "submit → terminal entry of a task whose container exits at once, one at a time",
		LimitWhat: "engine API: create, start, wait, remove of the same container", Goal: "≤ 1.08 ×",
	}
	for i := range 1 + with.runsOr(20) {
		gantry, err := timed(func() error { return r.Run(ctx, rig.Task("true")) })
		if err != nil {
			return result, err
		}
		bare, err := timed(func() error { return r.Bare(ctx, "true") })
		if err != nil {
			return result, err
		}
		if i > 0 { // the first one warms up
			result.Gantry, result.Limit = append(result.Gantry, gantry), append(result.Limit, bare)
		}
	}
	return result, nil
}

// manyContainers measures many short tasks in all slots.
func manyContainers(ctx context.Context, r *rig.Rig, with settings) (measure.Result, error) {
	const tasks = 60
	result := measure.Result{
		What:      "60 such tasks submitted at once, 2 slots, until the last has ended",
		LimitWhat: "60 such cycles of the engine API, 2 at a time", Goal: "≤ 1.05 ×",
	}
	for range with.runsOr(3) {
		gantry, err := timed(func() error {
			var group errgroup.Group
			for range tasks {
				group.Go(func() error { return r.Run(ctx, rig.Task("true")) })
			}
			return group.Wait()
		})
		if err != nil {
			return result, err
		}
		bare, err := timed(func() error {
			var group errgroup.Group
			group.SetLimit(rig.Slots)
			for range tasks {
				group.Go(func() error { return r.Bare(ctx, "true") })
			}
			return group.Wait()
		})
		if err != nil {
			return result, err
		}
		result.Gantry, result.Limit = append(result.Gantry, gantry), append(result.Limit, bare)
	}
	return result, nil
}

func timed(do func() error) (time.Duration, error) {
	began := time.Now()
	err := do()
	return time.Since(began), err
}
