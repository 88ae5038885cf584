package stage

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/girder"
)

// scene is something to put into Girder, beside what is there.
type scene struct {
	out   func(f *fakeGirder, volume string) Out
	files map[string]string // on the volume, below out
	order []string          // of the results: folders before files, each by name
	// want is what Girder has in the end, by the names of its items.
	want map[string]string
	// later is what changes on the volume for another attempt, and wantLater
	// what it makes of want.
	later, wantLater map[string]string
	has              func(f *fakeGirder) map[string]string
}

var scenes = map[string]scene{
	"new in an item": {
		out:   func(f *fakeGirder, volume string) Out { return outOf(f, volume, "out") },
		files: map[string]string{"a": "0123456789", "b": "bbbbb", "c": "", "d": "ddd"},
		order: []string{"a", "b", "c", "d"},
		want:  map[string]string{"a": "0123456789", "b": "bbbbb", "c": "", "d": "ddd"},
		later: map[string]string{"b": "other"}, wantLater: map[string]string{"b": "other"},
		has: (*fakeGirder).contents,
	},
	"replaced in an item": {
		out: func(f *fakeGirder, volume string) Out {
			for i, name := range []string{"a", "c", "z"} {
				id := girder.FileID(fmt.Sprint("old", i))
				f.item = append(f.item, &fakeFile{doc: girder.File{ID: id, ItemID: "item", Name: name, Size: size(10), Created: "then"}, data: []byte("xxxxxxxxxx")})
			}
			return outOf(f, volume, "out")
		},
		files: map[string]string{"a": "0123456789", "b": "bbbbb", "c": ""},
		order: []string{"a", "b", "c"},
		want:  map[string]string{"a": "0123456789", "b": "bbbbb", "c": "", "z": "xxxxxxxxxx"},
		later: map[string]string{"a": "9876543210"}, wantLater: map[string]string{"a": "9876543210"},
		has: (*fakeGirder).contents,
	},
	// Girder takes two of the folders for one, where two files are alike.
	"a tree": {
		out: func(f *fakeGirder, volume string) Out {
			id := f.shelve("", "results")
			f.put(id, &fakeFile{doc: girder.File{ID: "old", Name: "a.csv", Size: size(10)}, data: []byte("not of ours")})
			return toFolder(f, id, volume, "out")
		},
		files: map[string]string{"a.csv": "0123456789", "empty": "", "b": "bbb", "sub/c": "alike", "sub /c": "alike", "sub/deep er/ü": "d"},
		order: []string{"sub/deep er/ü", "sub/c", "sub /c", "a.csv", "b", "empty"},
		want: map[string]string{
			"a.csv": "not of ours", "a.csv (1)": "0123456789", "empty": "", "b": "bbb", "sub/": "", "sub/c": "alike", "sub/c (1)": "alike",
			"sub/deep er/": "", "sub/deep er/ü": "d",
		},
		later: map[string]string{"a.csv": "of the second attempt", "b": "BBB"}, wantLater: map[string]string{"a.csv (1)": "of the second attempt", "b": "BBB"},
		has: func(f *fakeGirder) map[string]string { return f.shelvedIn("shelf1") },
	},
}

// act is a scene being played.
type act struct {
	scene
	*network
	out  Out
	what string
}

func (s scene) begin(t *testing.T, what string, seed uint64) *act {
	t.Helper()
	f, volume := newFake(), t.TempDir()
	a := &act{scene: s, network: newNetwork(f, seed), what: what}
	a.want = maps.Clone(s.want)
	for path, content := range s.files {
		write(t, volume, "out/"+path, content)
	}
	a.out = s.out(f, volume)
	a.out.Sink, a.out.Remember = a.network, a.remember
	return a
}

// live runs one process, up to its nth event if it comes to it.
func (a *act) live(t *testing.T, events int) (sent []contracts.GirderSent, err error, died bool) { //nolint:revive // err is no failure
	t.Helper()
	return a.liveIn(t.Context(), events)
}

func (a *act) liveIn(parent context.Context, events int) (sent []contracts.GirderSent, err error, died bool) { //nolint:revive // as above
	a.dead, a.out.Memory = false, a.disk.Memory
	ctx, ends := context.WithCancelCause(parent)
	defer ends(nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		sent, err = a.out.Run(ctx)
	}()
	for ; ; events-- {
		synctest.Wait()
		select {
		case <-done:
			return sent, err, false
		default:
		}
		if events == 0 {
			a.die()
			ends(ErrSuspended)
			<-done
			return nil, err, true
		}
		if a.step() {
			continue
		}
		select { // it waits to try again
		case <-a.arrived:
		case <-done:
		}
	}
}

// clear is what is done after an attempt has ended.
func (a *act) clear(t *testing.T) {
	t.Helper()
	for _, pending := range a.disk.Pending {
		if _, err := Cancel(t.Context(), a.fakeGirder, pending.ID); err != nil {
			t.Error(err)
		}
	}
}

// check looks at Girder in the end, and at what the last process said of it.
func (a *act) check(t *testing.T, sent []contracts.GirderSent, err error) {
	t.Helper()
	if err != nil || len(sent) != len(a.files) {
		t.Errorf("%s: %d files, %v", a.what, len(sent), err)
	}
	if diff := cmp.Diff(a.want, a.has(a.fakeGirder)); diff != "" {
		t.Errorf("%s:\n%s", a.what, diff)
	}
	contents := map[string]string{}
	for _, file := range a.everyFile() {
		contents[string(file.doc.ID)] = string(file.data)
	}
	seen := map[string]bool{}
	for i, path := range a.order {
		if i >= len(sent) {
			break
		}
		sum := sha512.Sum512([]byte(a.files[path]))
		one := sent[i]
		if one.Name != filepath.Base(path) || contents[one.FileID] != a.files[path] || one.SHA512 != hex.EncodeToString(sum[:]) || seen[one.FileID] {
			t.Errorf("%s: result %d is %+v instead of %s", a.what, i, one, path)
		}
		seen[one.FileID] = true
	}
	a.checkUploads(t)
}

// checkUploads: the only uploads that are left are those whose ids nobody could
// know.
func (a *act) checkUploads(t *testing.T) {
	t.Helper()
	for id := range a.uploads {
		if a.noted[id] {
			t.Errorf("%s: upload %s is left", a.what, id)
		}
	}
}

// checkBegun: beside an upload that was known no other was begun of the file.
func (a *act) checkBegun(t *testing.T) {
	t.Helper()
	files := map[string]int{}
	for path := range a.files {
		files[filepath.Base(path)]++
	}
	for what, begun := range a.begun {
		known := 0
		for _, id := range begun {
			if a.noted[id] {
				known++
			}
		}
		if known > max(1, files[what]) {
			t.Errorf("%s: %d uploads of %s", a.what, known, what)
		}
	}
}

// everySeed plays each scene, to the end of a life after each number of events.
func everySeed(t *testing.T, seeds uint64, play func(t *testing.T, a *act, events int, seed uint64) (died bool)) {
	t.Helper()
	for name, scene := range scenes {
		for events, died := 0, true; died; events++ {
			died = false
			for seed := range seeds {
				synctest.Test(t, func(t *testing.T) {
					a := scene.begin(t, fmt.Sprintf("%s, %d events, seed %d", name, events, seed), seed)
					if play(t, a, events, seed) {
						died = true
					}
				})
			}
		}
	}
}

// TestStageOutOnceWhereverItDies lets the process die at each event in turn,
// with whatever is on its way done or not, and the next one too, a few times:
// Girder has every file once, with the right bytes.
func TestStageOutOnceWhereverItDies(t *testing.T) {
	t.Parallel()
	most := 0
	everySeed(t, 3, func(t *testing.T, a *act, events int, seed uint64) bool {
		sent, err, dies := a.live(t, events)
		died := dies
		for again := uint64(0); dies; again++ {
			if again < seed {
				sent, err, dies = a.live(t, a.dice.IntN(events+1))
			} else {
				sent, err, dies = a.live(t, -1)
			}
		}
		a.check(t, sent, err)
		a.checkBegun(t)
		most = max(most, a.most)
		return died
	})
	if most < 4 {
		t.Errorf("only %d at a time", most)
	}
}

// TestStageOutOnceWhereverTheMachineCrashes, which takes what was not made
// durable: files are there once all the same. Uploads may be left that nobody
// knows any more.
func TestStageOutOnceWhereverTheMachineCrashes(t *testing.T) {
	t.Parallel()
	everySeed(t, 3, func(t *testing.T, a *act, events int, _ uint64) bool {
		sent, err, died := a.live(t, events)
		if died {
			if err := a.cutPower(); err != nil {
				t.Fatal(err)
			}
			sent, err, _ = a.live(t, -1)
		}
		a.check(t, sent, err)
		return died
	})
}

// TestALaterAttemptWhereverTheFirstDies: it makes other results of some, and
// knows what its predecessor noted, whose uploads are thrown away.
func TestALaterAttemptWhereverTheFirstDies(t *testing.T) {
	t.Parallel()
	everySeed(t, 2, func(t *testing.T, a *act, events int, seed uint64) bool {
		_, _, died := a.live(t, events)
		a.clear(t)
		a.checkUploads(t)
		a.files = maps.Clone(a.files)
		for path, content := range a.later {
			write(t, a.out.Volume, "out/"+path, content)
			a.files[path] = content
		}
		maps.Copy(a.want, a.wantLater)
		first := a.disk
		a.disk = new(keeper)
		a.disk.Earlier = []Memory{first.Memory}
		sent, err, dies := a.live(t, events*int(seed)/2-1)
		if dies {
			sent, err, _ = a.live(t, -1)
		}
		a.check(t, sent, err)
		return died
	})
}

// TestStageOutThroughLosses loses requests and answers while the process lives.
func TestStageOutThroughLosses(t *testing.T) {
	t.Parallel()
	for name, scene := range scenes {
		for seed := range uint64(60) {
			synctest.Test(t, func(t *testing.T) {
				a := scene.begin(t, fmt.Sprintf("%s, seed %d", name, seed), seed)
				a.loss = 3 + int(seed%5)
				sent, err, _ := a.live(t, -1)
				a.check(t, sent, err)
			})
		}
	}
}

// TestStageOutOfWhichOneIsRefused ends the others, whatever they are at, and a
// later attempt finds what became of them.
func TestStageOutOfWhichOneIsRefused(t *testing.T) {
	t.Parallel()
	refusal := &girder.Error{Status: 403, Type: "access", Message: "Write access denied."}
	everySeed(t, 3, func(t *testing.T, a *act, events int, _ uint64) bool {
		left, refused := events, false
		a.hook = func(string) error {
			if left--; left != -1 {
				return nil
			}
			refused = true
			return refusal
		}
		sent, err, _ := a.live(t, -1)
		if !refused {
			a.check(t, sent, err)
			return false
		}
		if err != nil && !errors.Is(err, girder.ErrForbidden) {
			t.Errorf("%s: %v", a.what, err)
		}
		a.checkUploads(t)
		a.hook, a.loss = nil, 0
		first := a.disk
		a.disk = new(keeper)
		a.disk.Earlier = []Memory{first.Memory}
		sent, err, _ = a.live(t, -1)
		a.check(t, sent, err)
		return true
	})
}

// TestStageOutIsRevoked at each event: nothing of it stays unfinished.
func TestStageOutIsRevoked(t *testing.T) {
	t.Parallel()
	revoked := errors.New("revoked")
	everySeed(t, 2, func(t *testing.T, a *act, events int, _ uint64) bool {
		ctx, revoke := context.WithCancelCause(t.Context())
		defer revoke(nil)
		left, happened := events, false
		a.hook = func(string) error {
			if left--; left == -1 {
				happened = true
				revoke(revoked)
			}
			return nil
		}
		_, err, _ := a.liveIn(ctx, -1)
		if err != nil && !errors.Is(err, revoked) {
			t.Errorf("%s: %v", a.what, err)
		}
		a.checkUploads(t)
		return happened
	})
}
