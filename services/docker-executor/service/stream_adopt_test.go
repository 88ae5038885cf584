package service_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/service"
	"github.com/gantry-worker/gantry/services/internal/bus/bustest"
)

// An executor stops while the container runs, and the next one goes on with the
// streams, or knows that it cannot.
func TestStreamsOfAContainerThatIsAdopted(t *testing.T) {
	t.Parallel()
	lost := "docker.streams[0]: the stream lost its mover: its executor ended while the container ran"
	for name, test := range map[string]struct {
		before, after []string // of what the container waits for in between
		connect       contracts.Connect
		out, taken    string
		fails         string
	}{
		"an input that it begins then": {after: []string{"cat:/data/in", "out:end"}, connect: fromGirder("big", "in"), out: big + "end"},
		"an input that is over":        {before: []string{"cat:/data/in"}, after: []string{"out:end"}, connect: fromGirder("big", "in"), out: big + "end"},
		"a pipe": {
			before: []string{"write:/data/out:one"}, after: []string{"write:/data/out:two", "out:o"}, connect: fromPipe("out", toItem),
			taken: "onetwo", out: "o",
		},
		"standard output": {before: []string{"out:one\n"}, after: []string{"out:two\n"}, connect: fromStdout(toHTTP), fails: lost},
		"a pipe into the log": {
			before: []string{"write:/data/out:one"}, after: []string{"hang"}, connect: fromPipe("out", toOut), out: "one", fails: lost,
		},
		"standard output without its progress": {
			before: []string{"out:a\n<filter-progress>0.5</filter-progress>\nb<filt"}, after: []string{"out:er-progress>1</filter-progress> \nc\n"},
			connect: parsed(fromStdout(toOut)), out: "a\nbc\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			m := s.moves(map[string][]byte{"big": []byte(big)})
			stop := s.start(func(cfg *service.Config) { leaving(cfg); s.impatient(cfg) })
			steps := append(append(test.before, "write:/data/here:x", "await:/data/go"), test.after...)
			task := s.streamTask(steps, test.connect)
			met := s.meeting("here")
			s.offer("job", task)
			s.awaitEntry("job", contracts.EntryStarted)
			met()
			stop()
			mustWrite(t, filepath.Join(s.root, "data", "go"), "")
			stop = s.start(s.impatient)
			_, end := s.await("job")
			switch data := end.Data.(type) {
			case *contracts.Succeeded:
				if test.fails != "" {
					t.Errorf("succeeded, want %q", test.fails)
				}
				s.lastSeq("job", data.LogSeq)
			case *contracts.Failed:
				if data.Message != test.fails || data.Kind != contracts.FailureInfrastructure {
					t.Errorf("failed as %+v", data)
				}
			default:
				t.Errorf("ended as %s %+v", end.Type, end.Data)
			}
			if end.Attempt != 1 {
				t.Errorf("it took %d attempts", end.Attempt)
			}
			got := s.output("job", contracts.LogStdout)
			if whole := got == test.out; !whole && (test.fails == "" || !strings.HasPrefix(test.out, got)) {
				t.Errorf("the log is %.60q (%d bytes), want %.60q", got, len(got), test.out)
			}
			if got := m.taken("stream-0"); test.fails == "" && got != test.taken {
				t.Errorf("transfer took %.60q, want %.60q", got, test.taken)
			}
			stop()
			m.stop()
			s.clean()
		})
	}
}

// meeting makes a pipe on the volume data, and returns what waits until the
// container has written into it: that has come so far then.
func (s *stage) meeting(name string) (wait func()) {
	s.t.Helper()
	path := filepath.Join(s.root, "data", name)
	if err := unix.Mkfifo(path, 0o666); err != nil {
		s.t.Fatal(err)
	}
	return func() {
		s.t.Helper()
		if _, err := os.ReadFile(path); err != nil {
			s.t.Fatal(err)
		}
	}
}

// What the executor moved is moved when the container's end is noted: whoever
// adopts the attempt has only to wait for transfer.
func TestAnAttemptIsAdoptedWhileItsStreamsAreFinished(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	m := s.moves(nil)
	goOn := make(chan struct{})
	m.breaks = func(_ *contracts.Step, moved int64) *contracts.StepResult {
		if moved > 0 {
			select {
			case <-goOn:
			case <-m.ctx.Done():
			}
		}
		return nil
	}
	stop := s.start(func(cfg *service.Config) { leaving(cfg); cfg.AllowBind = []string{s.root + ":rw"} })
	s.offer("job", s.streamTask([]string{"out:text", "err:e", "write:/data/log:piped"}, fromStdout(toItem), fromPipe("log", toErr)))
	s.waits(m.finishing)
	stop()
	close(goOn)
	stop = s.streams()
	succeeded := s.succeeds("job")
	if len(succeeded.Outputs) != 1 || succeeded.Outputs[0].Name != "stdout" || m.taken("stream-0") != "text" {
		t.Errorf("took %q, ended as %+v", m.taken("stream-0"), succeeded)
	}
	if got := s.output("job", contracts.LogStderr); got != "epiped" && got != "pipede" {
		t.Errorf("the log is %q", got)
	}
	s.lastSeq("job", succeeded.LogSeq)
	stop()
	m.stop()
	s.clean()
}

// An executor is killed before, or after, each of its requests for a task whose
// streams transfer moves: each of them is moved once and to its end.
func TestAnExecutorIsKilledAtEveryRequestOfAStream(t *testing.T) {
	patient(t)
	killedAtEach(t, killStreamAt)
}

func killStreamAt(t *testing.T, n int, verdict bustest.Verdict) (killed bool) {
	t.Helper()
	s := newStage(t)
	m := s.moves(map[string][]byte{"big": []byte(big)})
	eng := &startRecorder{Engine: s.engine}
	acked, err := s.bus.Conn().SubscribeSync("$JS.ACK." + contracts.StreamReady + ".>")
	if err != nil {
		t.Fatal(err)
	}
	l := newLife(n, verdict)
	stop := s.startMortal(l, eng)
	task := s.streamTask([]string{"write:/data/out:one", "cat:/data/in", "await:/data/go", "write:/data/out:two"},
		fromGirder("big", "in"), fromPipe("out", toItem))
	s.offer("job", task)
	ended := make(chan struct{})
	t.Cleanup(func() { <-ended })
	go func() {
		defer close(ended)
		s.awaitEntry("job", contracts.EntryStarted)
		mustWrite(t, filepath.Join(s.root, "data", "go"), "")
		awaitAck(t, acked)
	}()
	select {
	case <-ended:
	case <-l.killed.Done():
		s.awaitLock()
		if len(s.folders()) == 0 {
			s.giveBackFirst()
		}
		stop = s.start(func(cfg *service.Config) { cfg.Engine, cfg.AllowBind = eng, []string{s.root + ":rw"} })
	}
	<-ended
	types, life := s.life("job")
	end := life[len(life)-1]
	succeeded, ok := end.Data.(*contracts.Succeeded)
	if !ok || end.Attempt != 1 || len(succeeded.Outputs) != 1 || count(types, "started") != 1 {
		t.Fatalf("request %d: ended as %+v %+v after %v", n, end, end.Data, types)
	}
	if got := s.output("job", contracts.LogStdout); got != big {
		t.Errorf("request %d: the log has %d bytes, want %d, or they differ", n, len(got), len(big))
	}
	if got := m.taken("stream-1"); got != "onetwo" {
		t.Errorf("request %d: transfer took %q", n, got)
	}
	s.lastSeq("job", succeeded.LogSeq)
	if n := eng.starts.Load(); n != 1 {
		t.Errorf("request %d: %d containers were started", n, n)
	}
	stop()
	m.stop()
	s.clean()
	return l.killed.Err() != nil
}
