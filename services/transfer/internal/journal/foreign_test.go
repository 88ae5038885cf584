package journal

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/transfer/internal/stage"
)

// begun begins and leaves an entry for an installation, none where it is empty.
func begun(t *testing.T, root, installation string, step *contracts.Step, note stage.Note) {
	t.Helper()
	j := open(t, root)
	j.Own(installation)
	entry, err := j.Begin(step)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(entry.Remember(note), entry.Close(), j.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestAnotherInstallationsStepsAreNotOurs, and those are ours that do not say whose
// they are.
func TestAnotherInstallationsStepsAreNotOurs(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	begun(t, root, "a", stepOf("out-a"), stage.Note{Pending: &stage.Pending{Path: "p", ID: "u"}})
	begun(t, root, "", stepOf("out-old"), stage.Note{})
	path := filepath.Join(root, dir, stepsDir, nameOf(stepOf("out-a")))
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	j := open(t, root)
	if n := len(steps(t, j)); n != 2 {
		t.Errorf("%d steps before it is known whose they are", n)
	}
	j.Own("b")
	if diff := cmp.Diff([]*contracts.Step{stepOf("out-old")}, steps(t, j)); diff != "" {
		t.Error(diff)
	}
	others, err := j.Foreign()
	if diff := cmp.Diff([]*Foreign{{stepOf("out-a"), "a", path}}, others); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if entry, err := j.Find(stepOf("out-a")); entry != nil || err != nil {
		t.Errorf("%+v, %v", entry, err)
	}
	var foreign *Foreign
	if _, err := j.Begin(stepOf("out-a")); !errors.As(err, &foreign) || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
	if err := errors.Join(j.Check(stepOf("out-old")), j.Check(stepOf("absent"))); err != nil {
		t.Error(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(text) {
		t.Errorf("%s, %v", after, err)
	}
	j = open(t, root)
	j.Own("a")
	if entry := begin(t, j, "out-a"); entry.Memory.Pending["p"].ID != "u" {
		t.Errorf("%+v", entry.Memory)
	} else if err := entry.Close(); err != nil {
		t.Error(err)
	}
}

// TestAnotherInstallationsAttemptsAreNotEarlierOnes of a job of the same id.
func TestAnotherInstallationsAttemptsAreNotEarlierOnes(t *testing.T) {
	t.Parallel()
	for _, left := range []bool{true, false} {
		root := t.TempDir()
		begun(t, root, "a", attemptStep("j", 1, "out-0"), stage.Note{Sent: &stage.Sent{Path: "p"}})
		known := func(installation string) int {
			t.Helper()
			j := open(t, root)
			defer j.Close() //nolint:errcheck // only looks
			j.Own(installation)
			found, err := j.Earlier(attemptStep("j", 2, "out-0"))
			if err != nil {
				t.Fatal(err)
			}
			return len(found)
		}
		if left {
			j := open(t, root)
			entry, err := j.Begin(attemptStep("j", 1, "out-0"))
			if err := errors.Join(err, j.Leave(entry), j.Close()); err != nil {
				t.Fatal(err)
			}
		}
		if ours, others := known("a"), known("b"); ours != 1 || others != 0 {
			t.Errorf("left %v: %d are known to its own, %d to another", left, ours, others)
		}
	}
}
