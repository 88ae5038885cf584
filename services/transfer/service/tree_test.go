package service

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// girderFolder makes a folder beside the item.
func (b *bench) girderFolder(name string) girdersim.Folder {
	b.t.Helper()
	folder, err := b.sim.CreateFolder(b.item.FolderID, name, false)
	if err != nil {
		b.t.Fatal(err)
	}
	return folder
}

// addItem makes an item of one file of its name.
func (b *bench) addItem(folder, name, content string) {
	b.t.Helper()
	item, err := b.sim.CreateItem(folder, name)
	if err == nil {
		_, err = b.sim.AddFile(item.ID, name, strings.NewReader(content))
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// inGirder lists what is below a folder: files by the path of their item, with
// their content, and folders with a slash.
func (b *bench) inGirder(id string) map[string]string {
	b.t.Helper()
	found := map[string]string{}
	for _, item := range b.sim.Items(id) {
		for _, file := range b.sim.Files(item.ID) {
			data, err := b.sim.ReadFile(file.ID)
			if err != nil {
				b.t.Fatal(err)
			}
			found[item.Name] += string(data)
		}
	}
	for _, folder := range b.sim.Folders(id) {
		found[folder.Name+"/"] = ""
		for path, content := range b.inGirder(folder.ID) {
			found[folder.Name+"/"+path] = content
		}
	}
	return found
}

func (b *bench) stageFolder(name, id string) *contracts.Step {
	step := b.stageIn(name, "")
	step.Filename, step.FolderID = "", id
	return step
}

func (b *bench) pushFolder(name, path, id string) *contracts.Step {
	step := b.stageOut(name, path)
	step.ItemID, step.FolderID = "", id
	return step
}

func (b *bench) onVolume(path, content string) {
	b.t.Helper()
	if err := os.MkdirAll(filepath.Dir(filepath.Join(b.volume, path)), 0o777); err != nil {
		b.t.Fatal(err)
	}
	b.write(path, []byte(content))
}

func crashingFolderIn(b *bench) *scenario {
	folder := b.girderFolder("inputs")
	sub, err := b.sim.CreateFolder(folder.ID, "sub", false)
	if err != nil {
		b.t.Fatal(err)
	}
	b.addItem(folder.ID, "a", string(crashed))
	b.addItem(sub.ID, "b", string(crashed))
	return &scenario{bench: b, step: b.stageFolder("in-0", folder.ID), check: func() {
		want := map[string]int{folder.ID + "/inputs/a": len(crashed), folder.ID + "/inputs/sub/b": len(crashed)}
		if diff := cmp.Diff(want, b.files(b.volume)); diff != "" {
			b.t.Error(diff)
		}
	}}
}

func crashingFolderOut(b *bench) *scenario {
	folder := b.girderFolder("results")
	b.addItem(folder.ID, "new", "of another job")
	outputs := func(b *bench, volume string) {
		b.t.Helper()
		for path, content := range map[string]string{"new": string(crashed), "sub/empty": "", "sub/new": "small"} {
			path = filepath.Join(volume, "out", path)
			if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
				b.t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				b.t.Fatal(err)
			}
		}
	}
	outputs(b, b.volume)
	return &scenario{bench: b, step: b.pushFolder("out-0", "out", folder.ID), outputs: outputs, uploads: 3, check: func() {
		want := map[string]string{"new": "of another job", "new (1)": string(crashed), "sub/": "", "sub/empty": "", "sub/new": "small"}
		if diff := cmp.Diff(want, b.inGirder(folder.ID)); diff != "" {
			b.t.Error(diff)
		}
	}}
}

// crashingOddOut has names that are no UTF-8, and become equal.
func crashingOddOut(b *bench) *scenario {
	folder := b.girderFolder("results")
	b.onVolume("out/\xfe", string(crashed))
	b.onVolume("out/\xff", "small")
	b.onVolume("out/sub\xff/empty\xff", "")
	return &scenario{bench: b, step: b.pushFolder("out-0", "out", folder.ID), uploads: 3, check: func() {
		want := map[string]string{"\uFFFD": string(crashed), "\uFFFD (1)": "small", "sub\uFFFD/": "", "sub\uFFFD/empty\uFFFD": ""}
		if diff := cmp.Diff(want, b.inGirder(folder.ID)); diff != "" {
			b.t.Error(diff)
		}
	}}
}

func crashingArtifact(b *bench) *scenario {
	b.write("debug.log", []byte("what happened"))
	gone := b.withGirderJob()
	step := b.stageOut("out-0", "debug.log")
	step.ItemID, step.Artifact, step.MustExist = "", true, false
	return &scenario{bench: b, step: step, check: func() {
		if found := b.sim.Artifacts(gone.ID); len(found) != 1 || found[0].Name != "debug.log" || found[0].Size != 13 {
			b.t.Errorf("attached: %+v", found)
		}
	}}
}

// withGirderJob makes the job's Girder job.
func (b *bench) withGirderJob() girdersim.Job {
	b.t.Helper()
	user, err := b.sim.FindUser("alice")
	if err != nil {
		b.t.Fatal(err)
	}
	made, err := b.sim.CreateJob(girdersim.JobSpec{Title: "t", UserID: user.ID})
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.bus.PutGirderJob(b.t.Context(), job, 0, contracts.GirderJobRef{ID: made.ID, URL: made.URL}); err != nil {
		b.t.Fatal(err)
	}
	return made
}

// TestKilledAmidAFolder kills the process at every fourth request to Girder.
func TestKilledAmidAFolder(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		of   func(*bench) *scenario
		then next
	}{
		"in, restart":        {crashingFolderIn, restart},
		"out, restart":       {crashingFolderOut, restart},
		"out, adopted":       {crashingFolderOut, adopted},
		"out, later attempt": {crashingFolderOut, laterAttempt},
		"artifact, restart":  {crashingArtifact, restart},
		"no UTF-8, restart":  {crashingOddOut, restart},
	} {
		for _, part := range []part{before, during, after} {
			t.Run(fmt.Sprintf("%s, part %d", name, part), func(t *testing.T) {
				t.Parallel()
				for n := int(part); killAt(t, test.of, test.then, &moment{part: part, left: n}, false); n += 4 {
				}
			})
		}
	}
}

func TestItemsAndFoldersAreStagedIn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	folder := b.girderFolder("inputs")
	b.addItem(folder.ID, "a.tif", "pixels")
	b.file("one", "1")
	b.file("two", "22")
	b.serve()
	item := b.stageIn("in-0", "")
	item.Filename, item.ItemID = "", b.item.ID
	result := b.do(item)
	if result.Outcome != contracts.StepDone || result.Path != b.item.ID+"/item" || result.Bytes != 3 {
		t.Errorf("%+v", result)
	}
	named := b.stageFolder("in-1", folder.ID)
	named.FolderName = "mine"
	if result := b.do(named); result.Outcome != contracts.StepDone || result.Path != folder.ID+"/mine" || result.Bytes != 6 {
		t.Errorf("%+v", result)
	}
	want := map[string]int{b.item.ID + "/item/one": 1, b.item.ID + "/item/two": 2, folder.ID + "/mine/a.tif": 6}
	if diff := cmp.Diff(want, b.files(b.volume)); diff != "" {
		t.Error(diff)
	}
	missing := b.stageFolder("in-2", "0123456789abcdef01234567")
	if result := b.do(missing); result.Outcome != contracts.StepFailure || !strings.Contains(result.Message, "0123456789abcdef01234567") {
		t.Errorf("%+v", result)
	}
	b.drained()
}

func TestAFolderIsPushedWithWarnings(t *testing.T) {
	t.Parallel()
	b := setup(t)
	folder := b.girderFolder("results")
	b.onVolume("out/a.csv", "a")
	b.onVolume("out/sub/b", "bb")
	for i := range mostWarnings + 5 {
		if err := os.Symlink("a.csv", filepath.Join(b.volume, fmt.Sprintf("out/link %02d", i))); err != nil {
			t.Fatal(err)
		}
	}
	b.serve()
	step := b.pushFolder("out-0", "out", folder.ID)
	step.DeleteFile, step.Reference = true, "of a listener"
	result := b.do(step)
	for _, r := range b.sim.Requests() {
		if r.Method == "POST" && strings.HasSuffix(r.Path, "/file") && !strings.Contains(r.Query, "reference=of+a+listener") {
			t.Error("without the reference:", r)
		}
	}
	if result.Outcome != contracts.StepDone || len(result.Files) != 2 || result.Bytes != 3 || len(result.Warnings) != mostWarnings+1 {
		t.Fatalf("%+v", result)
	}
	if first, last := result.Warnings[0], result.Warnings[mostWarnings]; !strings.Contains(first, "out/link 00") || !strings.Contains(last, "5 more") {
		t.Error(first, last)
	}
	if diff := cmp.Diff(map[string]string{"a.csv": "a", "sub/": "", "sub/b": "bb"}, b.inGirder(folder.ID)); diff != "" {
		t.Error(diff)
	}
	b.drained()
	if left := b.files(b.volume); len(left) != 0 {
		t.Errorf("left on the volume: %v", left)
	}
	// Delivered again, it is answered from its result.
	if again := b.do(step); !again.Ended.Equal(result.Ended) {
		t.Errorf("%+v", again)
	}
	missing := b.pushFolder("out-1", "none", folder.ID)
	missing.DeleteFile, missing.MustExist = true, false
	if result := b.do(missing); result.Outcome != contracts.StepDone || result.Files != nil {
		t.Errorf("%+v", result)
	}
	missing = b.pushFolder("out-2", "none", folder.ID)
	if result := b.do(missing); result.Outcome != contracts.StepFailure {
		t.Errorf("%+v", result)
	}
}

// TestALaterAttemptReplacesWhatTheLifeSays: its predecessor's notes are on another node.
func TestALaterAttemptReplacesWhatTheLifeSays(t *testing.T) {
	t.Parallel()
	b := setup(t)
	folder := b.girderFolder("results")
	b.onVolume("out/a.csv", "first")
	b.serve()
	step := b.pushFolder("out-3", "out", folder.ID)
	result := b.do(step)
	b.append(&contracts.Started{Container: "c"})
	b.append(&contracts.Pushing{})
	b.append(&contracts.Pushed{Index: 3, Files: result.Files})
	b.drained()
	if err := os.RemoveAll(filepath.Join(b.root, "transfer", "earlier")); err != nil {
		t.Fatal(err)
	}
	b.append(&contracts.Claimed{Node: b.node, Executor: "y"})
	later := *step
	later.Attempt, later.Folder = 2, "attempts/a2"
	if err := os.MkdirAll(filepath.Join(b.root, later.Folder), 0o777); err != nil {
		t.Fatal(err)
	}
	b.onVolume("out/a.csv", "second")
	again := b.do(&later)
	if again.Outcome != contracts.StepDone || again.Files[0].FileID != result.Files[0].FileID {
		t.Fatalf("%+v after %+v", again, result)
	}
	if diff := cmp.Diff(map[string]string{"a.csv": "second"}, b.inGirder(folder.ID)); diff != "" {
		t.Error(diff)
	}
}

func (b *bench) artifact(name, path string) *contracts.Step {
	step := b.stageOut(name, path)
	step.ItemID, step.Artifact = "", true
	return step
}

func TestArtifacts(t *testing.T) {
	t.Parallel()
	b := setupWith(t, girdersim.Options{Artifacts: true})
	b.onVolume("debug/a.log", "a")
	b.onVolume("debug/b.log", "b")
	b.onVolume("one", "1")
	b.serve()
	without := b.do(b.artifact("out-0", "one"))
	if without.Outcome != contracts.StepDone || len(without.Warnings) != 1 || !strings.Contains(without.Warnings[0], "no Girder job") {
		t.Errorf("%+v", without)
	}
	of := b.withGirderJob()
	if result := b.do(b.artifact("out-1", "debug")); result.Outcome != contracts.StepDone || len(result.Files) != 2 || result.Warnings != nil {
		t.Errorf("%+v", result)
	}
	named := b.artifact("out-2", "one")
	named.Name = "core.bin"
	if result := b.do(named); result.Outcome != contracts.StepDone || result.Files[0].Name != "core.bin" {
		t.Errorf("%+v", result)
	}
	asked := len(b.sim.Requests())
	if result := b.do(b.artifact("out-3", "none")); result.Outcome != contracts.StepDone || result.Warnings != nil || len(b.sim.Requests()) != asked {
		t.Errorf("%+v", result)
	}
	var names []string
	for _, file := range b.sim.Artifacts(of.ID) {
		names = append(names, file.Name)
	}
	if diff := cmp.Diff([]string{"a.log", "b.log", "core.bin"}, names); diff != "" {
		t.Error(diff)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(b.volume, "link")); err != nil {
		t.Fatal(err)
	}
	if result := b.do(b.artifact("out-4", "link")); result.Outcome != contracts.StepDone || len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], "symbolic link") {
		t.Errorf("%+v", result)
	}
	b.secret("a token that Girder does not know")
	if result := b.do(b.artifact("out-5", "one")); result.Outcome != contracts.StepDone || len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], "401") {
		t.Errorf("%+v", result)
	}
	b.drained()
}

// TestArtifactsOfAGirderWithoutThem are a warning, or go to the operator's folder.
func TestArtifactsOfAGirderWithoutThem(t *testing.T) {
	t.Parallel()
	for _, fallback := range []string{"", "usable", "0123456789abcdef01234567"} {
		b := setup(t)
		b.withGirderJob()
		b.onVolume("debug/a.log", "a")
		b.onVolume("debug/deeper/not.log", "no")
		folder := b.girderFolder("artifacts")
		cfg := b.config()
		if cfg.ArtifactFallbackFolder = fallback; fallback == "usable" {
			cfg.ArtifactFallbackFolder = folder.ID
		}
		stop := b.start(cfg, quick)
		result := b.do(b.artifact("out-0", "debug"))
		if result.Outcome != contracts.StepDone || len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], "artifact debug") {
			t.Errorf("%q: %+v", fallback, result)
		}
		want := map[string]string{}
		if fallback == "usable" {
			want = map[string]string{"job-1/": "", "job-1/a.log": "a"}
		}
		if diff := cmp.Diff(want, b.inGirder(folder.ID)); diff != "" {
			t.Errorf("%q:\n%s", fallback, diff)
		}
		stop()
	}
}

// TestALaterAttemptReplacesWhatAStreamUploaded: the container runs again, and
// so do its streams.
func TestALaterAttemptReplacesWhatAStreamUploaded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	folder := b.girderFolder("results")
	b.serve()
	var ids []string
	for i, content := range []string{"first", "the second"} {
		attempt := fmt.Sprintf("attempts/a%d", i+1)
		b.volume = filepath.Join(b.root, attempt, "volume")
		b.must(os.MkdirAll(b.volume, 0o777))
		if i > 0 {
			b.append(&contracts.Claimed{Node: b.node, Executor: "y"})
		}
		step := b.fromPipe("out", contracts.RouteEnd{FolderID: folder.ID, Name: "r.bin", Girder: b.access()})
		finish := b.stepFinish(nil)
		for _, s := range []*contracts.Step{step, finish} {
			s.Attempt, s.Folder = i+1, attempt
		}
		b.ready(step)
		b.must(b.container("printf '" + content + "' > out").wait())
		b.ask(finish)
		b.until("no result", func() bool { return b.result(step) != nil })
		result := b.result(step)
		if result.Outcome != contracts.StepDone || len(result.Files) != 1 {
			t.Fatalf("%+v", result)
		}
		ids = append(ids, result.Files[0].FileID)
	}
	if diff := cmp.Diff(map[string]string{"r.bin": "the second"}, b.inGirder(folder.ID)); diff != "" || ids[0] != ids[1] {
		t.Error(ids, diff)
	}
}
