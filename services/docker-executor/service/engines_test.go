package service_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
)

// recorder notes what containers are made of.
type recorder struct {
	*fake.Engine
	mu    sync.Mutex
	specs []engine.Spec
}

func (r *recorder) Create(ctx context.Context, spec engine.Spec) (string, error) {
	r.mu.Lock()
	r.specs = append(r.specs, spec)
	r.mu.Unlock()
	return r.Engine.Create(ctx, spec)
}

// made returns what containers were made of, so far.
func (r *recorder) made() []engine.Spec {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.specs)
}

// only returns what the only container was made of.
func (r *recorder) only(t *testing.T) engine.Spec {
	t.Helper()
	made := r.made()
	if len(made) != 1 {
		t.Fatalf("%d containers were created", len(made))
	}
	return made[0]
}

// signalRecorder notes the signals that containers get.
type signalRecorder struct {
	*fake.Engine
	mu      sync.Mutex
	signals []string
}

func (r *signalRecorder) Signal(ctx context.Context, id, signal string) error {
	r.mu.Lock()
	r.signals = append(r.signals, signal)
	r.mu.Unlock()
	return r.Engine.Signal(ctx, id, signal)
}

func (r *signalRecorder) sent() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.signals)
}

// settled has containers come to their first line of output before their start
// is known: whatever the executor counts from the start finds them there.
type settled struct{ signalRecorder }

func (e *settled) Start(ctx context.Context, id string) error {
	if err := e.signalRecorder.Start(ctx, id); err != nil {
		return err
	}
	_, err := e.Engine.Logs(ctx, id, engine.Both, engine.Position{}, func(engine.Frame) error { return errSettled })
	if errors.Is(err, errSettled) {
		return nil
	}
	return errors.Join(errors.New("the container has no output"), err)
}

var errSettled = errors.New("the container has come to its first line")

// removeRecorder tells of containers that were removed.
type removeRecorder struct {
	*fake.Engine
	removed chan string
}

func (r *removeRecorder) Remove(ctx context.Context, id string) error {
	err := r.Engine.Remove(ctx, id)
	select {
	case r.removed <- id:
	default:
	}
	return err
}

// forgetful creates the first container twice, as if the answer to the first
// request had got lost.
type forgetful struct {
	recorder
	once sync.Once
}

func (f *forgetful) Create(ctx context.Context, spec engine.Spec) (id string, err error) {
	f.once.Do(func() { _, err = f.recorder.Create(ctx, spec) })
	if err != nil {
		return "", err
	}
	return f.recorder.Create(ctx, spec)
}

// shaky loses its connection while it waits for a container, which ends well.
type shaky struct{ *fake.Engine }

func (s *shaky) Wait(ctx context.Context, id string, began engine.Run) (engine.Exit, error) {
	exit, err := s.Engine.Wait(ctx, id, began)
	exit.EngineLost = true
	return exit, err
}

// brief has containers end before their start is known: no time limit counts
// for them.
type brief struct{ *fake.Engine }

func (e *brief) Start(ctx context.Context, id string) error {
	if err := e.Engine.Start(ctx, id); err != nil {
		return err
	}
	_, err := e.Engine.Wait(ctx, id, engine.Run{})
	return err
}
