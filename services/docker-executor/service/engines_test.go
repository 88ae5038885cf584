package service_test

import (
	"context"
	"sync"

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
	return append([]string(nil), r.signals...)
}

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
