package stage

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/services/internal/girder"
)

func stageIn(t *testing.T, f *fakeGirder, volume, filename string) (Staged, error) {
	t.Helper()
	return In{Source: f, File: "f1", Volume: volume, Filename: filename, Retry: quick}.Run(t.Context())
}

func TestStageInPlacesTheFile(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, filename, want string }{
		{"in.tif", "", "f1/in.tif"},
		{"in.tif", "a/b/c.tif", "a/b/c.tif"},
		{"../../../etc/passwd", "", "f1/.._.._.._etc_passwd"},
		{"..", "", "f1/_.."},
		{"", "", "f1/_"},
		{"a\x00b", "", "f1/a_b"},
		{"x", "./a/../b", "b"},
	} {
		f, volume := newFake(), t.TempDir()
		f.offers(test.name, []byte("content"))
		staged, err := stageIn(t, f, volume, test.filename)
		if err != nil || staged.Path != test.want || staged.Bytes != 7 {
			t.Errorf("%+v: %+v, %v", test, staged, err)
			continue
		}
		if diff := cmp.Diff(map[string]string{test.want: "content"}, files(t, volume)); diff != "" {
			t.Errorf("%+v:\n%s", test, diff)
		}
	}
}

func TestStageInModes(t *testing.T) {
	t.Parallel()
	f, volume := newFake(), t.TempDir()
	f.offers("n", []byte("x"))
	if err := os.Chmod(volume, 0o777|os.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	if _, err := stageIn(t, f, volume, "a/b/n"); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{
		"a": 0o777 | os.ModeSetgid | os.ModeDir, "a/b": 0o777 | os.ModeSetgid | os.ModeDir, "a/b/n": 0o644,
	} {
		info, err := os.Stat(filepath.Join(volume, path))
		if err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

func TestStageInResumes(t *testing.T) {
	t.Parallel()
	for _, quiet := range []bool{false, true} {
		f, volume := newFake(), t.TempDir()
		data := bytes.Repeat([]byte("0123456789"), 100)
		f.offers("n", data)
		f.pieces, f.quiet = 300, quiet
		sum := sha512.Sum512(data)
		f.doc.SHA512 = hex.EncodeToString(sum[:])
		var last int64
		in := In{Source: f, File: "f1", Volume: volume, Filename: "n", Retry: quick, Progress: func(what string, done, total int64) {
			if what != "n" || done < last || total != 1000 {
				t.Errorf("progress %s %d of %d after %d", what, done, total, last)
			}
			last = done
		}}
		if _, err := in.Run(t.Context()); err != nil || last != 1000 {
			t.Fatal(err, last)
		}
		if got := files(t, volume)["n"]; got != string(data) {
			t.Errorf("%d other bytes", len(got))
		}
		if diff := cmp.Diff([]string{"get", "download 0", "download 300", "download 600", "download 900"}, f.asked); diff != "" {
			t.Error(diff)
		}
	}
}

func TestStageInRetriesWhatIsTemporary(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.offers("n", []byte("x"))
	errs := []error{errCut, &girder.Error{Status: 502}, &girder.Error{Status: 429}, errCut, &girder.Error{Status: 500}}
	f.hook = func(string) error {
		if len(errs) == 0 {
			return nil
		}
		err := errs[0]
		errs = errs[1:]
		return err
	}
	if _, err := stageIn(t, f, t.TempDir(), ""); err != nil {
		t.Fatal(err)
	}
}

func TestStageInGivesUp(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err     error
		failure bool
	}{
		"401":      {&girder.Error{Status: 401, Type: "access"}, true},
		"403":      {&girder.Error{Status: 403, Type: "access"}, true},
		"proxy":    {&girder.Error{Status: 404}, false},
		"missing":  {&girder.Error{Status: 400, Message: "Invalid file id (x)."}, true},
		"lost":     {&girder.Error{Status: 500, Type: "girder", Identifier: "a.file-does-not-exist"}, true},
		"ended":    {context.Canceled, false},
		"other":    {girder.ErrOtherRange, false},
		"store":    {&girder.Error{Status: 403, Host: "store"}, true},
		"redirect": {&girder.Error{Status: 301}, true},
		"session":  {&girder.SessionError{Field: "verify", Err: errors.New("not trusted")}, true},
		"checksum": {ErrChecksum, false},
	} {
		for _, request := range []string{"get", "download 0"} {
			f, volume := newFake(), t.TempDir()
			f.offers("n", []byte("x"))
			f.hook = fail(1, request, test.err)
			_, err := stageIn(t, f, volume, "")
			if !errors.Is(err, test.err) || IsFailure(err) != test.failure || f.count(request) != 1 {
				t.Errorf("%s at %s: %v, failure %v", name, request, err, IsFailure(err))
			}
			if left := files(t, volume); len(left) != 0 {
				t.Errorf("%s at %s leaves %v", name, request, left)
			}
		}
	}
}

func TestStageInChecksLengthAndSum(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*fakeGirder)
		want   error
	}{
		"shorter":               {func(f *fakeGirder) { f.data = f.data[:5] }, ErrIncomplete},
		"longer":                {func(f *fakeGirder) { f.data = append(f.data, 'x') }, ErrIncomplete},
		"shorter, and not said": {func(f *fakeGirder) { f.data, f.unsized = f.data[:5], true }, ErrIncomplete},
		"longer, and not said":  {func(f *fakeGirder) { f.data, f.unsized = append(f.data, 'x'), true }, ErrIncomplete},
		"neither says":          {func(f *fakeGirder) { f.doc.Size, f.unsized = nil, true }, nil},
		"other bytes":           {func(f *fakeGirder) { f.doc.SHA512 = strings.Repeat("0", 128) }, ErrChecksum},
		"no size":               {func(f *fakeGirder) { f.doc.Size = nil }, nil},
	} {
		f, volume := newFake(), t.TempDir()
		f.offers("n", []byte("0123456789"))
		test.change(f)
		_, err := In{Source: f, File: "f1", Volume: volume, Retry: impatient}.Run(t.Context())
		if !errors.Is(err, test.want) || IsFailure(err) {
			t.Errorf("%s: %v", name, err)
		}
		if left := files(t, volume); test.want != nil && len(left) != 0 {
			t.Errorf("%s leaves %v", name, left)
		}
	}
}

func TestStageInEmptyFile(t *testing.T) {
	t.Parallel()
	f, volume := newFake(), t.TempDir()
	f.offers("n", nil)
	staged, err := stageIn(t, f, volume, "n")
	if err != nil || staged.Bytes != 0 {
		t.Fatal(staged, err)
	}
	if diff := cmp.Diff(map[string]string{"n": ""}, files(t, volume)); diff != "" {
		t.Error(diff)
	}
}

func TestStageInStaysOnTheVolume(t *testing.T) {
	t.Parallel()
	for _, filename := range []string{"../x", "/etc/x", "a/../../x", "link/x", "out/x"} {
		f, volume, outside := newFake(), t.TempDir(), t.TempDir()
		f.offers("n", []byte("x"))
		for name, target := range map[string]string{"link": outside, "out": "../" + filepath.Base(outside)} {
			if err := os.Symlink(target, filepath.Join(volume, name)); err != nil {
				t.Fatal(err)
			}
		}
		_, err := stageIn(t, f, volume, filename)
		if !errors.Is(err, ErrLeavesVolume) || !IsFailure(err) || len(files(t, outside)) != 0 {
			t.Errorf("%s: %v, outside %v", filename, err, files(t, outside))
		}
	}
}

func TestStageInReplacesALink(t *testing.T) {
	t.Parallel()
	f, volume, outside := newFake(), t.TempDir(), t.TempDir()
	f.offers("n", []byte("new"))
	precious := filepath.Join(outside, "precious")
	if err := errors.Join(os.WriteFile(precious, []byte("old"), 0o600), os.Symlink(precious, filepath.Join(volume, "n"))); err != nil {
		t.Fatal(err)
	}
	if _, err := stageIn(t, f, volume, "n"); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(precious); err != nil || string(data) != "old" {
		t.Fatalf("written through the link: %q, %v", data, err)
	}
}

func TestStageInWhereSomethingIsInTheWay(t *testing.T) {
	t.Parallel()
	for _, filename := range []string{"folder", "full", "file/n", "file/deeper/n"} {
		f, volume := newFake(), t.TempDir()
		f.offers("n", []byte("new"))
		write(t, volume, "file", "old")
		write(t, volume, "full/kept", "old")
		if err := os.Mkdir(filepath.Join(volume, "folder"), 0o755); err != nil {
			t.Fatal(err)
		}
		_, err := stageIn(t, f, volume, filename)
		if !errors.Is(err, ErrInTheWay) || !IsFailure(err) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", filename, err)
		}
		if diff := cmp.Diff(map[string]string{"file": "old", "full/kept": "old"}, files(t, volume)); diff != "" {
			t.Errorf("%s:\n%s", filename, diff)
		}
	}
	for _, number := range []syscall.Errno{syscall.EEXIST, syscall.EISDIR, syscall.ENOTEMPTY, syscall.EBUSY} {
		if err := onPlace("n", &os.LinkError{Op: "rename", Err: number}); !IsFailure(err) {
			t.Errorf("%v: %v", number, err)
		}
	}
}

func TestStageInOnAFullVolume(t *testing.T) {
	t.Parallel()
	volume := t.TempDir()
	if err := syscall.Mount("tmpfs", volume, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("cannot mount a small volume here: %v", err)
	}
	t.Cleanup(func() { unmount(t, func() error { return syscall.Unmount(volume, 0) }) })
	f := newFake()
	f.offers("n", make([]byte, 1<<20))
	_, err := stageIn(t, f, volume, "n")
	if !errors.Is(err, ErrNoSpace) || IsFailure(err) {
		t.Fatal(err)
	}
	for _, say := range []string{"no space left on the volume " + volume, "takes 1.0 MB more", "65.5 kB are free"} {
		if !strings.Contains(err.Error(), say) {
			t.Errorf("%q does not say %q", err, say)
		}
	}
	if left := files(t, volume); len(left) != 0 || f.count("download 0") != 0 {
		t.Fatalf("leaves %d files after %v", len(left), f.asked)
	}
	// The next small one has room.
	f.offers("n", make([]byte, 10<<10))
	if _, err := stageIn(t, f, volume, "n"); err != nil {
		t.Fatal(err)
	}
}

// TestStageInWhileOthersFillTheVolume: with room that was there when it began.
func TestStageInWhileOthersFillTheVolume(t *testing.T) {
	t.Parallel()
	volume := t.TempDir()
	if err := syscall.Mount("tmpfs", volume, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("cannot mount a small volume here: %v", err)
	}
	t.Cleanup(func() { unmount(t, func() error { return syscall.Unmount(volume, 0) }) })
	f := newFake()
	f.offers("n", pattern(700<<10))
	others := sync.OnceFunc(func() {
		err := os.WriteFile(filepath.Join(volume, "others"), make([]byte, 1<<20), 0o600)
		if !errors.Is(err, syscall.ENOSPC) {
			t.Error(err)
		}
	})
	in := In{Source: f, File: "f1", Volume: volume, Filename: "n", Retry: quick, Progress: func(string, int64, int64) { others() }}
	_, err := in.Run(t.Context())
	if !errors.Is(err, ErrNoSpace) || IsFailure(err) || !strings.Contains(err.Error(), "kB more, 0 B are free") {
		t.Error(err)
	}
	if left := files(t, volume); len(left) != 1 {
		t.Errorf("leaves %d files", len(left))
	}
}

func TestFilesThatOnlyOthersMayReadAreTheTasksFault(t *testing.T) {
	t.Parallel()
	for _, number := range []syscall.Errno{syscall.EACCES, syscall.EPERM} {
		err := onVolume("out/r.bin", &os.PathError{Op: "open", Path: "out/r.bin", Err: number})
		if !errors.Is(err, ErrDenied) || !IsFailure(err) || !strings.Contains(err.Error(), "out/r.bin") {
			t.Errorf("%v: %v", number, err)
		}
	}
}

func TestLocalNames(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ä", 200)
	for name, want := range map[string]string{
		"plain": "plain", ".": "_.", "..": "_..", "...": "...", "a/b": "a_b", "//a": "__a", `\a`: "_a", `\\a`: "_a", `a\b`: `a\b`,
		" a ": " a ", "a:b": "a:b", long + ".tif": long[:250] + ".tif",
	} {
		if got := localName(name); got != want || len(got) > 255 {
			t.Errorf("%q becomes %q, want %q", name, got, want)
		}
	}
}

func FuzzLocalName(f *testing.F) {
	for _, seed := range []string{"", ".", "..", "/", `\`, "a/../b", strings.Repeat("x", 300), "\x00", "a\nb", "ß\xff", "0" + strings.Repeat("\xb7", 300) + "."} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got := localName(name)
		if !filepath.IsLocal(got) || filepath.Base(got) != got || len(got) > 255 || strings.ContainsRune(got, 0) || got == "." {
			t.Errorf("%q becomes %q", name, got)
		}
	})
}
