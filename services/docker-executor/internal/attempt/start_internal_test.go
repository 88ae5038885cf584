package attempt

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/folder"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/notes"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// An engine that stays away has its container's start given up, after a while.
func TestAStartOnAnEngineThatStaysAwayIsGivenUp(t *testing.T) {
	t.Parallel()
	f := aboutToStart(t)
	synctest.Test(t, func(t *testing.T) {
		began := time.Now() // of the bubble's clock
		a := &Attempt{
			tools: &Tools{Engine: &engine.Watched{Engine: awayEngine{}}}, log: zerolog.Nop(), folder: f,
			lastAt: began.Add(startPatience), // so that nobody may have taken over
		}
		err := a.startOnce(t.Context())
		if !errors.Is(err, engine.ErrUnavailable) || time.Since(began) < startPatience {
			t.Errorf("ended with %v after %s", err, time.Since(began))
		}
	})
}

// aboutToStart is the folder of an attempt whose engine's run is noted.
func aboutToStart(t *testing.T) *folder.Folder {
	t.Helper()
	f, err := folder.Create(t.TempDir(), folder.About{Job: "job", Attempt: 1, EngineRun: engine.Run{ID: "noted"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Remove(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// faultyEngine fails at what it is asked for first.
type faultyEngine struct {
	engine.Engine
	runs, starts []error
	started      int
}

func next(errs *[]error) error {
	if len(*errs) == 0 {
		return nil
	}
	err := (*errs)[0]
	*errs = (*errs)[1:]
	return err
}

func (e *faultyEngine) Run(context.Context) (engine.Run, error) {
	if err := next(&e.runs); err != nil {
		return engine.Run{}, err
	}
	return engine.Run{ID: "present"}, nil
}

func (e *faultyEngine) Start(context.Context, string) error {
	e.started++
	return next(&e.starts)
}

var (
	lockedUpError = &engine.Error{Op: "ask", Subject: "it", Kind: engine.ErrLockedUp}
	awayError     = &engine.Error{Op: "ask", Subject: "it", Kind: engine.ErrUnavailable}
)

// The engine is asked for its run before an adopted container is started again:
// one that does not say so at once ends no attempt that has begun, and one that
// has not begun is given back.
func TestTheRunOfAnAdoptedContainersEngineIsWaitedFor(t *testing.T) {
	t.Parallel()
	for name, begun := range map[string]bool{"begun": true, "not begun": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := aboutToStart(t)
			synctest.Test(t, func(t *testing.T) {
				eng := &faultyEngine{runs: []error{lockedUpError, awayError}}
				a := &Attempt{
					tools: &Tools{Engine: &engine.Watched{Engine: eng}}, log: zerolog.Nop(), notes: notes.New(nil, "job", 1), folder: f,
					created: true, begun: begun, lastAt: time.Now(),
				}
				err := a.startOnce(t.Context())
				if begun && (err != nil || eng.started != 1 || f.EngineRun.ID != "present") {
					t.Errorf("started %d times on run %q, %v", eng.started, f.EngineRun.ID, err)
				}
				if !begun && (!errors.Is(err, engine.ErrLockedUp) || eng.started != 0 || f.EngineRun.ID != "noted" || a.begun) {
					t.Errorf("started %d times on run %q, %v", eng.started, f.EngineRun.ID, err)
				}
			})
		})
	}
}

// While an engine has locked up, somebody else may have taken over: then nothing
// is started any more.
func TestAnAttemptThatIsTakenOverDuringALockUpStartsNothing(t *testing.T) {
	t.Parallel()
	b, err := bus.Open(t.Context(), natstest.Start(t).Config(), "test", "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	var own, last *bus.Seen
	task := &contracts.Task{Version: contracts.Version, ID: "job", Name: contracts.TaskDockerRun, Docker: &contracts.DockerRun{Image: "tool:1"}}
	for _, data := range []contracts.EntryData{
		&contracts.Submitted{Task: task}, &contracts.Queued{}, &contracts.Claimed{Node: "n", Executor: "ex"}, &contracts.Claimed{Node: "n", Executor: "other"},
	} {
		own = last
		if last, err = b.Append(t.Context(), "job", last, data); err != nil {
			t.Fatal(err)
		}
	}
	eng := &faultyEngine{starts: []error{lockedUpError}}
	a := &Attempt{
		tools: &Tools{Bus: b, Engine: &engine.Watched{Engine: eng}}, log: zerolog.Nop(), notes: notes.New(b, "job", 1), folder: aboutToStart(t),
		last: own, // long ago
	}
	if err := a.startOnce(t.Context()); !errors.Is(err, ErrSuperseded) || eng.started != 1 {
		t.Errorf("started %d times, ended with %v", eng.started, err)
	}
}
