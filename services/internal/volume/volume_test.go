package volume_test

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gantry-worker/gantry/services/internal/volume"
)

func setup(t *testing.T) volume.Volume {
	t.Helper()
	v, err := volume.Make(t.TempDir(), "/mnt/data")
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestMakeIsWritableWhateverTheUmask(t *testing.T) {
	// Not parallel: the umask belongs to the whole process.
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	v := setup(t)
	if err := v.MkdirAll("a/b"); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{".", "a", "a/b"} {
		info, err := os.Stat(filepath.Join(v.Host, dir))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o777 || info.Mode()&fs.ModeSetgid == 0 {
			t.Errorf("%s has mode %v", dir, info.Mode())
		}
	}
	if err := v.MkdirAll("a/b"); err != nil {
		t.Errorf("made again: %v", err)
	}
}

func TestMakeRefuses(t *testing.T) {
	t.Parallel()
	if _, err := volume.Make(t.TempDir(), "mnt"); err == nil {
		t.Error("took a relative container path")
	}
	if _, err := volume.Make(filepath.Join(t.TempDir(), "absent"), "/mnt"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent parent: %v", err)
	}
}

func TestClean(t *testing.T) {
	t.Parallel()
	for rel, want := range map[string]string{
		"a": "a", "a/b": "a/b", "./a//b/": "a/b", "a/../b": "b", ".": ".", "a/..": ".", "..a": "..a", "a/...": "a/...",
		"with space": "with space", "a\\b": "a\\b",
	} {
		if got, err := volume.Clean(rel); err != nil || got != want {
			t.Errorf("Clean(%q) = %q, %v, want %q", rel, got, err, want)
		}
	}
	for rel, why := range map[string]string{
		"": "empty", "/a": "absolute", "/": "absolute", "..": "leaves", "../a": "leaves", "a/../../b": "leaves",
		"../x/../volume/a": "leaves", "a\x00b": "NUL", "./..": "leaves",
	} {
		_, err := volume.Clean(rel)
		if !errors.Is(err, volume.ErrPath) || !strings.Contains(err.Error(), why) {
			t.Errorf("Clean(%q): %v, want a refusal that says %q", rel, err, why)
		}
	}
}

func FuzzClean(f *testing.F) {
	for _, seed := range []string{"a/b", "../x", "a/../../b", "", "\x00", "/", "a//./b", "....//"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, rel string) {
		clean, err := volume.Clean(rel)
		if err != nil {
			return
		}
		if !filepath.IsLocal(clean) || path.Clean(clean) != clean {
			t.Errorf("Clean(%q) = %q", rel, clean)
		}
		v := volume.Volume{Host: "/host/v", Container: "/mnt/v"}
		inside, err := v.ContainerPath(rel)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := filepath.Rel(v.Container, inside); err != nil || back != clean {
			t.Errorf("%q is %q in the container, and back %q, %v", clean, inside, back, err)
		}
	})
}

func TestPaths(t *testing.T) {
	t.Parallel()
	v := volume.Volume{Host: "/host/v", Container: "/mnt/v"}
	if got, err := v.HostPath("out/r.csv"); err != nil || got != "/host/v/out/r.csv" {
		t.Errorf("host path %q, %v", got, err)
	}
	if got, err := v.ContainerPath("out/r.csv"); err != nil || got != "/mnt/v/out/r.csv" {
		t.Errorf("container path %q, %v", got, err)
	}
	for name, f := range map[string]func(string) (string, error){"host": v.HostPath, "container": v.ContainerPath} {
		if _, err := f("../x"); !errors.Is(err, volume.ErrPath) {
			t.Errorf("%s path of ../x: %v", name, err)
		}
	}
}

func TestMkdirAllFollowsNoSymlink(t *testing.T) {
	t.Parallel()
	v := setup(t)
	elsewhere := t.TempDir()
	for name, target := range map[string]string{"outside": elsewhere, "inside": ".", "dangling": "nowhere"} {
		if err := os.Symlink(target, filepath.Join(v.Host, name)); err != nil {
			t.Fatal(err)
		}
		if err := v.MkdirAll(name + "/new"); !errors.Is(err, volume.ErrSymlink) {
			t.Errorf("mkdir over a link %s: %v", name, err)
		}
	}
	if entries, err := os.ReadDir(elsewhere); err != nil || len(entries) > 0 {
		t.Errorf("made %v, %v", entries, err)
	}
}

func TestRemove(t *testing.T) {
	t.Parallel()
	v := setup(t)
	kept := filepath.Join(t.TempDir(), "kept")
	write(t, kept)
	if err := v.MkdirAll("locked/deep"); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(v.Host, "locked/deep/file"))
	for name, target := range map[string]string{"link": kept, "linkdir": filepath.Dir(kept)} {
		if err := os.Symlink(target, filepath.Join(v.Host, "locked", name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"locked/deep", "locked"} {
		if err := os.Chmod(filepath.Join(v.Host, dir), 0o500); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the second time there is nothing left
		if err := v.Remove(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(v.Host); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
}

func write(t *testing.T, name string) {
	t.Helper()
	if err := os.WriteFile(name, []byte("data"), 0o644); err != nil {
		t.Fatal(err)
	}
}
