package engine_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gantry-worker/gantry/contracts/client/leaktest"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestEnsureByPolicy(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		policy          engine.PullPolicy
		present, remote bool
		pulls           int
		want            error
		says            string
	}{
		{engine.PullAlways, true, true, 1, nil, ""},
		{engine.PullAlways, false, true, 1, nil, ""},
		{engine.PullAlways, true, false, 1, engine.ErrImageNotFound, "pull image tool:1"},
		{engine.PullMissing, true, false, 0, nil, ""},
		{engine.PullMissing, false, true, 1, nil, ""},
		{engine.PullMissing, false, false, 1, engine.ErrImageNotFound, "pull image tool:1"},
		{engine.PullNever, true, true, 0, nil, ""},
		{engine.PullNever, false, true, 0, engine.ErrImageNotFound, `pull policy is "never"`},
	} {
		e := fake.New()
		if test.present {
			e.AddImage("tool:1", nil)
		}
		if test.remote {
			e.AddRemote("tool:1", nil)
		}
		_, err := engine.NewImages(e, engine.PullLimits{}).Ensure(t.Context(), "tool:1", test.policy, nil)
		if !errors.Is(err, test.want) || (err != nil && !strings.Contains(err.Error(), test.says)) {
			t.Errorf("%+v: %v", test, err)
		}
		if got := len(e.Pulls()); got != test.pulls {
			t.Errorf("%+v: %d pulls", test, got)
		}
	}
	if _, err := engine.NewImages(fake.New(), engine.PullLimits{}).Ensure(t.Context(), "tool:1", "sometimes", nil); err == nil {
		t.Error("took an unknown policy")
	}
}

func TestEnsurePullsOnceForAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := fake.New()
		e.AddRemote("tool:1", nil)
		e.AddRemote("other:1", nil)
		images := engine.NewImages(e, engine.PullLimits{})
		_, release := e.Hang(fake.CallPull)
		var callers sync.WaitGroup
		var mu sync.Mutex
		done := map[int]int64{}
		for i := range 5 {
			callers.Go(func() {
				_, err := images.Ensure(t.Context(), "tool:1", engine.PullAlways, func(p engine.PullProgress) {
					mu.Lock()
					defer mu.Unlock()
					done[i] = p.Done
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait() // all five wait for the pull that hangs
		if _, err := images.Ensure(t.Context(), "other:1", engine.PullAlways, nil); err != nil {
			t.Errorf("another image meanwhile: %v", err)
		}
		release()
		callers.Wait()
		if pulls := e.Pulls(); len(pulls) != 2 {
			t.Errorf("pulls %q, want one of each", pulls)
		}
		for i := range 5 {
			if done[i] != 2000 {
				t.Errorf("caller %d saw progress up to %d", i, done[i])
			}
		}
	})
}

func TestEnsureCanceled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := fake.New()
		e.AddRemote("tool:1", nil)
		images := engine.NewImages(e, engine.PullLimits{})
		_, release := e.Hang(fake.CallPull)
		why := errors.New("revoked")
		ctx, cancel := context.WithCancelCause(t.Context())
		first, second := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := images.Ensure(ctx, "tool:1", engine.PullAlways, nil)
			first <- err
		}()
		synctest.Wait()
		go func() {
			_, err := images.Ensure(t.Context(), "tool:1", engine.PullAlways, nil)
			second <- err
		}()
		synctest.Wait()
		cancel(why) // the one who asked first leaves; the pull goes on for the other
		if err := <-first; !errors.Is(err, why) {
			t.Errorf("canceled: %v", err)
		}
		release()
		if err := <-second; err != nil {
			t.Errorf("the other: %v", err)
		}

		_, _ = e.Hang(fake.CallPull) // never released: only a canceled context ends it
		ctx, cancel = context.WithCancelCause(t.Context())
		go func() {
			_, err := images.Ensure(ctx, "tool:1", engine.PullAlways, nil)
			first <- err
		}()
		synctest.Wait()
		cancel(why)
		if err := <-first; !errors.Is(err, why) {
			t.Errorf("canceled alone: %v", err)
		}
	})
}

func TestEnsureGivesUpASilentPull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := fake.New()
		e.AddRemote("tool:1", nil)
		_, _ = e.Hang(fake.CallPull)
		_, err := engine.NewImages(e, engine.PullLimits{Idle: time.Minute}).Ensure(t.Context(), "tool:1", engine.PullAlways, nil)
		if !errors.Is(err, engine.ErrRegistryUnavailable) || !engine.IsInfrastructure(err) || !strings.Contains(err.Error(), "no progress for 1m0s") {
			t.Errorf("silent pull: %v", err)
		}
	})
}

func TestEnsureTriesAgain(t *testing.T) {
	t.Parallel()
	for kind, test := range map[error]struct {
		failures, pulls int
		says            string // by the error that is returned; empty: none is
	}{
		engine.ErrRegistryUnavailable: {4, 5, ""},
		engine.ErrPullDenied:          {1, 1, "pull denied"},
		engine.ErrImageNotFound:       {1, 1, "image not found"},
		engine.ErrNoSpace:             {1, 1, "no space left"},
		engine.ErrRefused:             {1, 1, "refused"},
		engine.ErrUnavailable:         {1, 1, "engine unavailable"},
	} {
		synctest.Test(t, func(t *testing.T) {
			e := fake.New()
			e.AddRemote("tool:1", nil)
			e.Fail(fake.CallPull, &engine.Error{Op: "pull", Subject: "image tool:1", Kind: kind}, test.failures)
			_, err := engine.NewImages(e, engine.PullLimits{}).Ensure(t.Context(), "tool:1", engine.PullAlways, nil)
			if test.says == "" && err != nil || test.says != "" && (!errors.Is(err, kind) || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("%v: %v", kind, err)
			}
			if got := len(e.Pulls()); got != test.pulls {
				t.Errorf("%v: %d pulls, want %d", kind, got, test.pulls)
			}
		})
	}
}

func TestEnsureGivesUp(t *testing.T) {
	t.Parallel()
	down := &engine.Error{Op: "pull", Subject: "image tool:1", Kind: engine.ErrRegistryUnavailable, Detail: "connection refused"}
	synctest.Test(t, func(t *testing.T) {
		e := fake.New()
		e.Fail(fake.CallPull, down, 10)
		_, err := engine.NewImages(e, engine.PullLimits{}).Ensure(t.Context(), "tool:1", engine.PullAlways, nil)
		if !errors.Is(err, engine.ErrRegistryUnavailable) || !strings.Contains(err.Error(), "connection refused (tried 5 times)") || len(e.Pulls()) != 5 {
			t.Errorf("%v after %d pulls", err, len(e.Pulls()))
		}
	})
	synctest.Test(t, func(t *testing.T) { // within the limits only, and with the better reason
		e := fake.New()
		e.Fail(fake.CallPull, down, 10)
		const idle = 100 * time.Millisecond // shorter than any pause before the next try
		_, err := engine.NewImages(e, engine.PullLimits{Idle: idle}).Ensure(t.Context(), "tool:1", engine.PullAlways, nil)
		if !errors.Is(err, engine.ErrRegistryUnavailable) || !strings.Contains(err.Error(), "connection refused;") || len(e.Pulls()) != 1 {
			t.Errorf("%v after %d pulls", err, len(e.Pulls()))
		}
	})
	synctest.Test(t, func(t *testing.T) { // who left does not wait for the next try
		e := fake.New()
		e.Fail(fake.CallPull, down, 10)
		why := errors.New("revoked")
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error, 1)
		go func() {
			_, err := engine.NewImages(e, engine.PullLimits{}).Ensure(ctx, "tool:1", engine.PullAlways, nil)
			ended <- err
		}()
		synctest.Wait()
		cancel(why)
		if err := <-ended; !errors.Is(err, why) || len(e.Pulls()) != 1 {
			t.Errorf("%v after %d pulls", err, len(e.Pulls()))
		}
	})
}

// drip is a store whose pulls make progress for ever.
type drip struct{ *fake.Engine }

func (drip) Pull(ctx context.Context, _ string, progress func(engine.PullProgress)) error {
	for done := int64(1); ctx.Err() == nil; done++ {
		progress(engine.PullProgress{Done: done, Total: 1 << 40})
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return context.Cause(ctx)
}

func TestEnsureGivesUpALongPull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		images := engine.NewImages(drip{fake.New()}, engine.PullLimits{Idle: 2 * time.Second, Total: time.Hour})
		_, err := images.Ensure(t.Context(), "tool:1", engine.PullAlways, nil)
		if !errors.Is(err, engine.ErrRegistryUnavailable) || !strings.Contains(err.Error(), "not there after 1h0m0s, the limit of the executor's pull_timeout") {
			t.Errorf("long pull: %v", err)
		}
		if took := time.Since(began); took != time.Hour {
			t.Errorf("given up after %s", took)
		}
	})
}
