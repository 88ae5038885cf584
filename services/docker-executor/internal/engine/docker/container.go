package docker

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// Create makes a container.
func (e *Engine) Create(ctx context.Context, spec engine.Spec) (string, error) {
	call, cancel := e.bounded(ctx)
	defer cancel()
	if err := checkLabeled(spec.Mounts); err != nil {
		return "", e.wrapAs(ctx, "create", subjectOf(spec), err, func(error) error { return engine.ErrRefused })
	}
	made, err := e.api().ContainerCreate(call, configOf(spec), e.hostConfigOf(spec), e.networkingOf(&spec.Options), platformOf(spec.Options.Platform), spec.Name)
	if err != nil {
		return "", e.wrapAs(ctx, "create", subjectOf(spec), err, createKind)
	}
	e.fresh.add(made.ID)
	return made.ID, nil
}

func subjectOf(spec engine.Spec) string {
	return strings.TrimSpace("container " + spec.Name + " from image " + spec.Image)
}

// checkLabeled sees to it that mounts with labels read back as they are meant.
func checkLabeled(mounts []engine.Mount) error {
	for _, m := range mounts {
		if m.SELinux != "" && strings.Contains(m.HostPath+m.ContainerPath, ":") {
			return fmt.Errorf("mount %s at %s: a path that SELinux is to label cannot have a colon in it", m.HostPath, m.ContainerPath)
		}
	}
	return nil
}

// Start starts a created container. One that was started before is left alone,
// also if it has ended: the engine itself would run it again.
func (e *Engine) Start(ctx context.Context, id string) error {
	call, cancel := e.bounded(ctx)
	defer cancel()
	if !e.fresh.take(id) {
		// It answers behind a start that is under way; a list does not.
		found, err := e.inspectMade(call, id)
		if err != nil {
			return e.wrapAs(ctx, "start", subject(id), err, startKind)
		}
		if found.State != nil && stateOf(found.State.Status) != engine.Created {
			return nil
		}
	}
	err := e.api().ContainerStart(call, id, container.StartOptions{})
	return e.cannotStart(ctx, id, e.wrapAs(ctx, "start", subject(id), err, startKind))
}

// inspectMade inspects a container that somebody, who may have died since, had
// the engine make: while it does so, it is waited for.
func (e *Engine) inspectMade(ctx context.Context, id string) (container.InspectResponse, error) {
	look := func() (container.InspectResponse, error) {
		found, err := e.api().ContainerInspect(ctx, id)
		if err == nil || errdefs.IsNotFound(err) && e.beingMade(ctx, id) {
			return found, err
		}
		return found, backoff.Permanent(err)
	}
	return backoff.Retry(ctx, look, backoff.WithBackOff(eager()), backoff.WithMaxElapsedTime(e.cfg.CallTimeout/2))
}

// beingMade reports whether the engine is still making a container that it does
// not know by its id: it lists one some time before.
func (e *Engine) beingMade(ctx context.Context, id string) bool {
	listed, err := e.api().ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("id", id))})
	return err == nil && len(listed) > 0
}

// Signal sends a signal to the container's first process.
func (e *Engine) Signal(ctx context.Context, id, signal string) error {
	call, cancel := e.bounded(ctx)
	defer cancel()
	if signal == "SIGKILL" {
		e.killed.Store(id, struct{}{})
	}
	err := e.api().ContainerKill(call, id, signal)
	if err != nil && says(err, "is not running") {
		return nil
	}
	return e.wrap(ctx, "send "+signal+" to", subject(id), err)
}

// Remove kills and removes a container. An engine that cannot just now (a device
// busy for a moment, somebody else removing it) is asked again for half of the
// time limit of one call: then its reason is worth more than another try.
func (e *Engine) Remove(ctx context.Context, id string) error {
	call, cancel := e.bounded(ctx)
	defer cancel()
	e.killed.Delete(id)
	try := func() (struct{}, error) {
		err := e.api().ContainerRemove(call, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
		switch {
		case err == nil, errdefs.IsNotFound(err) && !e.beingMade(call, id):
			return struct{}{}, nil
		case errdefs.IsNotFound(err), errdefs.IsConflict(err), errdefs.IsInternal(err):
			return struct{}{}, err
		default:
			return struct{}{}, backoff.Permanent(err)
		}
	}
	_, err := backoff.Retry(call, try, backoff.WithBackOff(eager()), backoff.WithMaxElapsedTime(e.cfg.CallTimeout/2))
	return e.wrap(ctx, "remove", subject(id), err)
}

// List returns the containers with these labels.
func (e *Engine) List(ctx context.Context, labels map[string]string) ([]engine.Container, error) {
	call, cancel := e.bounded(ctx)
	defer cancel()
	args := filters.NewArgs()
	for name, value := range labels {
		args.Add("label", name+"="+value)
	}
	found, err := e.api().ContainerList(call, container.ListOptions{All: true, Filters: args})
	if err != nil {
		return nil, e.wrap(ctx, "list", "containers", err)
	}
	list := make([]engine.Container, 0, len(found))
	for _, c := range found {
		one := engine.Container{ID: c.ID, Image: c.Image, State: stateOf(string(c.State)), Labels: c.Labels}
		if len(c.Names) > 0 {
			one.Name = strings.TrimPrefix(c.Names[0], "/")
		}
		list = append(list, one)
	}
	return list, nil
}

func stateOf(state string) engine.State {
	switch state {
	case "created":
		return engine.Created
	case "exited":
		return engine.Exited
	case "removing", "dead":
		return engine.Removing
	default: // running, paused, restarting
		return engine.Running
	}
}

func subject(id string) string { return "container " + id[:min(len(id), 12)] }

// eager is a backoff for what is likely to work in a moment.
func eager() backoff.BackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = 50 * time.Millisecond
	b.MaxInterval = 2 * time.Second
	return b
}
