package executortest

import (
	"context"
	"fmt"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
	"github.com/gantry-worker/gantry/services/docker-executor/removetree"
)

// gated is one executor's view of the engine.
type gated struct {
	fake *fake.Engine
	gate Gate
}

var _ engine.Engine = (*gated)(nil)

// pass makes a call between its two gates.
func (g *gated) pass(ctx context.Context, call string, do func() error) error {
	if err := g.gate(ctx, call, false); err != nil {
		return &engine.Error{Op: "reach", Subject: "the engine", Kind: engine.ErrUnavailable, Detail: err.Error()}
	}
	err := do()
	if gateErr := g.gate(ctx, call, true); gateErr != nil {
		return gateErr
	}
	return err
}

func (g *gated) Image(ctx context.Context, ref string) (image engine.Image, err error) {
	err = g.pass(ctx, "image", func() error {
		image, err = g.fake.Image(ctx, ref)
		return err
	})
	return image, err
}

func (g *gated) Pull(ctx context.Context, ref string, progress func(engine.PullProgress)) error {
	return g.pass(ctx, "pull", func() error { return g.fake.Pull(ctx, ref, progress) })
}

func (g *gated) Create(ctx context.Context, spec engine.Spec) (id string, err error) {
	err = g.pass(ctx, "create "+spec.Name, func() error {
		id, err = g.fake.Create(ctx, spec)
		return err
	})
	return id, err
}

func (g *gated) Start(ctx context.Context, id string) error {
	return g.pass(ctx, named("start", id), func() error { return g.fake.Start(ctx, id) })
}

func (g *gated) Signal(ctx context.Context, id, signal string) error {
	return g.pass(ctx, named(signal, id), func() error { return g.fake.Signal(ctx, id, signal) })
}

func (g *gated) Remove(ctx context.Context, id string) error {
	return g.pass(ctx, named("remove", id), func() error { return g.fake.Remove(ctx, id) })
}

func (g *gated) List(ctx context.Context, labels map[string]string) (list []engine.Container, err error) {
	err = g.pass(ctx, "list", func() error {
		list, err = g.fake.List(ctx, labels)
		return err
	})
	return list, err
}

// Logs and Wait last as long as the container: what they bring passes the gate,
// not what they are asked.

func (g *gated) Logs(ctx context.Context, id string, streams engine.Streams, since engine.Position, emit func(engine.Frame) error) (engine.Position, error) {
	at, err := g.fake.Logs(ctx, id, streams, since, func(frame engine.Frame) error {
		if err := g.gate(ctx, named("log of", id), true); err != nil {
			return err
		}
		return emit(frame)
	})
	if gateErr := g.gate(ctx, named("log of", id), true); gateErr != nil {
		return at, gateErr
	}
	return at, err
}

func (g *gated) Wait(ctx context.Context, id string, began engine.Run) (engine.Exit, error) {
	exit, err := g.fake.Wait(ctx, id, began)
	if gateErr := g.gate(ctx, named("exit of", id), true); gateErr != nil {
		return exit, gateErr
	}
	return exit, err
}

// Calls that say nothing about a container are always answered by an engine
// that is there.

func (g *gated) Ping(ctx context.Context) error {
	if err := g.gate(ctx, "ping", true); err != nil {
		return err
	}
	return g.fake.Ping(ctx)
}

func (g *gated) ID(ctx context.Context) (string, error) {
	if err := g.gate(ctx, "id", true); err != nil {
		return "", err
	}
	return g.fake.ID(ctx)
}

func (g *gated) Run(ctx context.Context) (engine.Run, error) {
	if err := g.gate(ctx, "run", true); err != nil {
		return engine.Run{}, err
	}
	return g.fake.Run(ctx)
}

func (g *gated) RemoveTree(ctx context.Context, hostPath string, id removetree.ID, labels map[string]string) error {
	return g.pass(ctx, "remove tree "+hostPath, func() error { return g.fake.RemoveTree(ctx, hostPath, id, labels) })
}

func (g *gated) Self(ctx context.Context) (*engine.Self, error) {
	if err := g.gate(ctx, "self", true); err != nil {
		return nil, err
	}
	return g.fake.Self(ctx)
}

func named(call, id string) string { return fmt.Sprintf("%s %.8s", call, id) }
