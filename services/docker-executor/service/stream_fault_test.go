package service_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/service"
)

// impatient gives containers no time to end by themselves.
func (s *stage) impatient(cfg *service.Config) {
	cfg.AllowBind, cfg.MaxGrace = []string{s.root + ":rw"}, time.Millisecond
}

func breaksAfter(n int64, outcome contracts.StepOutcome) func(*contracts.Step, int64) *contracts.StepResult {
	return func(step *contracts.Step, moved int64) *contracts.StepResult {
		if moved < n {
			return nil
		}
		return &contracts.StepResult{Outcome: outcome, Message: step.Stream.Field + ": get file: 500", Bytes: moved}
	}
}

// A stream that breaks while the container runs ends the container, which never
// takes what it has for all.
func TestAStreamThatBreaksStopsTheContainer(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		steps   []string
		connect contracts.Connect
	}{
		"an input that a container reads": {[]string{"cat:/data/in", "out:took it for all"}, fromGirder("big", "in")},
		"an input that nobody reads":      {[]string{"hang"}, fromGirder("big", "in")},
		"a pipe":                          {[]string{"write:/data/out:1234", "hang"}, fromPipe("out", toHTTP)},
		"standard output":                 {[]string{"out:1234\n", "hang"}, fromStdout(toHTTP)},
		"standard error":                  {[]string{"err:1234\n", "hang"}, fromStderr(toItem)},
	} {
		for outcome, kind := range map[contracts.StepOutcome]contracts.FailureKind{
			contracts.StepFailure: contracts.FailureTask, contracts.StepInfrastructure: contracts.FailureInfrastructure,
		} {
			t.Run(name+", "+string(outcome), func(t *testing.T) {
				t.Parallel()
				s := newStage(t)
				m := s.moves(map[string][]byte{"big": []byte(big)})
				after := int64(4)
				if strings.Contains(name, "nobody reads") {
					after = 0
				}
				m.breaks = breaksAfter(after, outcome)
				stop := s.start(s.impatient)
				s.offer("job", s.streamTask(test.steps, test.connect))
				failed := s.fails("job")
				if failed.Kind != kind || failed.Message != "docker.streams[0]: get file: 500" || failed.ExitCode != nil {
					t.Errorf("failed as %+v", failed)
				}
				if got := s.output("job", contracts.LogStdout); strings.Contains(got, "all") {
					t.Errorf("the container saw an end: %.50q", got)
				}
				stop()
				m.stop()
				s.clean()
			})
		}
	}
}

// A stream that cannot even begin is told before there is a container.
func TestAStreamThatCannotBegin(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.transfers(true, func(step contracts.Step) *contracts.StepResult {
		return &contracts.StepResult{Outcome: contracts.StepFailure, Message: "403 Forbidden"}
	})
	eng := &recorder{Engine: s.engine}
	stop := s.start(func(cfg *service.Config) { s.impatient(cfg); cfg.Engine = eng })
	s.offer("job", s.streamTask([]string{"cat:/data/in"}, fromGirder("aa", "in")))
	if failed := s.fails("job"); failed.Kind != contracts.FailureTask || failed.Message != "docker.streams[0]: 403 Forbidden" {
		t.Errorf("failed as %+v", failed)
	}
	if len(eng.made()) != 0 {
		t.Errorf("%d containers were created", len(eng.made()))
	}
	stop()
	s.clean()
}

// What a stream comes to after the end of the container decides, unless the
// container has failed itself.
func TestAStreamThatBreaksAtItsEnd(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		exit, message string
		kind          contracts.FailureKind
	}{
		"after success": {"exit:0", "docker.streams[0]: get file: 500", contracts.FailureInfrastructure},
		"after failure": {"exit:3", "Non-zero exit code from docker container (3).", contracts.FailureTask},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			m := s.moves(nil)
			m.breaks = func(step *contracts.Step, moved int64) *contracts.StepResult {
				if moved > 0 {
					select {
					case <-m.ctx.Done():
						return nil
					case <-m.finishing:
					}
				}
				return breaksAfter(4, contracts.StepInfrastructure)(step, moved)
			}
			stop := s.streams()
			s.offer("job", s.streamTask([]string{"write:/data/out:1234", test.exit}, fromPipe("out", toHTTP)))
			if failed := s.fails("job"); failed.Kind != test.kind || failed.Message != test.message {
				t.Errorf("failed as %+v", failed)
			}
			stop()
			m.stop()
			s.clean()
		})
	}
}

// A sink that takes less than the container wrote is no success.
func TestBytesThatTransferHasNotGot(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	m := s.moves(nil)
	m.loses = 1
	s.streams()
	s.offer("job", s.streamTask([]string{"out:1234"}, fromStdout(toHTTP)))
	if failed := s.fails("job"); failed.Kind != contracts.FailureInfrastructure || failed.Message != "docker.streams[0]: bytes are missing" {
		t.Errorf("failed as %+v", failed)
	}
}

// A revoke is honored wherever a stream is.
func TestARevokeInAStream(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		steps   []string
		connect contracts.Connect
		when    func(*stage, *mover)
	}{
		"before the container opens its input": {[]string{"hang"}, fromGirder("big", "in"), (*stage).whenStarted},
		"before it opens its output":           {[]string{"hang"}, fromPipe("out", toHTTP), (*stage).whenStarted},
		"before it opens a pipe into the log":  {[]string{"hang"}, fromPipe("out", toOut), (*stage).whenStarted},
		"in the middle of an input":            {[]string{"cat:/data/in"}, fromGirder("big", "in"), (*stage).whenMoving},
		"in the middle of an output":           {[]string{"write:/data/out:1234", "hang"}, fromPipe("out", toItem), (*stage).whenMoving},
		"in the middle of its standard output": {[]string{"out:1234\n", "hang"}, fromStdout(toItem), (*stage).whenMoving},
		"while a sink takes nothing":           {[]string{"fill:1000000:x", "hang"}, fromStdout(toHTTP), (*stage).whenStuck},
		"while its standard output is parsed":  {[]string{"out:1234\n", "hang"}, parsed(fromStdout(toErr)), (*stage).whenStarted},
		"while a stream is being finished":     {[]string{"write:/data/out:1234"}, fromPipe("out", toHTTP), (*stage).whenFinishing},
		"before a stream has begun":            {[]string{"hang"}, fromPipe("out", toHTTP), (*stage).whenBeginning},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			m := s.moves(map[string][]byte{"big": []byte(big)})
			m.moved = make(chan string, 1)
			stuck := make(chan struct{})
			tell := sync.OnceFunc(func() { close(stuck) })
			m.breaks = func(_ *contracts.Step, moved int64) *contracts.StepResult {
				switch {
				case name == "while a sink takes nothing" && moved > 0:
					tell()
					<-m.ctx.Done()
				case name == "while a stream is being finished", name == "in the middle of an input" && moved > 0:
					<-m.ctx.Done()
				}
				return nil
			}
			m.stuck = stuck
			m.deaf = name == "before a stream has begun"
			stop := s.start(s.impatient)
			s.offer("job", s.streamTask(test.steps, test.connect))
			test.when(s, m)
			s.revoke(contracts.Revoke{Job: "job", By: "somebody"})
			_, end := s.await("job")
			if canceled, ok := end.Data.(*contracts.Canceled); !ok || canceled.By != "somebody" {
				t.Errorf("ended as %s %+v", end.Type, end.Data)
			}
			stop()
			m.stop()
			s.clean()
		})
	}
}

func (s *stage) whenStarted(*mover)     { s.awaitEntry("job", contracts.EntryStarted) }
func (s *stage) whenMoving(m *mover)    { s.whenStarted(m); s.hears(m.moved) }
func (s *stage) whenFinishing(m *mover) { s.waits(m.finishing) }
func (s *stage) whenStuck(m *mover)     { s.waits(m.stuck) }
func (s *stage) whenBeginning(m *mover) { s.waits(m.beginning) }

func (s *stage) hears(c <-chan string) {
	s.t.Helper()
	select {
	case <-c:
	case <-s.ctx.Done():
		s.t.Fatal("nothing moved")
	}
}

func (s *stage) waits(c <-chan struct{}) {
	s.t.Helper()
	select {
	case <-c:
	case <-s.ctx.Done():
		s.t.Fatal("it never came to that")
	}
}

// A full disk is waited for, and keeps nobody from ending.
func TestARevokeWhileTheDiskIsFull(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.start(s.impatient)
	task := s.streamTask([]string{"await:/data/go", "write:/data/out:1234", "hang"}, fromPipe("out", toOut))
	s.offer("job", task)
	s.awaitEntry("job", contracts.EntryStarted)
	if err := os.Symlink("/dev/full", filepath.Join(s.root, "attempts", "job.1", "log.stdout")); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, filepath.Join(s.root, "data", "go"), "")
	s.revoke(contracts.Revoke{Job: "job", By: "somebody"})
	if _, end := s.await("job"); end.Type != contracts.EntryCanceled {
		t.Errorf("ended as %s %+v", end.Type, end.Data)
	}
}

// A sink that stalls does not keep a task beyond its time limit.
func TestAStreamThatStallsAtItsEnd(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	m := s.moves(nil)
	m.breaks = func(_ *contracts.Step, moved int64) *contracts.StepResult {
		if moved > 0 {
			<-m.ctx.Done()
		}
		return nil
	}
	stop := s.streams()
	task := s.streamTask([]string{"write:/data/out:1234"}, fromPipe("out", toHTTP))
	task.Limits = &contracts.Limits{Time: contracts.Duration(time.Second)}
	s.offer("job", task)
	if failed := s.fails("job"); failed.Kind != contracts.FailureTimeout || !strings.Contains(failed.Message, "time limit of 1s reached") {
		t.Errorf("failed as %+v", failed)
	}
	stop()
	m.stop()
	s.clean()
}

// An upload takes the time that it takes, as any output does.
func TestAnUploadHasNoTimeLimit(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	m := s.moves(nil)
	const limit = time.Second
	late := make(chan struct{})
	m.breaks = func(_ *contracts.Step, moved int64) *contracts.StepResult {
		if moved > 0 {
			select {
			case <-late:
			case <-m.ctx.Done():
			}
		}
		return nil
	}
	stop := s.start(func(cfg *service.Config) {
		cfg.Engine, cfg.AllowBind = &brief{s.engine}, []string{s.root + ":rw"}
	})
	task := s.streamTask([]string{"write:/data/out:1234"}, fromPipe("out", toItem))
	task.Limits = &contracts.Limits{Time: contracts.Duration(limit)}
	s.offer("job", task)
	s.waits(m.finishing) // which is after the container's start
	time.AfterFunc(limit+limit/4, func() { close(late) })
	s.succeeds("job")
	if got := m.taken("stream-0"); got != "1234" {
		t.Errorf("transfer has %q", got)
	}
	stop()
	m.stop()
	s.clean()
}

// A stream that is done before the container has opened its pipe leaves it a
// pipe that it can open: one that nobody holds would keep it waiting for ever.
func TestAStreamThatIsDoneBeforeItsPipeIsOpened(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	m := s.moves(map[string][]byte{"empty": {}})
	m.eager = true
	stop := s.streams()
	task := s.streamTask([]string{"write:/data/here:x", "await:/data/go", "cat:/data/in", "out:end"}, fromGirder("empty", "in"))
	met := s.meeting("here")
	s.offer("job", task)
	met()
	mustWrite(t, filepath.Join(s.root, "data", "go"), "")
	s.succeeds("job")
	if got := s.output("job", contracts.LogStdout); got != "end" {
		t.Errorf("the log is %q", got)
	}
	stop()
	m.stop()
	s.clean()
}

// What a task wants to keep of a failure is kept of that of a stream as well.
func TestArtifactsOfATaskWhoseStreamBroke(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	m := s.moves(nil)
	m.breaks = breaksAfter(4, contracts.StepFailure)
	stop := s.start(s.impatient)
	task := s.streamTask([]string{"out:1234\n", "hang"}, fromStdout(toHTTP))
	task.Outputs = []contracts.Output{upload("never", "item"), {OutputSpec: &contracts.GirderJobArtifact{
		Path: contracts.OutputPath{VolumePath: contracts.VolumePath{Path: "trace.txt"}}, UploadOnException: true,
	}}}
	s.offer("job", task)
	failed := s.fails("job")
	if len(failed.Outputs) != 1 || failed.Outputs[0].Name != "trace.txt" || failed.Message != "docker.streams[0]: get file: 500" {
		t.Errorf("failed as %+v", failed)
	}
	if steps := m.asked(contracts.StepStageOut); len(steps) != 1 || !steps[0].Artifact {
		t.Errorf("transfer was asked for %+v", steps)
	}
	stop()
	m.stop()
	s.clean()
}
