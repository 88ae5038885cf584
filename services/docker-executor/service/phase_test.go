package service_test

import (
	"path/filepath"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/contracts"
)

// awaitPhase waits until an attempt says that it is busy with that.
func (s *stage) awaitPhase(job contracts.JobID, want contracts.Phase) {
	s.t.Helper()
	s.awaitPhaseBehind(job, 0, want)
}

// awaitPhaseBehind waits until it says so behind the note of a number, and
// returns the number of the one that does.
func (s *stage) awaitPhaseBehind(job contracts.JobID, seq uint64, want contracts.Phase) uint64 {
	s.t.Helper()
	for msg, err := range s.bus.Messages(s.ctx, contracts.StreamLive, seq+1, contracts.NotesSubject(job)) {
		if err != nil {
			s.t.Fatal(err)
		}
		note, phase := new(contracts.Note), contracts.Phase{}
		if err := json.Unmarshal(msg.Data(), note); err != nil {
			s.t.Fatal(err)
		}
		if note.Type != contracts.NotePhase {
			continue
		}
		if err := json.Unmarshal(note.Data, &phase); err != nil {
			s.t.Fatal(err)
		}
		if phase == want {
			meta, err := msg.Metadata()
			if err != nil {
				s.t.Fatal(err)
			}
			return meta.Sequence.Stream
		}
		s.t.Logf("phase %+v", phase)
	}
	s.t.Fatalf("nobody says %+v", want)
	return 0
}

// tells says how far a step is, as transfer does.
func (s *stage) tells(step contracts.Step, note contracts.TransferNote) {
	note.ID, note.Direction = step.Step, step.Kind
	n, err := contracts.NewNote(contracts.NoteTransfer, step.Attempt, 1, note)
	if err == nil {
		err = s.bus.Hint(step.Job, n)
	}
	if err != nil {
		s.t.Error(err)
	}
}

// holdUp holds a step up until its test has seen what it waited for.
func (s *stage) holdUp(seen <-chan struct{}) {
	select {
	case <-seen:
	case <-s.ctx.Done():
	}
}

func TestHowFarTransferIsIsTheAttemptsPhase(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	fetched, pushed := make(chan struct{}), make(chan struct{})
	s.transfers(true, func(step contracts.Step) *contracts.StepResult {
		switch step.Step {
		case "in-0":
			s.tells(step, contracts.TransferNote{What: "a.tif", Bytes: 400, Total: 1000, Rate: 100})
			s.holdUp(fetched)
		case "in-1":
			s.tells(step, contracts.TransferNote{What: "b.tif", Bytes: 50, Total: 500, Rate: 10})
			s.holdUp(fetched)
		case "out-1":
			s.tells(step, contracts.TransferNote{What: "y", Bytes: 30, Total: 60, Rate: 5})
			s.holdUp(pushed)
		}
		if step.Kind == contracts.StepStageIn {
			return bring(step)
		}
		result := sent(step)
		result.Bytes = 60
		return result
	})
	s.start(nil)
	task := script("exit:0")
	task.Docker.Args = append(task.Docker.Args, girderFile("aa", "a.tif"), girderFile("bb", "b.tif"))
	task.Outputs = []contracts.Output{upload("x", "item"), upload("y", "item")}
	s.offer("job", task)
	s.awaitPhase("job", contracts.Phase{Phase: contracts.PhaseFetchingInput, What: "a.tif and 1 more", Bytes: 450, Of: 1500, Rate: 110})
	close(fetched)
	s.awaitPhase("job", contracts.Phase{Phase: contracts.PhasePushingOutput, What: "y (2 of 2)", Bytes: 90, Of: 120, Rate: 5})
	close(pushed)
	s.succeeds("job")
	s.awaitPhase("job", contracts.Phase{Phase: contracts.PhasePushingOutput, What: "y (2 of 2)", Bytes: 120, Of: 120})
}

// Whoever adopts an attempt tells on how far its outputs are, with those that are
// in Girder already.
func TestAnAdopterTellsHowFarTheOutputsAre(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	pushed := make(chan struct{})
	s.transfers(true, func(step contracts.Step) *contracts.StepResult {
		s.tells(step, contracts.TransferNote{What: "b", Bytes: 30, Total: 60, Rate: 5})
		s.holdUp(pushed)
		return sent(step)
	})
	task := script()
	task.Outputs = []contracts.Output{upload("a", "item"), upload("b", "item")}
	s.died("job", task, s.claim(), &contracts.Started{Container: "x"}, &contracts.Pushing{}, &contracts.Pushed{})
	s.exited("job", "exit:0")
	mustWrite(t, filepath.Join(s.root, "attempts", "job.1", "steps", "out-0.json"), `{"version":1,"step":"out-0","outcome":"done","bytes":100}`)
	s.start(nil)
	s.awaitPhase("job", contracts.Phase{Phase: contracts.PhasePushingOutput, What: "b (2 of 2)", Bytes: 130, Of: 160, Rate: 5})
	close(pushed)
	s.succeeds("job")
}

// The upload of a stream begins when its container has ended.
func TestAStreamThatIsUploadedIsAPhase(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	ended := make(chan struct{})
	m := s.moves(nil)
	m.uploads = func(step *contracts.Step) {
		s.tells(*step, contracts.TransferNote{What: "out.csv", Bytes: 2, Total: 4, Rate: 1})
		s.holdUp(ended)
	}
	s.streams()
	s.offer("job", s.streamTask([]string{"write:/data/out.csv:text"}, fromPipe("out.csv", toItem)))
	s.awaitPhase("job", contracts.Phase{Phase: contracts.PhasePushingOutput, What: "out.csv", Bytes: 2, Of: 4, Rate: 1})
	close(ended)
	s.succeeds("job")
}

// Every step with access to Girder says how the task wants Girder to be reached,
// unless it is about another one.
func TestStepsHaveTheTasksSession(t *testing.T) {
	t.Parallel()
	session := &contracts.GirderSession{Proxies: map[string]contracts.Secret{"all": "http://127.0.0.1:1"}}
	s := newStage(t)
	m := s.moves(map[string][]byte{"cc": []byte("c")})
	s.streams()
	task := s.streamTask([]string{"cat:/data/in", "out:x"}, fromGirder("cc", "in"), fromStdout(toItem), fromStderr(toHTTP))
	other := &contracts.GirderFile{ID: "bb", Filename: "b", Girder: &contracts.GirderAccess{APIURL: "http://127.0.0.2:1/api/v1"}}
	task.Docker.Args = append(task.Docker.Args, contracts.Arg{Text: "exit:0"}, girderFile("aa", "a"), contracts.Arg{Transform: other})
	task.Outputs = []contracts.Output{upload("x", "item")}
	task.Girder.Session = session
	s.offer("job", task)
	s.succeeds("job")
	got := map[string]bool{}
	for _, kind := range []contracts.StepKind{contracts.StepStageIn, contracts.StepStageOut, contracts.StepStream} {
		for _, step := range m.asked(kind) {
			got[step.Step] = cmp.Equal(session, step.Session)
		}
	}
	want := map[string]bool{"in-0": true, "in-1": false, "out-0": true, "stream-0": true, "stream-1": true, "stream-2": false}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
