package service

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/transfer/internal/stage"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

func TestStepsAreDone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.serve()
	in := b.stageIn("in-0", b.file("in.tif", "pixels"))
	result := b.do(in)
	if result.Outcome != contracts.StepDone || result.Path != "in/in-0" || result.Bytes != 6 || result.Step != "in-0" || result.Ended.IsZero() {
		t.Fatalf("%+v", result)
	}
	if data, err := os.ReadFile(filepath.Join(b.volume, "in/in-0")); err != nil || string(data) != "pixels" {
		t.Fatalf("%q, %v", data, err)
	}
	b.write("result.csv", []byte("1,2\n"))
	out := b.stageOut("out-0", "result.csv")
	out.DeleteFile = true
	result = b.do(out)
	if result.Outcome != contracts.StepDone || len(result.Files) != 1 || result.Files[0].Name != "result.csv" || result.Bytes != 4 {
		t.Fatalf("%+v", result)
	}
	if result.Files[0].FileID == "" || result.Files[0].ItemID != b.item.ID || b.uploaded("result.csv") != "1,2\n" {
		t.Errorf("%+v", result.Files[0])
	}
	if _, err := os.Stat(filepath.Join(b.volume, "result.csv")); !os.IsNotExist(err) {
		t.Errorf("the uploaded file is still on the volume: %v", err)
	}
	b.drained()
}

func TestDoneStepIsAnsweredFromItsFile(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stop := b.serve()
	step := b.stageIn("in-0", b.file("in.tif", "pixels"))
	first := b.do(step)
	stop()
	b.sim.Down()
	b.serve()
	if again := b.do(step); !again.Ended.Equal(first.Ended) || again.Outcome != contracts.StepDone {
		t.Errorf("done again: %+v after %+v", again, first)
	}
	b.drained()
}

// TestResultThatCannotBeStoredIsKept takes the folder of results away while the
// step runs: what is done is stored later, and not done again.
func TestResultThatCannotBeStoredIsKept(t *testing.T) {
	t.Parallel()
	b := setup(t)
	step := b.stageIn("in-0", b.file("in.tif", "pixels"))
	var downloads atomic.Int32
	b.sim.SetFault(func(r *http.Request) *girdersim.Fault {
		if strings.HasSuffix(r.URL.Path, "/download") && downloads.Add(1) == 1 {
			if err := os.RemoveAll(filepath.Join(b.root, step.Folder, "steps")); err != nil {
				t.Error(err)
			}
		}
		return nil
	})
	b.serve()
	if result := b.do(step); result == nil || result.Outcome != contracts.StepDone || result.Bytes != 6 {
		t.Errorf("%+v", result)
	}
	b.drained()
	if n := downloads.Load(); n != 1 {
		t.Errorf("downloaded %d times", n)
	}
}

func TestPermanentErrorsAreFailures(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.serve()
	present := b.file("in.tif", "pixels")
	lost := b.file("lost", "bytes")
	if err := b.sim.LoseBytes(lost); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc", filepath.Join(b.volume, "etc")); err != nil {
		t.Fatal(err)
	}
	steps := map[string]struct {
		step *contracts.Step
		says string
	}{
		"missing":  {b.stageIn("missing", "5f0c00000000000000000001"), "Invalid file id"},
		"lost":     {b.stageIn("lost", lost), "does not exist"},
		"leaves":   {b.stageIn("leaves", present), "leaves its volume"},
		"link":     {b.stageOut("link", "etc/passwd"), "etc is a symbolic link"},
		"absent":   {b.stageOut("absent", "nothing/here"), "no such file"},
		"no-item":  {b.stageOut("no-item", "r"), "Invalid item id"},
		"no-token": {b.stageIn("no-token", present), "secret"},
		"bad-api":  {b.stageIn("bad-api", present), "girder"},
		"kind":     {b.stageIn("kind", present), "step kind"},
	}
	b.write("r", []byte("r"))
	steps["leaves"].step.Filename = "../../x"
	steps["no-item"].step.ItemID = "5f0c00000000000000000001"
	steps["no-token"].step.Girder.Token = "secret:io/outputs[3].girder.token"
	steps["bad-api"].step.Girder.APIURL = "girder.example.org"
	steps["kind"].step.Kind = "teleport"
	for name, test := range steps {
		result := b.do(test.step)
		if result.Outcome != contracts.StepFailure || !strings.Contains(result.Message, test.says) {
			t.Errorf("%s: %+v", name, result)
		}
	}
	b.secret("worthless-token-4711")
	result := b.do(b.stageIn("refused", present))
	if result.Outcome != contracts.StepFailure || !strings.Contains(result.Message, "401") || strings.Contains(result.Message, "4711") {
		t.Errorf("refused: %+v", result)
	}
	b.drained()
}

func TestSilentGirderIsInfrastructure(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cfg := b.config()
	cfg.GirderPatience = 300 * time.Millisecond
	b.start(cfg, slow)
	id := b.file("in.tif", "pixels")
	b.sim.Down()
	if result := b.do(b.stageIn("in-0", id)); result.Outcome != contracts.StepInfrastructure || result.Message == "" {
		t.Fatalf("%+v", result)
	}
}

// holdChunks lets uploads begin and their chunks wait.
func (b *bench) holdChunks() (release func()) {
	hang := make(chan struct{})
	b.sim.SetFault(func(r *http.Request) *girdersim.Fault {
		if strings.HasSuffix(r.URL.Path, "/file/chunk") {
			return &girdersim.Fault{Hang: hang}
		}
		return nil
	})
	return sync.OnceFunc(func() { close(hang) })
}

func uploadBegun(r girdersim.Request) bool {
	return r.Method == "POST" && strings.HasSuffix(r.Path, "/file")
}

// awaitUpload waits until a step has begun its upload and knows its id: a process
// that ends before may leave it in Girder.
func (b *bench) awaitUpload(step *contracts.Step) {
	b.t.Helper()
	b.awaitRequest(uploadBegun)
	b.until("the upload is not noted", func() bool { return b.isNoted(step.Step, "pending") })
}

func TestRevokeAbortsAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.serve()
	defer b.holdChunks()()
	b.write("r", []byte("result"))
	step := b.stageOut("out-0", "r")
	b.ask(step)
	b.awaitUpload(step)
	if err := b.bus.Revoke(t.Context(), contracts.Revoke{Version: 1, Job: job, Terminate: true, By: "tester"}); err != nil {
		t.Fatal(err)
	}
	b.await(step)
	b.drained() // of an upload that takes long to cancel the result does not wait
	if result := b.result(step); result.Outcome != contracts.StepAborted || !strings.Contains(result.Message, "tester") {
		t.Errorf("%+v", result)
	}
	if b.sim.OpenUploads() != 0 || len(b.sim.Files(b.item.ID)) != 0 {
		t.Errorf("%d uploads, files %v", b.sim.OpenUploads(), b.sim.Files(b.item.ID))
	}
}

func TestRevokeBeforeTheStep(t *testing.T) {
	t.Parallel()
	b := setup(t)
	step := b.stageIn("in-0", b.file("in.tif", "pixels"))
	if err := b.bus.Revoke(t.Context(), contracts.Revoke{Version: 1, Job: job, Terminate: true}); err != nil {
		t.Fatal(err)
	}
	b.serve()
	if result := b.do(step); result.Outcome != contracts.StepAborted || len(b.sim.Requests()) != 0 {
		t.Errorf("%+v after %v", result, b.sim.Requests())
	}
}

func TestStepsOfOtherAttemptsAreDropped(t *testing.T) {
	t.Parallel()
	for name, went := range map[string]func(*bench, *contracts.Step){
		"older attempt": func(b *bench, _ *contracts.Step) { b.append(&contracts.Claimed{Node: b.node, Executor: "y"}) },
		"canceling":     func(b *bench, _ *contracts.Step) { b.append(&contracts.Canceling{}) },
		"ended": func(b *bench, _ *contracts.Step) {
			b.append(&contracts.Failed{Kind: contracts.FailureTask, Message: "m"})
		},
		"unknown job": func(_ *bench, s *contracts.Step) { s.Job = "nobody" },
		"folder gone": func(b *bench, _ *contracts.Step) { _ = os.RemoveAll(filepath.Join(b.root, "attempts")) },
		"bad folder":  func(_ *bench, s *contracts.Step) { s.Folder = "../../etc" },
		"other body":  func(_ *bench, s *contracts.Step) { s.Folder = "" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			step := b.stageIn("in-0", b.file("in.tif", "pixels"))
			went(b, step)
			b.ask(step)
			if name == "other body" {
				subject := contracts.TransferSubject(b.node, job, 1, "in-1")
				if err := b.bus.Publish(t.Context(), subject, "", step); err != nil {
					t.Fatal(err)
				}
			}
			b.serve()
			b.drained()
			if n := len(b.sim.Requests()); n != 0 && name != "other body" {
				t.Errorf("Girder was asked %d times", n)
			}
			if name != "folder gone" && name != "other body" && name != "bad folder" && b.result(step) != nil {
				t.Errorf("%+v", b.result(step))
			}
		})
	}
}

func TestOvertakenAttemptIsStopped(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start(b.config(), quick)
	defer b.holdChunks()()
	b.write("r", []byte("result"))
	step := b.stageOut("out-0", "r")
	b.ask(step)
	b.awaitUpload(step)
	b.append(&contracts.Claimed{Node: b.node, Executor: "y"})
	b.drained()
	if b.sim.OpenUploads() != 0 || b.result(step) != nil {
		t.Errorf("%d uploads, %+v", b.sim.OpenUploads(), b.result(step))
	}
}

func TestRestartGoesOn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stop := b.serve()
	release := b.holdChunks()
	b.write("r", []byte("result"))
	step := b.stageOut("out-0", "r")
	b.ask(step)
	b.awaitUpload(step)
	stop()
	if b.result(step) != nil || b.sim.OpenUploads() != 1 {
		t.Fatalf("%+v, %d uploads", b.result(step), b.sim.OpenUploads())
	}
	release()
	b.serve()
	b.await(step)
	if n := b.asked("POST", "/file"); n != 1 || b.sim.OpenUploads() != 0 {
		t.Errorf("%d uploads were begun, %d are left", n, b.sim.OpenUploads())
	}
	if result := b.result(step); result.Outcome != contracts.StepDone || b.uploaded("r") != "result" || len(b.sim.Files(b.item.ID)) != 1 {
		t.Fatalf("%+v", result)
	}
	b.drained()
}

// TestUploadOfADeadProcessIsCanceled begins an upload of something else as a
// process did that had no time to end it.
func TestUploadOfADeadProcessIsCanceled(t *testing.T) {
	t.Parallel()
	for _, current := range []bool{true, false} {
		b := setup(t)
		c, err := girder.New(girder.Options{APIURL: b.sim.APIURL(), Token: b.token})
		if err != nil {
			t.Fatal(err)
		}
		up, err := c.StartUpload(t.Context(), girder.NewFile{Parent: girder.InItem(girder.ItemID(b.item.ID)), Name: "r", Size: 6})
		if err != nil {
			t.Fatal(err)
		}
		c.CloseIdle()
		step := b.stageOut("out-0", "r")
		b.note(step, stage.Note{Pending: &stage.Pending{Path: "r", ID: up.ID, Local: stage.Local{Size: 6}}})
		if !current {
			b.append(&contracts.Claimed{Node: b.node, Executor: "y"})
		}
		b.write("r", []byte("result"))
		b.ask(step)
		b.serve()
		b.drained()
		if b.sim.OpenUploads() != 0 || (b.uploaded("r") == "result") != current {
			t.Errorf("current %v: %d uploads, %q", current, b.sim.OpenUploads(), b.uploaded("r"))
		}
	}
}

func TestNATSRestartsDuringAStep(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.serve()
	release := b.holdChunks()
	b.write("r", []byte("result"))
	step := b.stageOut("out-0", "r")
	b.ask(step)
	b.awaitUpload(step)
	b.nats.Restart()
	release()
	b.drained()
	if result := b.result(step); result == nil || result.Outcome != contracts.StepDone || len(b.sim.Files(b.item.ID)) != 1 {
		t.Fatalf("%+v", result)
	}
}

func TestManyStepsAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.serve()
	id := b.file("in.tif", "pixels")
	names := []string{"in-0", "in-1", "in-2", "in-3", "in-4", "in-5", "in-6", "in-7", "in-8", "in-9"}
	for _, name := range names {
		b.ask(b.stageIn(name, id))
		b.ask(b.stageIn(name, id)) // twice, as an impatient executor does
	}
	b.drained()
	for _, name := range names {
		if result := b.result(b.stageIn(name, id)); result == nil || result.Outcome != contracts.StepDone {
			t.Errorf("%s: %+v", name, result)
		}
	}
}

func TestNotesAreFewAndTheLastAlwaysCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := meterOf()
		var report stage.Progress = m.progress
		for n := range int64(1000) {
			report("f", n, 1000)
			time.Sleep(time.Millisecond)
		}
		m.done(&contracts.StepResult{Outcome: contracts.StepDone, Bytes: 1000})
		if sent := m.all(); len(sent) != 3 || sent[0].Bytes != 0 || sent[1].Bytes != 500 || !sent[2].Done || sent[2].Bytes != 1000 || sent[2].What != "f" {
			t.Errorf("%+v", sent)
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	good := Config{WorkRoot: "/w", Concurrency: 1, GirderConnections: 1, GirderPatience: time.Second, GirderAPIURL: "http://girder:8080/api/v1"}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	err := Config{WorkRoot: "w", GirderAPIURL: "girder"}.Validate()
	for _, option := range []string{"work-root", "concurrency", "girder-patience", "girder-api-url"} {
		if err == nil || !strings.Contains(err.Error(), option) {
			t.Errorf("%s is not mentioned: %v", option, err)
		}
	}
}
