package service_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/service"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

func limited(soft, hard time.Duration, steps ...string) *contracts.Task {
	task := script(steps...)
	task.Limits = &contracts.Limits{SoftTime: contracts.Duration(soft), Time: contracts.Duration(hard)}
	return task
}

// timedOut checks the end of a task that was killed for its time limit.
func (s *stage) timedOut(job contracts.JobID, says string) {
	s.t.Helper()
	failed := s.fails(job)
	if failed.Kind != contracts.FailureTimeout || failed.Message != says || failed.ExitCode == nil || *failed.ExitCode != 137 {
		s.t.Errorf("failed as %+v", failed)
	}
}

func TestATimeLimitKills(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	eng := &settled{signalRecorder{Engine: s.engine}}
	tr := s.transfers(true, sent)
	stop := s.start(func(cfg *service.Config) { cfg.Engine = eng })
	task := limited(0, 50*time.Millisecond, "trap:TERM:0", "out:text\n", "hang")
	task.Outputs = []contracts.Output{
		upload("out", "item"), {OutputSpec: &contracts.GirderJobArtifact{
			Path: contracts.OutputPath{VolumePath: contracts.VolumePath{Path: "debug"}}, UploadOnException: true,
		}},
	}
	s.offer("job", task)
	s.timedOut("job", "time limit of 50ms reached, the container was killed")
	if !slices.Equal(eng.sent(), []string{"SIGKILL"}) {
		t.Errorf("signals were %v", eng.sent())
	}
	if steps := tr.asked(); len(steps) != 1 || steps[0].Step != "out-1" {
		t.Errorf("transfer was asked for %+v", steps)
	}
	if got := s.output("job", contracts.LogStdout); got != "text\n" {
		t.Errorf("the log is %q", got)
	}
	types, _ := s.life("job")
	sameTypes(t, types, "submitted", "queued", "claimed", "started", "failed")
	stop()
	s.clean()
}

// TestASoftTimeLimitAsks once, with a line in the log, and the container says how
// it ends.
func TestASoftTimeLimitAsks(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	eng := &settled{signalRecorder{Engine: s.engine}}
	stop := s.start(func(cfg *service.Config) { cfg.Engine = eng })
	s.offer("well", limited(50*time.Millisecond, time.Hour, "trap:TERM:0", "out:text\n", "hang"))
	s.succeeds("well")
	if got := s.output("well", contracts.LogStderr); got != "Soft time limit of 50ms reached: the container is asked to end (SIGTERM).\n" {
		t.Errorf("the log is %q", got)
	}
	s.offer("badly", limited(50*time.Millisecond, time.Hour, "out:text\n", "hang"))
	if failed := s.fails("badly"); failed.Kind != contracts.FailureTask || !strings.Contains(failed.Message, "soft time limit of 50ms") {
		t.Errorf("failed as %+v", failed)
	}
	if !slices.Equal(eng.sent(), []string{"SIGTERM", "SIGTERM"}) {
		t.Errorf("signals were %v", eng.sent())
	}
	stop()
	s.clean()
}

// TestASoftTimeLimitIsNotAskedAgain by whoever adopts the attempt, which the
// adopter's node limits in the end.
func TestASoftTimeLimitIsNotAskedAgain(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	eng := &stubborn{Engine: s.engine, asked: make(chan struct{}, 10)}
	stop := s.start(func(cfg *service.Config) { leaving(cfg); cfg.Engine = eng })
	s.offer("job", limited(50*time.Millisecond, 0, "hang"))
	<-eng.asked
	stop()
	stop = s.start(func(cfg *service.Config) { cfg.Engine, cfg.MaxTime = eng, 1500*time.Millisecond })
	s.timedOut("job", "time limit of 1.5s reached, the container was killed")
	if again := len(eng.asked); again != 0 {
		t.Errorf("the container was asked %d times more", again)
	}
	if got := s.output("job", contracts.LogStderr); strings.Count(got, "Soft time limit") != 1 {
		t.Errorf("the log is %q", got)
	}
	stop()
	s.clean()
}

// stubborn is an engine whose containers do not heed SIGTERM.
type stubborn struct {
	engine.Engine
	asked chan struct{} // gets one for each
}

func (e *stubborn) Signal(ctx context.Context, id, signal string) error {
	if signal == "SIGTERM" {
		e.asked <- struct{}{}
		return nil
	}
	return e.Engine.Signal(ctx, id, signal)
}

// TestATimeLimitEndsAStreamThatStalls, also one that the container has left
// behind: its standard output is yet to be moved when it has ended.
func TestATimeLimitEndsAStreamThatStalls(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	m := s.moves(nil)
	m.breaks = func(*contracts.Step, int64) *contracts.StepResult {
		<-m.ctx.Done()
		return nil
	}
	stop := s.streams()
	task := s.streamTask([]string{"fill:1000000:x"}, fromStdout(toHTTP))
	task.Limits = &contracts.Limits{Time: contracts.Duration(300 * time.Millisecond)}
	s.offer("job", task)
	if failed := s.fails("job"); failed.Kind != contracts.FailureTimeout || !strings.Contains(failed.Message, "time limit of 300ms") {
		t.Errorf("failed as %+v", failed)
	}
	stop()
	m.stop()
	s.clean()
}

// TestATaskThatEndsInTimeIsNotTouched, nor one that ends by itself in another
// way after its limit was set.
func TestATaskThatEndsInTimeIsNotTouched(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	eng := &signalRecorder{Engine: s.engine}
	stop := s.start(func(cfg *service.Config) { cfg.Engine = eng })
	s.offer("well", limited(time.Hour, 2*time.Hour, "exit:0"))
	s.succeeds("well")
	s.offer("killed", limited(time.Hour, 2*time.Hour, "die:KILL"))
	if failed := s.fails("killed"); failed.Kind != contracts.FailureTask || !strings.Contains(failed.Message, "(137)") {
		t.Errorf("failed as %+v", failed)
	}
	if len(eng.sent()) != 0 {
		t.Errorf("signals were %v", eng.sent())
	}
	stop()
	s.clean()
}

// TestTheNodesLimitIsEverybodys, and what asks for more is refused.
func TestTheNodesLimitIsEverybodys(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	stop := s.start(func(cfg *service.Config) { cfg.MaxTime = 50 * time.Millisecond })
	s.offer("job", script("hang"))
	s.timedOut("job", "time limit of 50ms reached, the container was killed")
	s.offer("more", limited(0, time.Hour, "exit:0"))
	if failed := s.fails("more"); failed.Kind != contracts.FailureTask || !strings.Contains(failed.Message, "GANTRY_MAX_TIME=1h0m0s") {
		t.Errorf("failed as %+v", failed)
	}
	stop()
	s.clean()
}

// TestATimeLimitCountsFromTheStart, whoever started the container: one that
// passed while nobody watched acts at once, and one that a former owner acted on
// is still the reason.
func TestATimeLimitCountsFromTheStart(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	task := func() *contracts.Task { return limited(time.Nanosecond, 2*time.Nanosecond, "hang") }
	s.died("running", task(), s.claim())
	id := s.running("running", "trap:TERM:0", "hang")
	s.append("running", s.lastOf("running"), &contracts.Started{Container: id})
	s.died("killed", task(), s.claim())
	id = s.running("killed", "hang")
	s.append("killed", s.lastOf("killed"), &contracts.Started{Container: id})
	if err := s.engine.Signal(s.ctx, id, "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	eng := &signalRecorder{Engine: s.engine}
	stop := s.start(func(cfg *service.Config) { cfg.Engine = eng })
	s.timedOut("running", "time limit of 2ns reached, the container was killed")
	s.timedOut("killed", "time limit of 2ns reached, the container was killed")
	if slices.Contains(eng.sent(), "SIGTERM") {
		t.Errorf("signals were %v", eng.sent())
	}
	stop()
	s.clean()
}

func (s *stage) lastOf(job contracts.JobID) *bus.Seen {
	s.t.Helper()
	last, err := s.bus.Last(s.ctx, job)
	if err != nil {
		s.t.Fatal(err)
	}
	return last
}
