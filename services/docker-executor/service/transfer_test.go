package service_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/service"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/internal/node"
)

// transfer is a transfer whose answers are scripted.
type transfer struct {
	s     *stage
	notes bool

	mu    sync.Mutex
	steps []contracts.Step
}

// transfers answers the stage's steps with what answer returns, nil for no
// answer. notes says whether a note tells of each result.
func (s *stage) transfers(notes bool, answer func(contracts.Step) *contracts.StepResult) *transfer {
	s.t.Helper()
	id, err := node.Open(s.root)
	if err != nil {
		s.t.Fatal(err)
	}
	consumer := contracts.TransferConsumer(id)
	if err := s.bus.DeclareConsumer(s.ctx, consumer); err != nil {
		s.t.Fatal(err)
	}
	tr := &transfer{s: s, notes: notes}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.bus.Work(ctx, consumer, 4, func(ctx context.Context, msg *bus.Message) error {
			return tr.serve(ctx, msg.Data, answer)
		})
	}()
	s.t.Cleanup(func() {
		cancel()
		<-done
	})
	return tr
}

func (tr *transfer) serve(ctx context.Context, body []byte, answer func(contracts.Step) *contracts.StepResult) error {
	var step contracts.Step
	if err := json.Unmarshal(body, &step); err != nil {
		return err
	}
	path := filepath.Join(tr.s.root, step.Folder, "steps", step.Step+".json")
	if _, err := os.Stat(path); err != nil { // a step that is done is answered from its file
		tr.mu.Lock()
		tr.steps = append(tr.steps, step)
		tr.mu.Unlock()
		result := answer(step)
		if result == nil {
			return nil
		}
		result.Version, result.Step = contracts.Version, step.Step
		data, err := json.Marshal(result)
		if err != nil {
			return err
		}
		if err := os.WriteFile(path+".new", data, 0o600); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
	}
	if !tr.notes {
		return nil
	}
	note, err := contracts.NewNote(contracts.NoteTransfer, step.Attempt, 1, contracts.TransferNote{ID: step.Step, Direction: step.Kind, Done: true})
	if err != nil {
		return err
	}
	return tr.s.bus.Publish(ctx, contracts.NotesSubject(step.Job), "", note)
}

func (tr *transfer) asked() []contracts.Step {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return append([]contracts.Step(nil), tr.steps...)
}

// bring puts the bytes "<id> of Girder" where a stage-in step wants its file.
func bring(step contracts.Step) *contracts.StepResult {
	path := step.Filename
	if path == "" {
		path = step.FileID + "/name.txt"
	}
	if err := put(step.Volume, path, step.FileID+" of Girder\n"); err != nil {
		return &contracts.StepResult{Outcome: contracts.StepInfrastructure, Message: err.Error()}
	}
	return &contracts.StepResult{Outcome: contracts.StepDone, Path: path}
}

// put writes a file on a volume, which has to be there.
func put(volume, path, text string) error {
	root, err := os.OpenRoot(volume)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // only a handle
	if err := root.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	return root.WriteFile(path, []byte(text), 0o644)
}

func sent(step contracts.Step) *contracts.StepResult {
	name := filepath.Base(step.Path)
	return &contracts.StepResult{Outcome: contracts.StepDone, Files: []contracts.GirderSent{{Name: name, FileID: "file-" + name, ItemID: step.ItemID}}}
}

func girderFile(id, filename string) contracts.Arg {
	return contracts.Arg{Transform: &contracts.GirderFile{ID: id, Filename: filename}}
}

func upload(path, item string) contracts.Output {
	return contracts.Output{OutputSpec: &contracts.GirderUploadItem{
		Path: contracts.OutputPath{VolumePath: contracts.VolumePath{Path: path}}, ItemID: item,
	}}
}

func TestInputsAreStagedInOnce(t *testing.T) {
	t.Parallel()
	for name, notes := range map[string]bool{"with notes": true, "with the notes lost": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			eng := &recorder{Engine: s.engine}
			tr := s.transfers(notes, bring)
			stop := s.start(func(cfg *service.Config) { cfg.Engine = eng })
			task := script("exit:0")
			task.Docker.Args = append(task.Docker.Args, girderFile("aa", ""), girderFile("bb", "in/b.txt"), girderFile("aa", ""))
			task.Girder = &contracts.Girder{APIURL: "http://127.0.0.1:1/api/v1"}
			s.offer("job", task)
			if succeeded := s.succeeds("job"); succeeded.Timings.StagedIn.IsZero() {
				t.Error("no time says when the inputs were there")
			}
			args := eng.only(t).Args
			root := eng.only(t).Mounts[0].ContainerPath
			if args[1] != root+"/aa/name.txt" || args[2] != root+"/in/b.txt" || args[3] != args[1] {
				t.Errorf("arguments are %q on %s", args, root)
			}
			steps := tr.asked()
			if len(steps) != 2 {
				t.Errorf("transfer was asked for %d steps: %+v", len(steps), steps)
			}
			for _, step := range steps {
				if step.Kind != contracts.StepStageIn || step.Attempt != 1 || step.Girder.APIURL != task.Girder.APIURL || step.Folder != "attempts/job.1" {
					t.Errorf("step is %+v", step)
				}
			}
			stop()
			s.clean()
		})
	}
}

func TestAContainerSeesItsInput(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.transfers(true, bring)
	s.start(func(cfg *service.Config) { cfg.AllowBind = []string{s.root + ":rw"} })
	task := script("cat:/data/in.txt")
	task.Docker.Volumes = []contracts.Volume{{Name: "data", Type: contracts.VolumeBindMount, HostPath: s.root, ContainerPath: "/data"}}
	task.Docker.Args = append(task.Docker.Args, contracts.Arg{Text: "exit:0"}, contracts.Arg{Transform: &contracts.GirderFile{ID: "aa", Volume: "data", Filename: "in.txt"}})
	s.offer("job", task)
	s.succeeds("job")
	if got := s.output("job", contracts.LogStdout); got != "aa of Girder\n" {
		t.Errorf("container read %q", got)
	}
}

func TestTransferAnswersBadly(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		outcome contracts.StepOutcome
		kind    contracts.FailureKind
	}{
		"failure":        {contracts.StepFailure, contracts.FailureTask},
		"infrastructure": {contracts.StepInfrastructure, contracts.FailureInfrastructure},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			s.transfers(true, func(contracts.Step) *contracts.StepResult {
				return &contracts.StepResult{Outcome: test.outcome, Message: "get file aa: 404 Not Found"}
			})
			stop := s.start(nil)
			none := 0
			for job, change := range map[contracts.JobID]func(*contracts.Task){
				"in":  func(task *contracts.Task) { task.Docker.Args = append(task.Docker.Args, girderFile("aa", "")) },
				"out": func(task *contracts.Task) { task.Outputs = append(task.Outputs, upload("x", "item")) },
			} {
				task := script("exit:0")
				task.Retry = &contracts.Retry{MaxCrashes: &none}
				change(task)
				s.offer(job, task)
				if failed := s.fails(job); failed.Kind != test.kind || failed.WillRetry || !strings.Contains(failed.Message, "404 Not Found") {
					t.Errorf("%s: failed as %+v", job, failed)
				}
			}
			stop()
			s.clean()
		})
	}
}

func TestOutputsArePushedInOrder(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	tr := s.transfers(true, sent)
	stop := s.start(nil)
	task := script("exit:0")
	task.Outputs = []contracts.Output{upload("out/a.csv", "item1"), upload("b.csv", "item2")}
	s.offer("job", task)
	types, end := s.await("job")
	sameTypes(t, types, "submitted", "queued", "claimed", "started", "pushing", "pushed", "pushed", "succeeded")
	_, life := s.life("job")
	for i, want := range []string{"file-a.csv", "file-b.csv"} {
		pushed := life[5+i].Data.(*contracts.Pushed)
		if pushed.Index != i || len(pushed.Files) != 1 || pushed.Files[0].FileID != want {
			t.Errorf("pushed entry %d is %+v", i, pushed)
		}
	}
	if outputs := end.Data.(*contracts.Succeeded).Outputs; len(outputs) != 2 || outputs[1].ItemID != "item2" {
		t.Errorf("outputs are %+v", outputs)
	}
	for _, step := range tr.asked() {
		if step.Kind != contracts.StepStageOut || !step.MustExist || !strings.HasPrefix(step.Volume, s.root) {
			t.Errorf("step is %+v", step)
		}
	}
	stop()
	s.clean()
}

func TestAFailedTaskPushesNothing(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	tr := s.transfers(true, sent)
	s.start(nil)
	task := script("exit:3")
	task.Outputs = []contracts.Output{upload("a", "item")}
	s.offer("job", task)
	s.fails("job")
	if asked := tr.asked(); len(asked) != 0 {
		t.Errorf("transfer was asked for %+v", asked)
	}
}
