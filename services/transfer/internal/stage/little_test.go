package stage

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/internal/volume"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// hasNameless reports whether a folder's file system has files without a name.
func hasNameless(t *testing.T, folder string) bool {
	t.Helper()
	fd, err := unix.Open(folder, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return false
	}
	return unix.Close(fd) == nil
}

// TestLittleFilesOfManyComeAtOnce: nothing of them is on the volume before, each is
// noted once, and they are open to everybody whatever the umask.
func TestLittleFilesOfManyComeAtOnce(t *testing.T) {
	t.Parallel()
	f, v := newFake(), t.TempDir()
	if !hasNameless(t, v) {
		t.Skip("the file system has no files without a name")
	}
	folder := f.folder("", "data")
	for _, name := range []string{"a", "b", "c", "empty"} {
		content := strings.Repeat(name, 1000)
		if name == "empty" {
			content = ""
		}
		f.add(folder, name, name, content)
	}
	var notes []Note
	in := In{Source: f, Folder: folder, Volume: v, Retry: quick, Remember: func(n Note) error { notes = append(notes, n); return nil }}
	in.Progress = func(string, int64, int64) {
		for path := range files(t, v) {
			if strings.Contains(path, ".gantry-") {
				t.Errorf("%s is there", path)
			}
		}
	}
	staged, err := in.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, name := range []string{"a", "b", "c"} {
		want[filepath.Join(staged.Path, name)] = strings.Repeat(name, 1000)
	}
	want[filepath.Join(staged.Path, "empty")] = ""
	if diff := cmp.Diff(want, files(t, v)); diff != "" {
		t.Error(diff)
	}
	noted := map[NotedPath]int{}
	for _, note := range notes[1:] { // the first is of how the volume tells names apart
		noted[note.Partial.Path]++
		path := string(note.Partial.Path)
		info, err := os.Lstat(filepath.Join(v, path))
		if err != nil || note.Partial.Temporary != "" || *note.Partial.Whole != localOf(info) || info.Mode() != openMode {
			t.Errorf("%s: %+v, %v", path, note.Partial, err)
		}
	}
	for path := range want {
		if noted[NotedPath(path)] != 1 {
			t.Errorf("%s is noted %d times", path, noted[NotedPath(path)])
		}
	}
}

// TestALittleFileTakesItsPlace by each way that file systems have, also that of
// another file, and of a symbolic link, which is not followed. A folder stays.
func TestALittleFileTakesItsPlace(t *testing.T) {
	t.Parallel()
	for _, how := range []linking{noLinking, byItself, byProcessFS} {
		for what, prepare := range map[string]func(path, outside string) error{
			"free":     func(string, string) error { return nil },
			"a file":   func(path, _ string) error { return os.WriteFile(path, []byte("another"), 0o400) },
			"a link":   func(path, outside string) error { return os.Symlink(outside, path) },
			"a folder": func(path, _ string) error { return os.MkdirAll(filepath.Join(path, "in"), 0o777) },
		} {
			f, v, outside := newFake(), t.TempDir(), filepath.Join(t.TempDir(), "outside")
			if err := os.WriteFile(outside, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := prepare(filepath.Join(v, "n"), outside); err != nil {
				t.Fatal(err)
			}
			if how != noLinking && !canLink(t, how) {
				continue
			}
			f.offers("n", []byte("little"))
			root, err := volume.OpenRoot(v)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			var disk keeper
			var last, total int64
			s := &staging{root: root, many: true, linking: how, In: In{
				Source: f, Volume: v, Retry: quick, Remember: disk.remember, Fetches: NewFetches(), Task: "t", Girder: "g",
				Progress: func(_ string, bytes, of int64) { last, total = bytes, of },
			}}
			var in near
			defer in.close()
			n, err := s.file(t.Context(), &in, "n", f.doc)
			if what == "a folder" {
				if !errors.Is(err, ErrInTheWay) || len(files(t, v)) != 0 {
					t.Errorf("%d, %s: %v, %v", how, what, err, files(t, v))
				}
				continue
			}
			info, statErr := os.Lstat(filepath.Join(v, "n"))
			if err != nil || statErr != nil || info.Mode() != openMode || n != 6 || last != 6 || total != 6 || f.count("download 0") != 1 {
				t.Errorf("%d, %s: %d bytes, %d of %d, %v, %v, %v", how, what, n, last, total, info, err, f.asked)
			}
			if diff := cmp.Diff(map[string]string{"n": "little"}, files(t, v)); diff != "" {
				t.Errorf("%d, %s: %s", how, what, diff)
			}
			if is := disk.Partials["n"].Whole; is == nil || *is != localOf(info) {
				t.Errorf("%d, %s: noted %+v", how, what, disk.Partials["n"])
			}
			id, _ := s.shared(f.doc)
			if from, at := s.Fetches.find(id); from == nil || !at.isAsItWas(from) {
				t.Errorf("%d, %s: others of the task do not find it", how, what)
			} else if err := from.Close(); err != nil {
				t.Error(err)
			}
			if got, err := os.ReadFile(outside); string(got) != "precious" || err != nil {
				t.Errorf("%d, %s: outside is %q, %v", how, what, got, err)
			}
		}
	}
}

// canLink reports whether this process may give a file a name in this way.
func canLink(t *testing.T, how linking) bool {
	t.Helper()
	folder, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	file, err := nameless(int(folder.Fd()))
	if err != nil {
		return false
	}
	defer unix.Close(file)
	return linkBy(how, file, int(folder.Fd()), "n") == nil
}

// TestALittleFileThatGrowsWhileItsDownloadIsBroken comes by way of the disk then.
func TestALittleFileThatGrowsWhileItsDownloadIsBroken(t *testing.T) {
	t.Parallel()
	s, v := startSite(t), t.TempDir()
	id := s.add(t, "in.bin", bytes.NewReader(make([]byte, littleSize)))
	large := bytes.Repeat([]byte{'b'}, 3*littleSize)
	var downloads, looks atomic.Int32
	s.SetFault(func(r *http.Request) *girdersim.Fault {
		switch {
		case strings.HasSuffix(r.URL.Path, "/download") && downloads.Add(1) == 1:
			return &girdersim.Fault{CutAfter: 1000}
		case strings.HasSuffix(r.URL.Path, "/file/"+string(id)) && looks.Add(1) == 1: // is it still the same?
			s.replace(t, id, large)
		}
		return nil
	})
	var last int64
	in := In{Source: s.Client, Item: girder.ItemID(s.item.ID), Volume: v, Retry: quick, Task: "t", Fetches: NewFetches(), Girder: "g"}
	in.Progress = func(_ string, bytes, _ int64) { last = bytes }
	staged, err := in.Run(t.Context())
	if err != nil || looks.Load() == 0 || staged.Bytes != int64(len(large)) || last != staged.Bytes || !holds(files(t, v), large) {
		t.Fatalf("%+v, told %d, %v", staged, last, err)
	}
}

// TestALittleFileOnItsWayWhenTheProcessEnds leaves nothing to be continued.
func TestALittleFileOnItsWayWhenTheProcessEnds(t *testing.T) {
	t.Parallel()
	f, v := newFake(), t.TempDir()
	folder := f.folder("", "data")
	f.add(folder, "a", "a", "content")
	ctx, suspend := context.WithCancelCause(t.Context())
	f.hook = func(request string) error {
		if request == "download 0" {
			suspend(ErrSuspended)
			return errCut
		}
		return nil
	}
	var disk keeper
	in := In{Source: f, Folder: folder, Volume: v, Retry: quick, Remember: disk.remember}
	if _, err := in.Run(ctx); !errors.Is(err, ErrSuspended) || len(files(t, v)) != 0 {
		t.Fatal(err, files(t, v))
	}
	f.hook, in.Memory = nil, disk.Memory
	staged, err := in.Run(t.Context())
	if err != nil || files(t, v)[filepath.Join(staged.Path, "a")] != "content" {
		t.Fatal(err, files(t, v))
	}
}
