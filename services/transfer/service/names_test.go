package service

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// TestNamesThatAreNoUTF8 come to Girder, or are told of, and every step ends.
func TestNamesThatAreNoUTF8(t *testing.T) {
	t.Parallel()
	b := setupWith(t, girdersim.Options{Artifacts: true})
	for path, content := range map[string]string{"out/\xff\xfe": "x", "out/\xfe": "yy", "out/ok": "z", "debug/\xff": "1", "debug/\xfe": "2"} {
		b.onVolume(path, content)
	}
	if err := os.Symlink("ok", filepath.Join(b.volume, "out/link\xff")); err != nil {
		t.Fatal(err)
	}
	folder, job := b.girderFolder("results"), b.withGirderJob()
	b.serve()
	want := map[string]string{"ok": "z", "\uFFFD": "yy", "\uFFFD (1)": "x"}
	tree := b.do(b.pushFolder("out-0", "out", folder.ID))
	if tree.Outcome != contracts.StepDone || len(tree.Files) != 3 || len(tree.Warnings) != 1 || !strings.Contains(tree.Warnings[0], "out/link\uFFFD was not") {
		t.Errorf("%+v", tree)
	}
	if diff := cmp.Diff(want, b.inGirder(folder.ID)); diff != "" {
		t.Error(diff)
	}
	if flat := b.do(b.stageOut("out-1", "out")); flat.Outcome != contracts.StepDone || len(flat.Files) != 3 {
		t.Errorf("%+v", flat)
	}
	for name, content := range want {
		if got := b.uploaded(name); got != content {
			t.Errorf("%q in the item is %q", name, got)
		}
	}
	if result := b.do(b.artifact("out-2", "debug")); result.Outcome != contracts.StepDone || len(result.Files) != 2 || result.Warnings != nil {
		t.Errorf("%+v", result)
	}
	var names []string
	for _, file := range b.sim.Artifacts(job.ID) {
		names = append(names, file.Name)
	}
	if diff := cmp.Diff([]string{"\uFFFD", "\uFFFD (1)"}, names); diff != "" {
		t.Error(diff)
	}
	// An error that names such a file.
	if err := os.Mkdir(filepath.Join(b.volume, "locked"), 0o777); err != nil {
		t.Fatal(err)
	}
	b.onVolume("locked/\xff", "x")
	b.sim.SetFault(func(r *http.Request) *girdersim.Fault {
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/file") {
			return &girdersim.Fault{Status: http.StatusForbidden}
		}
		return nil
	})
	failed := b.do(b.pushFolder("out-3", "locked", folder.ID))
	if failed.Outcome != contracts.StepFailure || !strings.Contains(failed.Message, "locked/\uFFFD: ") {
		t.Errorf("%+v", failed)
	}
	b.drained()
	if n := b.sim.OpenUploads(); n != 0 {
		t.Errorf("%d uploads are left", n)
	}
}

// TestAResultIsWrittenWhateverIsInIt: a step whose result is not there is asked
// for again and again.
func TestAResultIsWrittenWhateverIsInIt(t *testing.T) {
	t.Parallel()
	step := &contracts.Step{Step: "out-0", Folder: "a"}
	work := t.TempDir()
	if err := os.Mkdir(filepath.Join(work, "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	folder, err := openFolder(work, step, "")
	if err != nil {
		t.Fatal(err)
	}
	defer folder.close()
	now := time.Now().UTC()
	odd := &contracts.StepResult{
		Version: 1, Step: "out-0", Outcome: contracts.StepFailure, Message: "a\xff: no", Path: "p\xff", Warnings: []string{"w\xff"},
		Files: []contracts.GirderSent{{Name: "f\xff", FileID: "1"}}, Ended: now,
	}
	if err := folder.setResult(odd); err != nil {
		t.Fatal(err)
	}
	want := &contracts.StepResult{
		Version: 1, Step: "out-0", Outcome: contracts.StepFailure, Message: "a\uFFFD: no", Path: "p\uFFFD", Warnings: []string{"w\uFFFD"},
		Files: []contracts.GirderSent{{Name: "f\uFFFD", FileID: "1"}}, Ended: now,
	}
	got, err := folder.result()
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	for _, outcome := range []contracts.StepOutcome{contracts.StepDone, contracts.StepInfrastructure} {
		odd.Outcome, odd.Ended = outcome, time.Date(12345, 1, 1, 0, 0, 0, 0, time.UTC) // which JSON cannot have
		if err := folder.setResult(odd); err != nil {
			t.Fatal(err)
		}
		got, err := folder.result()
		if err != nil || got.Outcome != outcome || got.Step != "out-0" || !utf8.ValidString(got.Message) || got.Ended.Before(now) {
			t.Errorf("%+v, %v", got, err)
		}
		if outcome != contracts.StepDone && !strings.Contains(got.Message, "cannot be written") {
			t.Errorf("%q", got.Message)
		}
	}
}
