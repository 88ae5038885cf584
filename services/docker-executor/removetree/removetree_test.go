package removetree_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/services/docker-executor/removetree"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func isEmpty(t *testing.T, folder string) bool {
	t.Helper()
	entries, err := os.ReadDir(folder)
	must(t, err)
	return len(entries) == 0
}

// contents removes what is in the folder that is there.
func contents(t *testing.T, folder string) error {
	t.Helper()
	id, err := removetree.IDOf(folder)
	must(t, err)
	return removetree.Contents(folder, id)
}

// TestAnotherFolderIsLeftAlone, however it came to the folder's place.
func TestAnotherFolderIsLeftAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	folder, other, link := filepath.Join(dir, "folder"), filepath.Join(dir, "other"), filepath.Join(dir, "link")
	must(t, os.Mkdir(folder, 0o755))
	must(t, os.Mkdir(other, 0o755))
	must(t, os.WriteFile(filepath.Join(other, "kept"), nil, 0o600))
	must(t, os.Symlink(other, link))
	id, err := removetree.IDOf(folder)
	must(t, err)
	if err := removetree.Contents(other, id); err == nil || !strings.Contains(err.Error(), "somebody put another folder") {
		t.Errorf("another folder: %v", err)
	}
	must(t, os.Remove(folder))
	must(t, os.Symlink(other, folder))
	if err := removetree.Contents(folder, id); err == nil {
		t.Error("a link in its place is no error")
	}
	if isEmpty(t, other) {
		t.Error("the other folder was emptied")
	}
	for _, path := range []string{link, filepath.Join(other, "kept"), filepath.Join(dir, "absent")} {
		if id, err := removetree.IDOf(path); err == nil {
			t.Errorf("%s is folder %s", path, id)
		}
	}
}

func TestContents(t *testing.T) {
	t.Parallel()
	outside, folder := t.TempDir(), t.TempDir()
	kept := filepath.Join(outside, "kept")
	must(t, os.WriteFile(kept, []byte("kept"), 0o600))
	deep := filepath.Join(folder, strings.Repeat("d/", 200))
	must(t, os.MkdirAll(deep, 0o755))
	must(t, os.WriteFile(filepath.Join(deep, "file"), nil, 0o000))
	must(t, os.Link(kept, filepath.Join(folder, "hard")))
	must(t, os.Symlink(outside, filepath.Join(folder, "out")))
	must(t, os.Symlink("../..", filepath.Join(folder, "d", "up")))
	must(t, os.Symlink("nowhere", filepath.Join(folder, "dangling")))
	must(t, unix.Mkfifo(filepath.Join(folder, "pipe"), 0o600))
	must(t, os.Mkdir(filepath.Join(folder, "many"), 0o755))
	for i := range 5000 {
		must(t, os.WriteFile(filepath.Join(folder, "many", fmt.Sprint(i)), nil, 0o600))
	}
	must(t, contents(t, folder))
	if !isEmpty(t, folder) {
		t.Error("not everything was removed")
	}
	if data, err := os.ReadFile(kept); err != nil || string(data) != "kept" {
		t.Errorf("what was linked to is %q, %v", data, err)
	}
	must(t, contents(t, folder)) // an empty one
	if err := removetree.Contents(filepath.Join(folder, "absent"), removetree.ID{}); err == nil {
		t.Error("a folder that is not there is no error")
	}
}

// setFlags sets attributes of a file, and takes them back at the end.
func setFlags(t *testing.T, path string, flags int) {
	t.Helper()
	set := func(flags int) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close() //nolint:errcheck // only its attributes are changed
		return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags)
	}
	if err := set(flags); err != nil {
		t.Skipf("a file cannot be made immutable here: %v", err)
	}
	t.Cleanup(func() { must(t, set(0)) })
}

func TestWhatCannotBeRemovedIsNamed(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	for _, dir := range []string{"a/b", "fixed", "other"} {
		must(t, os.MkdirAll(filepath.Join(folder, dir), 0o755))
	}
	for _, file := range []string{"a/b/immutable", "a/b/plain", "fixed/inside", "other/plain"} {
		must(t, os.WriteFile(filepath.Join(folder, file), nil, 0o644))
	}
	setFlags(t, filepath.Join(folder, "a/b/immutable"), 0x10)
	setFlags(t, filepath.Join(folder, "fixed"), 0x10)
	err := contents(t, folder)
	if err == nil {
		t.Fatal("no error")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 2 || !strings.Contains(err.Error(), "remove a/b/immutable: it or its folder is immutable") ||
		!strings.Contains(err.Error(), "remove fixed/inside: it or its folder is immutable") {
		t.Errorf("error %q", err)
	}
	for _, file := range []string{"a/b/plain", "other"} {
		if _, err := os.Lstat(filepath.Join(folder, file)); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", file, err)
		}
	}
}

func TestManyErrorsAreCounted(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	fixed := filepath.Join(folder, "fixed")
	must(t, os.Mkdir(fixed, 0o755))
	for i := range 25 {
		must(t, os.WriteFile(filepath.Join(fixed, fmt.Sprint(i)), nil, 0o644))
	}
	setFlags(t, fixed, 0x10)
	if err := contents(t, folder); err == nil || !strings.HasSuffix(err.Error(), "\nand 15 more") {
		t.Errorf("error %v", err)
	}
}
