package stage

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/contracts"
)

func TestANotedPathThatIsUTF8IsAsItIs(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"out/ü \"a\".txt", ".", "\uFFFD", `a\xff`} {
		old, err := json.Marshal(path)
		if err != nil {
			t.Fatal(err)
		}
		line, err := json.Marshal(NotedPath(path))
		if err != nil || string(line) != string(old) {
			t.Errorf("%s instead of %s, %v", line, old, err)
		}
	}
	var read NotedPath
	if err := json.Unmarshal([]byte(`"/\"cut"`), &read); err == nil {
		t.Errorf("read as %q", read)
	}
}

// FuzzNotedPath: any bytes come back, in a value and as what they are known by.
func FuzzNotedPath(f *testing.F) {
	for _, path := range []string{"a", "", "/", `/"a"`, "\xff", "\xfe\"\\", "ü/\xff\n\x00", "\xef\xbf\xbd", "\xed\xa0\x80"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		line, err := json.Marshal(Note{Sent: &Sent{Path: NotedPath(path)}})
		if err != nil || !utf8.Valid(line) {
			t.Fatalf("%q: %s, %v", path, line, err)
		}
		var note Note
		if err := json.Unmarshal(line, &note); err != nil || note.Sent.Path != NotedPath(path) {
			t.Fatalf("%q is read as %+v, %v", path, note.Sent, err)
		}
	})
}

func TestValidNames(t *testing.T) {
	t.Parallel()
	got := validNames([]string{"\xc0.txt", "\xc1.txt", "a", "\uFFFD (1).txt", "\uFFFD.txt", "\xff"})
	want := []string{"\uFFFD (2).txt", "\uFFFD (3).txt", "a", "\uFFFD (1).txt", "\uFFFD.txt", "\uFFFD"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// oddOutputs are names that are no UTF-8, with what Girder is to have of them.
func oddOutputs(t *testing.T, volume string) (want map[string]string) {
	t.Helper()
	write(t, volume, "out/\xfe", "0123456789")
	write(t, volume, "out/\xff", "other 8901")
	write(t, volume, "out/\xff\xff", "")
	return map[string]string{"\uFFFD": "0123456789", "\uFFFD (1)": "other 8901", "\uFFFD (2)": ""}
}

// TestNamesThatAreNoUTF8OnceWhereverItDies: in an item and in a folder.
func TestNamesThatAreNoUTF8OnceWhereverItDies(t *testing.T) {
	t.Parallel()
	for _, inFolder := range []bool{false, true} {
		for events, died := 0, true; died; events++ {
			f, volume := newFake(), t.TempDir()
			want := oddOutputs(t, volume)
			id := f.shelve("", "results")
			o := outOf(f, volume, "out")
			has := f.contents
			if inFolder {
				o = toFolder(f, id, volume, "out")
				has = func() map[string]string { return f.shelvedIn(id) }
				write(t, volume, "out/\xc0/\xc1", "deep")
				write(t, volume, "out/\xc1/\xc1", "deeper")
				for name := range want { // folders come before files, and names in the order of their bytes
					delete(want, name)
				}
				for i, content := range []string{"0123456789", "other 8901", ""} {
					want[fmt.Sprintf("\uFFFD (%d)", i+2)] = content
				}
				want["\uFFFD/"], want["\uFFFD/\uFFFD"], want["\uFFFD (1)/"], want["\uFFFD (1)/\uFFFD"] = "", "deep", "", "deeper"
			}
			var disk keeper
			run := newLife(t, events)
			o.Remember, f.hook = disk.remember, run.hook
			sent, err := o.Run(run)
			if died = err != nil; died {
				o.Memory, f.hook = disk.Memory, nil
				sent, err = o.Run(t.Context())
			}
			if err != nil || len(sent) < 3 {
				t.Fatalf("%d events: %v, %v", events, sent, err)
			}
			for _, one := range sent {
				if !utf8.ValidString(one.Name) {
					t.Errorf("%q", one.Name)
				}
			}
			if diff := cmp.Diff(want, has()); diff != "" {
				t.Errorf("folder %v, %d events, asked %v:\n%s", inFolder, events, f.asked, diff)
			}
		}
	}
}

// TestOneFileWhoseNameIsNoUTF8, by itself, wherever it dies.
func TestOneFileWhoseNameIsNoUTF8(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{"": "\uFFFD", "named\xff": "named\uFFFD"} { // as that of a stream is
		oneOddFile(t, given, want)
	}
}

func oneOddFile(t *testing.T, given, want string) {
	t.Helper()
	for events, died := 0, true; died; events++ {
		f, volume := newFake(), t.TempDir()
		write(t, volume, "\xff", "0123456789")
		id := f.shelve("", "results")
		o := toFolder(f, id, volume, "\xff")
		o.Name = given
		var disk keeper
		run := newLife(t, events)
		o.Remember, f.hook = disk.remember, run.hook
		_, err := o.Run(run)
		if died = err != nil; died {
			o.Memory, f.hook = disk.Memory, nil
			_, err = o.Run(t.Context())
		}
		if diff := cmp.Diff(map[string]string{want: "0123456789"}, f.shelvedIn(id)); diff != "" || err != nil {
			t.Errorf("%d events: %v\n%s", events, err, diff)
		}
	}
}

// TestALaterAttemptWithOtherNames does not take the file of one for that of
// another, whose name in Girder it had before.
func TestALaterAttemptWithOtherNames(t *testing.T) {
	t.Parallel()
	f, volume := newFake(), t.TempDir()
	id := f.shelve("", "results")
	write(t, volume, "out/\xff", "first")
	var disk keeper
	o := toFolder(f, id, volume, "out")
	o.Remember = disk.remember
	first, err := o.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(volume, "out/\xff")); err != nil {
		t.Fatal(err)
	}
	write(t, volume, "out/\xfe", "one")
	write(t, volume, "out/\xff", "two")
	o.Memory, o.Before, o.Remember = Memory{Earlier: []Memory{disk.Memory}}, first, nil
	sent, err := o.Run(t.Context())
	if err != nil || len(sent) != 2 || sent[1].FileID != first[0].FileID {
		t.Fatal([][]contracts.GirderSent{first, sent}, err)
	}
	var contents []string
	for _, file := range f.everyFile() {
		contents = append(contents, string(file.data))
	}
	if diff := cmp.Diff([]string{"two", "one"}, contents); diff != "" {
		t.Error(diff)
	}
}
