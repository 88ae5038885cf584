package journal

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/leaktest"
	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/transfer/internal/stage"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func open(t *testing.T, workRoot string) *Journal {
	t.Helper()
	j, err := Open(t.Context(), workRoot, func() { t.Error("has to wait") })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() }) // again is an error
	return j
}

func stepOf(name string) *contracts.Step {
	return &contracts.Step{Version: 1, Job: "job", Attempt: 1, Step: name, Kind: contracts.StepStageOut, Folder: "attempts/job.1"}
}

func begin(t *testing.T, j *Journal, name string) *Entry {
	t.Helper()
	entry, err := j.Begin(stepOf(name))
	if err != nil {
		t.Fatal(err)
	}
	return entry
}

func steps(t *testing.T, j *Journal) []*contracts.Step {
	t.Helper()
	found, err := j.Steps()
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestTheNextProcessKnowsAll(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	j := open(t, root)
	entry := begin(t, j, "out-0")
	var want stage.Memory
	for _, note := range []stage.Note{
		{Pending: &stage.Pending{Path: "a", ID: "u1", OldID: "f1", OldCreated: "then"}},
		{Sent: &stage.Sent{Path: "a", Local: stage.Local{Size: 3, ModTime: 4, Inode: 5}, File: contracts.GirderSent{Name: "a", FileID: "f1"}}},
		{Pending: &stage.Pending{Path: "b", ID: "u2"}},
		{Target: &stage.Target{Path: "out/\xff\"", ID: "d1"}},
		{Sent: &stage.Sent{Path: "out/\xff\"/\xfe", File: contracts.GirderSent{Name: "\uFFFD", FileID: "f2"}}},
		{Begun: &stage.Begun{Path: "out/\xff\"/\xfe\xff", OldID: "f3"}},
		{Pending: &stage.Pending{Path: "out/\xff\"/\xff", ID: "u3"}},
		{Partial: &stage.Partial{Path: "in/\xff", Temporary: "in/\xff.t"}},
		{Partial: &stage.Partial{Path: "c", Temporary: "t", Whole: &stage.Local{Size: 1}}},
	} {
		if err := entry.Remember(note); err != nil {
			t.Fatal(err)
		}
		want.Add(note)
	}
	if err := errors.Join(entry.Close(), j.Close()); err != nil {
		t.Fatal(err)
	}
	j = open(t, root)
	if diff := cmp.Diff([]*contracts.Step{stepOf("out-0")}, steps(t, j)); diff != "" {
		t.Error(diff)
	}
	entry = begin(t, j, "out-0")
	if diff := cmp.Diff(want, entry.Memory); diff != "" || entry.Began.IsZero() {
		t.Error(diff)
	}
	if err := entry.End(); err != nil {
		t.Fatal(err)
	}
	if entry, err := j.Find(stepOf("out-0")); entry != nil || err != nil || len(steps(t, j)) != 0 {
		t.Error(entry, err)
	}
}

func TestDrop(t *testing.T) {
	t.Parallel()
	j := open(t, t.TempDir())
	if err := errors.Join(begin(t, j, "in-0").Close(), begin(t, j, "in-1").Close()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := j.Drop(stepOf("in-0")); err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff([]*contracts.Step{stepOf("in-1")}, steps(t, j)); diff != "" {
		t.Error(diff)
	}
}

// TestALineThatWasCutShortDoesNotCount cuts the file after each byte.
func TestALineThatWasCutShortDoesNotCount(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	j := open(t, root)
	entry := begin(t, j, "out-0")
	for _, id := range []string{"u1", "u2"} {
		if err := entry.Remember(stage.Note{Pending: &stage.Pending{Path: "a", ID: girder.UploadID(id)}}); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(root, dir, stepsDir, nameOf(entry.Step))
	whole, err := os.ReadFile(path)
	if err := errors.Join(err, entry.Close()); err != nil {
		t.Fatal(err)
	}
	for length := range whole {
		if err := os.WriteFile(path, whole[:length], 0o600); err != nil {
			t.Fatal(err)
		}
		begun := len(steps(t, j)) == 1
		entry := begin(t, j, "out-0")
		if !begun && len(entry.Memory.Pending) != 0 {
			t.Errorf("%d bytes: %+v of a step that did not begin", length, entry.Memory)
		}
		if err := entry.Remember(stage.Note{Sent: &stage.Sent{Path: "later"}}); err != nil {
			t.Fatal(err)
		}
		if err := entry.Close(); err != nil {
			t.Fatal(err)
		}
		again := begin(t, j, "out-0")
		if _, ok := again.Memory.Sent["later"]; !ok {
			t.Errorf("%d bytes: what came after is lost: %+v", length, again.Memory)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatNeverBeganIsDropped(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	j := open(t, root)
	if err := errors.Join(begin(t, j, "in-0").Close(), j.Close()); err != nil {
		t.Fatal(err)
	}
	torn := filepath.Join(root, dir, stepsDir, "job.1.in-1")
	if err := os.WriteFile(torn, []byte(`{"version":1,"jo`), 0o600); err != nil {
		t.Fatal(err)
	}
	if found := steps(t, open(t, root)); len(found) != 1 || found[0].Step != "in-0" {
		t.Errorf("%+v", found)
	}
	if _, err := os.Stat(torn); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestOneProcessAtATime(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	first := open(t, root)
	waits := make(chan struct{})
	opened := make(chan *Journal)
	go func() {
		j, err := Open(t.Context(), root, func() { close(waits) })
		if err != nil {
			t.Error(err)
		}
		opened <- j
	}()
	<-waits
	select {
	case <-opened:
		t.Fatal("two have it")
	default:
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := <-opened
	why := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	if _, err := Open(ctx, root, func() { cancel(why) }); !errors.Is(err, why) {
		t.Error(err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}

// TestSpooledIsRemembered beside what an upload notes.
func TestSpooledIsRemembered(t *testing.T) {
	t.Parallel()
	j := open(t, t.TempDir())
	step := &contracts.Step{Job: "j", Attempt: 1, Step: "stream-0", Kind: contracts.StepStream, Stream: &contracts.Route{Field: "docker.args[0]"}}
	entry, err := j.Begin(step)
	if err != nil || entry.Spooled {
		t.Fatal(entry, err)
	}
	err = errors.Join(entry.RememberSpooled(), entry.Remember(stage.Note{Pending: &stage.Pending{ID: "u"}}), entry.Close())
	if err != nil || !entry.Spooled {
		t.Fatal(entry, err)
	}
	again, err := j.Find(step)
	if err != nil || again == nil || !again.Spooled || again.Memory.Pending[""].ID != "u" || again.Step.Stream.Field != "docker.args[0]" {
		t.Fatalf("%+v %v", again, err)
	}
	if err := again.End(); err != nil {
		t.Error(err)
	}
}
