package volume_test

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/services/internal/volume"
)

func setup(t *testing.T) volume.Volume {
	t.Helper()
	v := volume.Volume{Host: filepath.Join(t.TempDir(), "volume"), Container: "/mnt/data"}
	mkdir(t, v, ".")
	return v
}

// mkdir makes a folder that is everybody's, as a container of any user may.
func mkdir(t *testing.T, v volume.Volume, rel string) {
	t.Helper()
	dir := filepath.Join(v.Host, rel)
	if err := errors.Join(os.MkdirAll(dir, 0o777), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
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
		v := volume.Volume{Container: "/mnt/v"}
		inside, err := v.ContainerPath(rel)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := filepath.Rel(v.Container, inside); err != nil || back != clean {
			t.Errorf("%q is %q in the container, and back %q, %v", clean, inside, back, err)
		}
	})
}

func TestContainerPath(t *testing.T) {
	t.Parallel()
	v := volume.Volume{Container: "/mnt/v"}
	if got, err := v.ContainerPath("out/r.csv"); err != nil || got != "/mnt/v/out/r.csv" {
		t.Errorf("container path %q, %v", got, err)
	}
	if _, err := v.ContainerPath("../x"); !errors.Is(err, volume.ErrPath) {
		t.Errorf("container path of ../x: %v", err)
	}
}

func TestWithinFollowsNoSymlink(t *testing.T) {
	t.Parallel()
	v := setup(t)
	for name, target := range map[string]string{"outside": t.TempDir(), "inside": ".", "dangling": "nowhere"} {
		if err := os.Symlink(target, filepath.Join(v.Host, name)); err != nil {
			t.Fatal(err)
		}
		err := v.Within(name+"/new", func(*os.Root, string) error {
			t.Errorf("went over a link %s", name)
			return nil
		})
		if !errors.Is(err, volume.ErrSymlink) {
			t.Errorf("over a link %s: %v", name, err)
		}
	}
}

func TestRemove(t *testing.T) {
	t.Parallel()
	v := setup(t)
	kept := filepath.Join(t.TempDir(), "kept")
	write(t, kept)
	mkdir(t, v, "locked/deep")
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
