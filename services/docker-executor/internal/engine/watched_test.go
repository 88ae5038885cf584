package engine_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
)

// suspected is when an engine that has locked up is asked for its run, known when
// its silence is taken for what it is, each with a while for the last look.
const (
	suspected = 32 * time.Second
	known     = 62 * time.Second
)

// watch runs test with an engine that is watched, in a bubble of its own.
func watch(t *testing.T, test func(t *testing.T, w *engine.Watched, eng *fake.Engine)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		eng := fake.New()
		defer eng.Close()
		w := &engine.Watched{Engine: eng}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if err := w.Watch(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("watching ended with %v", err)
			}
		}()
		test(t, w, eng)
		stop()
		<-ended
	})
}

// create has the engine make a container, and returns where its answer will be.
func create(t *testing.T, w *engine.Watched) <-chan error {
	answer := make(chan error, 1)
	go func() {
		_, err := w.Create(t.Context(), engine.Spec{Name: "a", Image: fake.ScriptImage})
		answer <- err
	}()
	return answer
}

func TestAnEngineThatLocksUpIsSilentUntilItAnswers(t *testing.T) {
	watch(t, func(t *testing.T, w *engine.Watched, eng *fake.Engine) {
		work, release := w.WhileAnswering(t.Context())
		defer release()
		unlock := eng.LockUp()
		answer := create(t, w)
		time.Sleep(suspected)
		if len(answer) > 0 || w.Silence() != nil || w.Ping(t.Context()) != nil || work.Err() != nil {
			t.Error("a suspicion is taken for a fact")
		}
		time.Sleep(known - suspected)
		silence := <-answer
		if !errors.Is(silence, engine.ErrLockedUp) || !errors.Is(silence, engine.ErrUnavailable) {
			t.Fatalf("create ended with %v", silence)
		}
		if want := "create container a: container engine unavailable: it gives no answer, has locked up or its host is overloaded: asked at 2000-01-01 00:00:00 UTC; " +
			"if that stays so, restart Docker"; !strings.HasPrefix(silence.Error(), want) {
			t.Errorf("it says %q", silence)
		}
		later, releaseLater := w.WhileAnswering(t.Context())
		defer releaseLater()
		for what, err := range map[string]error{
			"Silence": w.Silence(), "Ping": w.Ping(t.Context()), "Start": w.Start(t.Context(), "a"), "Remove": w.Remove(t.Context(), "a"),
			"work under way": context.Cause(work), "later work": context.Cause(later),
		} {
			if err != silence {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, err := w.List(t.Context(), nil); err != nil {
			t.Errorf("a list, which it answers: %v", err)
		}
		answers := make(chan error, 1)
		go func() { answers <- w.Answers(t.Context()) }()
		time.Sleep(time.Hour)
		if len(answers) > 0 {
			t.Error("it is said to answer")
		}
		unlock()
		if err := <-answers; err != nil {
			t.Error(err)
		}
		if _, err := w.Create(t.Context(), engine.Spec{Image: fake.ScriptImage}); err != nil || w.Silence() != nil || w.Ping(t.Context()) != nil {
			t.Errorf("it answers again: %v, %v", err, w.Silence())
		}
	})
}

func TestWhoWaitsForASilentEngineNeedNot(t *testing.T) {
	watch(t, func(t *testing.T, w *engine.Watched, eng *fake.Engine) {
		defer eng.LockUp()()
		<-create(t, w)
		ctx, cancel := context.WithCancelCause(t.Context())
		answers := make(chan error, 1)
		go func() { answers <- w.Answers(ctx) }()
		why := errors.New("revoked")
		cancel(why)
		if err := <-answers; !errors.Is(err, why) {
			t.Errorf("ended with %v", err)
		}
	})
}

// A call that takes its time is no sign of a lock-up where the engine answers.
func TestASlowEngineIsNotSilent(t *testing.T) {
	watch(t, func(t *testing.T, w *engine.Watched, eng *fake.Engine) {
		reached, release := eng.Hang(fake.CallCreate)
		answer := create(t, w)
		<-reached
		work, stop := w.WhileAnswering(t.Context())
		defer stop()
		time.Sleep(time.Hour)
		if err := errors.Join(w.Silence(), work.Err()); err != nil {
			t.Error(err)
		}
		release()
		if err := <-answer; err != nil {
			t.Error(err)
		}
	})
}

// An engine that is not reached is away: who starts it need not restart it.
func TestAnEngineThatIsAwayIsNotSilent(t *testing.T) {
	watch(t, func(t *testing.T, w *engine.Watched, eng *fake.Engine) {
		_, release := eng.Hang(fake.CallCreate)
		eng.Fail(fake.CallRun, &engine.Error{Op: "ask", Subject: "it", Kind: engine.ErrUnavailable}, 10)
		answer := create(t, w)
		time.Sleep(time.Hour)
		if err := w.Silence(); err != nil {
			t.Error(err)
		}
		release()
		<-answer
	})
}

// While it is restarted, a silent engine is away for a moment, which is no answer.
func TestASilentEngineThatIsRestartedIsSilentUntilItIsBack(t *testing.T) {
	watch(t, func(t *testing.T, w *engine.Watched, eng *fake.Engine) {
		unlock := eng.LockUp()
		<-create(t, w)
		eng.Fail(fake.CallRun, &engine.Error{Op: "ask", Subject: "it", Kind: engine.ErrUnavailable}, 10)
		unlock()
		time.Sleep(5 * time.Second)
		if w.Silence() == nil {
			t.Error("it is said to answer")
		}
		if err := w.Answers(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A call that ends with its caller's context says what that one says.
func TestACallThatIsGivenUpSaysWhy(t *testing.T) {
	watch(t, func(t *testing.T, w *engine.Watched, eng *fake.Engine) {
		defer eng.LockUp()()
		why := errors.New("revoked")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(why) })
		if err := w.Start(ctx, "a"); !errors.Is(err, why) {
			t.Errorf("ended with %v", err)
		}
		time.Sleep(time.Hour)
		if err := w.Silence(); err != nil {
			t.Errorf("nobody waits for an answer, and yet: %v", err)
		}
	})
}
