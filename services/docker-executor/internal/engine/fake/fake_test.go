package fake_test

import (
	"context"
	"errors"
	"testing"

	"github.com/gantry-worker/gantry/contracts/client/leaktest"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/enginetest"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func newEngine(t *testing.T) *fake.Engine {
	e := fake.New()
	t.Cleanup(e.Close)
	return e
}

func TestConformance(t *testing.T) {
	enginetest.Run(t, func(t *testing.T) enginetest.Subject {
		return enginetest.Subject{Engine: newEngine(t), Image: fake.ScriptImage, Absent: "absent:1"}
	})
}

func TestFail(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	down := &engine.Error{Op: "ping", Subject: "fake", Kind: engine.ErrUnavailable}
	e.Fail(fake.CallPing, down, 2)
	for range 2 {
		if err := e.Ping(t.Context()); !errors.Is(err, engine.ErrUnavailable) {
			t.Errorf("ping: %v", err)
		}
	}
	if err := e.Ping(t.Context()); err != nil {
		t.Errorf("third ping: %v", err)
	}
}

func TestHang(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	id, err := e.Create(t.Context(), engine.Spec{Image: fake.ScriptImage, Args: []string{"exit:4"}})
	if err != nil {
		t.Fatal(err)
	}
	reached, release := e.Hang(fake.CallStart)
	started := make(chan error, 1)
	go func() { started <- e.Start(t.Context(), id) }()
	<-reached
	select {
	case err := <-started:
		t.Fatalf("start returned (%v) while told to hang", err)
	default:
	}
	release()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	if exit, err := e.Wait(t.Context(), id, engine.Run{}); err != nil || exit.Code != 4 {
		t.Errorf("exit %+v, %v", exit, err)
	}

	why := errors.New("revoked")
	ctx, cancel := context.WithCancelCause(t.Context())
	reached, _ = e.Hang(fake.CallRemove)
	removed := make(chan error, 1)
	go func() { removed <- e.Remove(ctx, id) }()
	<-reached
	cancel(why)
	if err := <-removed; !errors.Is(err, why) {
		t.Errorf("canceled remove: %v", err)
	}
}

func TestRestarts(t *testing.T) {
	e := newEngine(t)
	enginetest.RunRestarts(t, enginetest.Restartable{
		Subject: enginetest.Subject{Engine: e, Image: fake.ScriptImage}, Restart: e.Restart,
	})
}

func TestKeeping(t *testing.T) {
	e := newEngine(t)
	e.Keep()
	enginetest.RunKeeping(t, enginetest.Restartable{
		Subject: enginetest.Subject{Engine: e, Image: fake.ScriptImage}, Restart: e.Restart,
	})
}
