package stage

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/services/internal/girder"
)

// life is a process: it may die at its nth event, which is a request before
// Girder has it, or its answer.
type life struct {
	context.Context
	dies   context.CancelCauseFunc
	events int
}

func newLife(t *testing.T, events int) *life {
	ctx, cancel := context.WithCancelCause(t.Context())
	return &life{Context: ctx, dies: cancel, events: events}
}

func (l *life) hook(string) error {
	if l.events--; l.events >= 0 {
		return nil
	}
	l.dies(ErrSuspended)
	return errCut
}

// keeper is what is on disk: a later process knows what it reads there.
type keeper struct{ Memory }

func (k *keeper) remember(n Note) error {
	line, err := json.Marshal(n)
	if err != nil {
		return err
	}
	var read Note
	if err := json.Unmarshal(line, &read); err != nil {
		return err
	}
	k.Add(read)
	return nil
}

// TestStageOutOnceWhereverItDies lets the process die at each event in turn,
// and the next one go on: the item has the files once, with the right bytes, no
// byte that Girder has is sent again, and no upload is left.
func TestStageOutOnceWhereverItDies(t *testing.T) {
	t.Parallel()
	for _, content := range []string{"0123456789", ""} {
		for _, replace := range []bool{false, true} {
			for events := 0; ; events++ {
				if !dieAndGoOn(t, content, replace, events) {
					break
				}
			}
		}
	}
}

func dieAndGoOn(t *testing.T, content string, replace bool, events int) (died bool) {
	t.Helper()
	f, volume := newFake(), t.TempDir()
	if replace {
		write(t, volume, "out/a", strings.Repeat("x", len(content))) // of the same size
		if _, err := outOf(f, volume, "out").Run(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{"a": content, "b": "bbbbb"}
	for name, content := range want {
		write(t, volume, "out/"+name, content)
	}
	name := fmt.Sprintf("%d bytes, replace %v, %d events", len(content), replace, events)
	var disk keeper
	run := newLife(t, events)
	f.asked, f.hook = nil, run.hook
	o := outOf(f, volume, "out")
	o.Remember = disk.remember
	_, err := o.Run(run)
	if died = err != nil; died {
		o.Memory, f.hook = disk.Memory, nil
		sent, err := o.Run(t.Context())
		if err != nil || len(sent) != 2 || sent[0].Size != int64(len(content)) {
			t.Errorf("%s: %+v, %v", name, sent, err)
		}
		for i, file := range sent {
			sum := sha512.Sum512([]byte(want[file.Name]))
			if file.SHA512 != hex.EncodeToString(sum[:]) || file.FileID != string(f.item[i].doc.ID) {
				t.Errorf("%s: %+v", name, file)
			}
		}
	}
	if diff := cmp.Diff(want, f.contents()); diff != "" || len(f.item) != 2 {
		t.Errorf("%s: %d files:\n%s", name, len(f.item), diff)
	}
	// Only the answer to the first request tells an upload's id. What it lets
	// remain has no bytes.
	for id, left := range f.uploads {
		if asked := f.asked[(events+1)/2-min(1, events%2)]; left.data.Len() != 0 || asked != "start" && asked != "replace" {
			t.Errorf("%s: upload %s is left by %s", name, id, asked)
		}
	}
	for _, chunk := range []string{"chunk 0", "chunk 4", "chunk 8"} {
		if n := f.count(chunk); n > 3 {
			t.Errorf("%s: %s was sent %d times", name, chunk, n)
		}
	}
	return died
}

func TestAnUploadThatGirderHasIsFoundByALaterProcess(t *testing.T) {
	t.Parallel()
	f, volume := newFake(), t.TempDir()
	write(t, volume, "r", "0123456789")
	var disk keeper
	run := newLife(t, 9) // list, start, three chunks: all but the last answer
	f.hook = run.hook
	o := outOf(f, volume, "r")
	o.Remember = disk.remember
	if _, err := o.Run(run); err == nil || len(f.item) != 1 || disk.Pending == nil {
		t.Fatal(err, f.asked)
	}
	f.asked, f.hook, o.Memory = nil, nil, disk.Memory
	if _, err := o.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"offset", "list"}, f.asked); diff != "" {
		t.Error(diff)
	}
}

func TestAnUploadOfOtherContentIsCanceledByALaterProcess(t *testing.T) {
	t.Parallel()
	f, volume := newFake(), t.TempDir()
	write(t, volume, "r", "0123456789")
	var disk keeper
	run := newLife(t, 6)
	f.hook = run.hook
	o := outOf(f, volume, "r")
	o.Remember = disk.remember
	if _, err := o.Run(run); err == nil || len(f.uploads) != 1 {
		t.Fatal(err, f.asked)
	}
	write(t, volume, "r", "other")
	f.hook, o.Memory = nil, disk.Memory
	if _, err := o.Run(t.Context()); err != nil || len(f.uploads) != 0 {
		t.Fatal(err, f.uploads)
	}
	if diff := cmp.Diff(map[string]string{"r": "other"}, f.contents()); diff != "" {
		t.Error(diff)
	}
}

// TestOtherBytesInGirderAreReplaced: what Girder has in the end is compared.
func TestOtherBytesInGirderAreReplaced(t *testing.T) {
	t.Parallel()
	for times, want := range map[int]error{1: nil, 5: ErrOtherBytes} {
		f, volume := newFake(), t.TempDir()
		f.spoil = times
		write(t, volume, "r", "0123456789")
		_, err := outOf(f, volume, "r").Run(t.Context())
		if fmt.Sprint(err) != fmt.Sprint(want) && want == nil || want != nil && (err == nil || IsFailure(err)) || len(f.item) != 1 {
			t.Errorf("spoiled %d times: %v", times, err)
		}
		if want == nil && f.contents()["r"] != "0123456789" {
			t.Error(f.contents())
		}
	}
}

func TestStageInGoesOnWhereverItDies(t *testing.T) {
	t.Parallel()
	data := bytes.Repeat([]byte("0123456789"), 10)
	for _, summed := range []bool{false, true} {
		for events := 0; ; events++ {
			f, volume := newFake(), t.TempDir()
			f.offers("n", data)
			f.pieces = 30
			if summed {
				sum := sha512.Sum512(data)
				f.doc.SHA512 = hex.EncodeToString(sum[:])
			}
			var disk keeper
			run := newLife(t, events)
			f.hook = run.hook
			in := In{Source: f, File: "f1", Volume: volume, Filename: "in/n", Retry: quick, Remember: disk.remember}
			_, err := in.Run(run)
			if err == nil {
				break
			}
			f.hook, in.Memory = nil, disk.Memory
			staged, err := in.Run(t.Context())
			if err != nil || staged.Path != "in/n" || staged.Bytes != 100 {
				t.Errorf("%d: %+v, %v", events, staged, err)
			}
			if diff := cmp.Diff(map[string]string{"in/n": string(data)}, files(t, volume)); diff != "" {
				t.Errorf("%d:\n%s", events, diff)
			}
			for offset := 0; offset < 100; offset += 30 {
				if n := f.count(fmt.Sprint("download ", offset)); n > 2 || n == 2 && events/2 != 1+offset/30 {
					t.Errorf("%d: downloaded %d times from %d", events, n, offset)
				}
			}
		}
	}
}

// TestStageInOfWhatIsThere lets the process die between the file's name and
// the end of the step.
func TestStageInOfWhatIsThere(t *testing.T) {
	t.Parallel()
	f, volume := newFake(), t.TempDir()
	f.offers("n", []byte("content"))
	var disk keeper
	in := In{Source: f, File: "f1", Volume: volume, Filename: "n", Retry: quick, Remember: disk.remember}
	for range 2 {
		if staged, err := in.Run(t.Context()); err != nil || staged != (Staged{Path: "n", Bytes: 7}) {
			t.Fatal(staged, err)
		}
		in.Memory = disk.Memory
	}
	if n := f.count("download 0"); n != 1 {
		t.Errorf("downloaded %d times", n)
	}
	write(t, volume, "n", "changed")
	if _, err := in.Run(t.Context()); err != nil || files(t, volume)["n"] != "content" {
		t.Error(err, files(t, volume))
	}
}

// TestAPartOfAnotherStateIsOfNoUse changes the file in Girder, or what is on
// disk, before the next process goes on.
func TestAPartOfAnotherStateIsOfNoUse(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*fakeGirder, *Partial){
		"file":   func(f *fakeGirder, _ *Partial) { f.doc.Updated = "later" },
		"reboot": func(_ *fakeGirder, p *Partial) { p.Boot = "another" },
		"path":   func(_ *fakeGirder, p *Partial) { p.Path = "other" },
	} {
		f, volume := newFake(), t.TempDir()
		f.offers("n", []byte("content"))
		var disk keeper
		f.pieces = 3
		run := newLife(t, 4)
		f.hook = run.hook
		in := In{Source: f, File: "f1", Volume: volume, Filename: "n", Retry: quick, Remember: disk.remember}
		if _, err := in.Run(run); err == nil || len(files(t, volume)) != 1 {
			t.Fatal(err)
		}
		partial := disk.Partials["n"]
		change(f, &partial)
		delete(disk.Partials, "n")
		disk.Partials[partial.Path] = partial
		f.hook, f.asked, in.Memory = nil, nil, disk.Memory
		if _, err := in.Run(t.Context()); err != nil || f.count("download 0") != 1 {
			t.Errorf("%s: %v after %v", name, err, f.asked)
		}
		if diff := cmp.Diff(map[string]string{"n": "content"}, files(t, volume)); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

func TestDiscard(t *testing.T) {
	t.Parallel()
	volume := t.TempDir()
	write(t, volume, ".gantry-x", "part")
	memory := Memory{Partials: map[NotedPath]Partial{"n": {Path: "n", Temporary: ".gantry-x"}}}
	for range 2 {
		if err := Discard(volume, memory); err != nil || len(files(t, volume)) != 0 {
			t.Error(err, files(t, volume))
		}
	}
	if err := Discard(filepath.Join(volume, "gone"), memory); err != nil {
		t.Error(err)
	}
	outside := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	memory.Partials["n"] = Partial{Path: "n", Temporary: NotedPath("../" + filepath.Base(filepath.Dir(outside)) + "/precious")}
	if err := Discard(volume, memory); err == nil {
		t.Error("left its volume")
	}
	if _, err := os.Stat(outside); err != nil {
		t.Error(err)
	}
}

func TestMemoryForgets(t *testing.T) {
	t.Parallel()
	var m Memory
	m.Add(Note{Pending: &Pending{Path: "a", ID: "u1"}})
	m.Add(Note{Canceled: "u0"})
	if m.Pending == nil {
		t.Error("another upload was canceled")
	}
	m.Add(Note{Canceled: "u1"})
	if m.Pending != nil {
		t.Error("a canceled upload is remembered")
	}
	m.Add(Note{Pending: &Pending{Path: "a", ID: girder.UploadID("u2")}})
	m.Add(Note{Sent: &Sent{Path: "a"}})
	if m.Pending != nil || len(m.Sent) != 1 {
		t.Errorf("%+v", m)
	}
}
