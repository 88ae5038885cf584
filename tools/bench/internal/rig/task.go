package rig

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gantry-worker/gantry/contracts"
)

// Task is a task that runs the image with arguments, without a network.
func Task(args ...string) *contracts.Task {
	task := &contracts.Task{
		Name: contracts.TaskDockerRun,
		Docker: &contracts.DockerRun{
			Image: Image, Pull: contracts.PullNever,
			Options: contracts.DockerOptions{NetworkMode: "none"},
		},
	}
	for _, arg := range args {
		task.Docker.Args = append(task.Docker.Args, contracts.Arg{Text: arg})
	}
	return task
}

// Run submits a task and waits for its end, which has to be a success.
func (r *Rig) Run(ctx context.Context, task *contracts.Task) error {
	_, err := r.Life(ctx, task)
	return err
}

// Life is Run and returns the entries of the job's life, in their order.
func (r *Rig) Life(ctx context.Context, task *contracts.Task) ([]*contracts.Entry, error) {
	task.ID = contracts.NewJobID()
	var life []*contracts.Entry
	ended := make(chan struct{})
	// A plain subscription: a consumer for each waiting task would load the
	// server that is measured.
	subscription, err := r.Client.Conn().Subscribe(contracts.LifeSubject(task.ID), func(msg *nats.Msg) {
		entry, err := contracts.DecodeEntry(msg.Data)
		if err != nil {
			return
		}
		life = append(life, entry)
		if entry.Terminal() {
			close(ended)
		}
	})
	if err != nil {
		return nil, err
	}
	defer subscription.Unsubscribe() //nolint:errcheck // it ends with the connection at the latest
	if _, err := r.Client.Submit(ctx, task); err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-ended:
	}
	if end := life[len(life)-1]; end.Type != contracts.EntrySucceeded {
		return nil, fmt.Errorf("job %s %s: %+v", task.ID, end.Type, end.Data)
	}
	return life, nil
}

// cleanTime is how long an executor may take to remove what a task left.
const cleanTime = time.Minute

// Settle returns when nothing of ended tasks is left on the disk.
func (r *Rig) Settle(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, cleanTime)
	defer stop()
	attempts := filepath.Join(r.folder, "work", "attempts")
	for {
		left, err := os.ReadDir(attempts)
		if err != nil || len(left) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is still there: %w", left[0].Name(), context.Cause(ctx))
		case <-time.After(10 * time.Millisecond):
		}
	}
}
