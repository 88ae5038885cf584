package stage

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
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
type keeper struct {
	mu sync.Mutex
	Memory
}

func (k *keeper) remember(n Note) error {
	line, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return k.read(line)
}

// read takes in a line, as a later process does.
func (k *keeper) read(line []byte) error {
	var n Note
	if err := json.Unmarshal(line, &n); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.Add(n)
	return nil
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
	if _, err := o.Run(run); err == nil || len(f.item) != 1 || len(disk.Pending) == 0 {
		t.Fatal(err, f.asked)
	}
	f.asked, f.hook, o.Memory = nil, nil, disk.Memory
	if _, err := o.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"list", "offset", "list"}, f.asked); diff != "" {
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

// TestOtherBytesAreReplacedByALaterProcess, or by another attempt, where the
// first dies before it has done so.
func TestOtherBytesAreReplacedByALaterProcess(t *testing.T) {
	t.Parallel()
	for _, attempt := range []bool{false, true} {
		f, volume := newFake(), t.TempDir()
		id := f.shelve("", "results")
		f.spoil = 1
		write(t, volume, "r", "0123456789")
		ctx, dies := context.WithCancelCause(t.Context())
		f.hook = func(asked string) error {
			if asked != "get" { // it looks for the file that it is going to replace
				return nil
			}
			dies(ErrSuspended)
			return errCut
		}
		var disk keeper
		o := toFolder(f, id, volume, "r")
		o.Remember = disk.remember
		if _, err := o.Run(ctx); !errors.Is(err, ErrSuspended) || f.shelvedIn(id)["r"] == "0123456789" {
			t.Fatal(err, f.shelvedIn(id))
		}
		f.hook, o.Memory, o.Remember = nil, disk.Memory, nil
		if attempt {
			o.Memory = Memory{Earlier: []Memory{disk.Memory}}
		}
		if _, err := o.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]string{"r": "0123456789"}, f.shelvedIn(id)); diff != "" {
			t.Errorf("attempt %v:\n%s", attempt, diff)
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
	for i := range 2 {
		if staged, err := in.Run(t.Context()); err != nil || staged != (Staged{Path: "n", Bytes: 7, Found: 7 * int64(i)}) {
			t.Fatal(staged, err)
		}
		in.Memory = disk.Memory
	}
	if n := f.count("download 0"); n != 1 {
		t.Errorf("downloaded %d times", n)
	}
	write(t, volume, "n", "changed by somebody") // of another size: the time may be too coarse to tell
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
	if len(m.Pending) == 0 {
		t.Error("another upload was canceled")
	}
	m.Add(Note{Canceled: "u1"})
	if len(m.Pending) != 0 {
		t.Error("a canceled upload is remembered")
	}
	m.Add(Note{Pending: &Pending{Path: "a", ID: girder.UploadID("u2")}})
	m.Add(Note{Sent: &Sent{Path: "a"}})
	if len(m.Pending) != 0 || len(m.Sent) != 1 {
		t.Errorf("%+v", m)
	}
}
