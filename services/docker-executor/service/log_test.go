package service_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/service"
)

func TestTheLogIsExact(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.start(nil)
	s.offer("job", script(`out:grün \0342\0202\0254\n`, `err:bad \0377\0376 bytes\n`, `out:no newline`, `err:x`))
	succeeded := s.succeeds("job")
	if got, want := s.output("job", contracts.LogStdout), "grün €\nno newline"; got != want {
		t.Errorf("stdout is %q, want %q", got, want)
	}
	if got, want := s.output("job", contracts.LogStderr), "bad \xff\xfe bytes\nx"; got != want {
		t.Errorf("stderr is %q, want %q", got, want)
	}
	s.lastSeq("job", succeeded.LogSeq)
}

// lastSeq checks that the log is numbered without a gap up to the end's number.
func (s *stage) lastSeq(job contracts.JobID, want uint64) {
	s.t.Helper()
	var seq uint64
	for _, chunk := range s.chunks(job) {
		if seq++; chunk.Seq != seq || len(chunk.Bytes()) > contracts.MaxLogChunk {
			s.t.Errorf("piece %d has seq %d and %d bytes", seq, chunk.Seq, len(chunk.Bytes()))
		}
	}
	if seq != want {
		s.t.Errorf("the log ends at %d, the end says %d", seq, want)
	}
}

func TestALongLogKeepsItsOrder(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.start(nil)
	s.offer("job", script("lines:6000:50", "fill:200000:x", "exit:2"))
	failed := s.fails("job")
	var want strings.Builder
	for i := range 6000 {
		fmt.Fprintf(&want, "%049d\n", i)
	}
	want.WriteString(strings.Repeat("x", 200000))
	if got := s.output("job", contracts.LogStdout); got != want.String() {
		t.Errorf("log has %d bytes, want %d, or they differ", len(got), want.Len())
	}
	s.lastSeq("job", failed.LogSeq)
}

func TestALogOverItsLimitKeepsHeadAndTail(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.start(func(cfg *service.Config) { cfg.LogLimit = "256k" })
	const lines, width = 60000, 64 // 3.84 MB
	s.offer("job", script(fmt.Sprintf("lines:%d:%d", lines, width)))
	succeeded := s.succeeds("job")
	chunks := s.chunks("job")
	text := s.output("job", contracts.LogStdout)
	if first := fmt.Sprintf("%0*d\n", width-1, 0); !strings.HasPrefix(text, first) {
		t.Error("the beginning is missing")
	}
	if last := fmt.Sprintf("%0*d\n", width-1, lines-1); !strings.HasSuffix(text, last) {
		t.Error("the end is missing")
	}
	if len(text) < 256<<10-2*contracts.MaxLogChunk || len(text) > 256<<10+1<<20+contracts.MaxLogChunk {
		t.Errorf("%d bytes are kept", len(text))
	}
	if last := chunks[len(chunks)-1].Seq; last != succeeded.LogSeq || int(last) == len(chunks) {
		t.Errorf("last seq is %d of %d pieces, the end says %d", last, len(chunks), succeeded.LogSeq)
	}
}

// The log is stored before the end is: whoever sees the end finds all of it.
func TestTheLogComesBeforeTheEnd(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.start(nil)
	for i := range 10 {
		job := contracts.JobID(fmt.Sprintf("job-%d", i))
		s.offer(job, script("lines:300:80", "out:last"))
		s.succeeds(job)
		if got := s.output(job, contracts.LogStdout); !strings.HasSuffix(got, "last") {
			t.Errorf("%s: the end came before the end of the log: %d bytes", job, len(got))
		}
	}
}

func TestTheLastProgressAndPhaseAreThere(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.transfers(true, sent)
	eng := &progressWriter{recorder: recorder{Engine: s.engine}, lines: 200}
	s.start(func(cfg *service.Config) { cfg.Engine = eng })
	task := script("exit:0")
	task.Docker.Args = append(task.Docker.Args, contracts.Arg{Transform: &contracts.ProgressPipe{}})
	task.Outputs = []contracts.Output{upload("x", "item")}
	s.offer("job", task)
	s.succeeds("job")
	var progress contracts.Progress
	var phase contracts.Phase
	for _, note := range s.notes("job") {
		var err error
		switch note.Type {
		case contracts.NoteProgress:
			progress = contracts.Progress{}
			err = json.Unmarshal(note.Data, &progress)
		case contracts.NotePhase:
			err = json.Unmarshal(note.Data, &phase)
		case contracts.NoteTransfer:
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if progress.Current == nil || *progress.Current != 200 || progress.Message != "the last" {
		t.Errorf("last progress is %+v", progress)
	}
	if phase.Phase != contracts.PhasePushingOutput {
		t.Errorf("last phase is %+v", phase)
	}
}

// notes returns what is stored of a job's notes now.
func (s *stage) notes(job contracts.JobID) []*contracts.Note {
	s.t.Helper()
	stream, err := s.bus.JetStream().Stream(s.ctx, contracts.StreamLive)
	if err != nil {
		s.t.Fatal(err)
	}
	last, err := stream.GetLastMsgForSubject(s.ctx, contracts.NotesSubject(job))
	if err != nil {
		s.t.Fatal(err)
	}
	var notes []*contracts.Note
	for msg, err := range s.bus.Messages(s.ctx, contracts.StreamLive, 1, contracts.NotesSubject(job)) {
		if err != nil {
			s.t.Fatal(err)
		}
		note := new(contracts.Note)
		if err := json.Unmarshal(msg.Data(), note); err != nil {
			s.t.Fatal(err)
		}
		notes = append(notes, note)
		if meta, err := msg.Metadata(); err != nil || meta.Sequence.Stream >= last.Sequence {
			break
		}
	}
	return notes
}
