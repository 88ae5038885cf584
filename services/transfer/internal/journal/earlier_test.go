package journal

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/transfer/internal/stage"
)

func attemptStep(job contracts.JobID, attempt int, name string) *contracts.Step {
	return &contracts.Step{Version: 1, Job: job, Attempt: attempt, Step: name, Kind: contracts.StepStageOut, Folder: "attempts/a"}
}

// TestWhatWasLeftIsKnownThoughTheStepBeginsOnceMore, as it does when its message
// comes late.
func TestWhatWasLeftIsKnownThoughTheStepBeginsOnceMore(t *testing.T) {
	t.Parallel()
	j := open(t, t.TempDir())
	first, later := attemptStep("j", 1, "out-0"), attemptStep("j", 2, "out-0")
	note := func(note stage.Note) *Entry {
		t.Helper()
		entry, err := j.Begin(first)
		if err == nil {
			err = entry.Remember(note)
		}
		if err != nil {
			t.Fatal(err)
		}
		return entry
	}
	known := func() stage.Memory {
		t.Helper()
		found, err := j.Earlier(later)
		if err != nil || len(found) != 1 {
			t.Fatal(found, err)
		}
		return found[0]
	}
	if err := j.Leave(note(stage.Note{Pending: &stage.Pending{Path: "a", ID: "u"}})); err != nil {
		t.Fatal(err)
	}
	entry, err := j.Begin(first)
	if err := errors.Join(err, entry.Close()); err != nil {
		t.Fatal(err)
	}
	if m := known(); m.Pending["a"].ID != "u" {
		t.Errorf("%+v", m)
	}
	if err := note(stage.Note{Sent: &stage.Sent{Path: "b"}}).Close(); err != nil {
		t.Fatal(err)
	}
	if m := known(); m.Pending["a"].ID != "u" || len(m.Sent) != 1 {
		t.Errorf("%+v", m)
	}
}

// TestEarlierAttemptsAreRemembered: those that were left, those that are still
// in the journal, and no others.
func TestEarlierAttemptsAreRemembered(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	j, err := Open(t.Context(), root, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for path, step := range map[stage.NotedPath]*contracts.Step{
		"first": attemptStep("j", 1, "out-0"), "second": attemptStep("j", 2, "out-0"), "own": attemptStep("j", 3, "out-0"),
		"later": attemptStep("j", 4, "out-0"), "other step": attemptStep("j", 1, "out-1"), "other job": attemptStep("j2", 1, "out-0"),
		"odd": attemptStep("j", 1, "x.out-0"),
	} {
		entry, err := j.Begin(step)
		if err != nil {
			t.Fatal(err)
		}
		err = entry.Remember(stage.Note{Sent: &stage.Sent{Path: path}})
		if path == "first" || path == "later" {
			err = errors.Join(err, j.Leave(entry))
		} else {
			err = errors.Join(err, entry.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	step := attemptStep("j", 3, "out-0")
	found, err := j.Earlier(step)
	if err != nil || len(found) != 2 {
		t.Fatal(found, err)
	}
	for i, want := range []stage.NotedPath{"second", "first"} {
		if _, ok := found[i].Sent[want]; !ok || len(found[i].Sent) != 1 {
			t.Errorf("%d is %+v", i, found[i])
		}
	}
	if entry, err := j.Find(attemptStep("j", 1, "out-0")); entry != nil || err != nil {
		t.Error("an entry that was left is still begun", err)
	}
	// What is old goes with the next one that is left.
	old := time.Now().Add(-2 * earlierFor)
	if err := os.Chtimes(filepath.Join(root, dir, earlierDir, "j.1.out-0"), old, old); err != nil {
		t.Fatal(err)
	}
	entry, err := j.Find(attemptStep("j", 2, "out-0"))
	if err == nil {
		err = j.Leave(entry)
	}
	if err != nil {
		t.Fatal(err)
	}
	if found, err = j.Earlier(step); err != nil || len(found) != 1 {
		t.Error(found, err)
	}
}
