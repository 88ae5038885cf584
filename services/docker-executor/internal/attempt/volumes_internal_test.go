package attempt

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAFolderHasItsModeWithItsName, also after a crash in between, and one that
// is there keeps its own.
func TestAFolderHasItsModeWithItsName(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	in := func(name string) string { return filepath.Join(parent, name) }
	check := func(name string, want fs.FileMode) {
		t.Helper()
		if info, err := os.Lstat(in(name)); err != nil || info.Mode() != fs.ModeDir|want {
			t.Errorf("%s: %v, %v, want %v", name, info, err, want)
		}
	}
	errs := []error{
		makeFolder(in("made"), in("made.new"), temporaryMode),
		os.Mkdir(in("crashed.new"), 0o700), makeFolder(in("crashed"), in("crashed.new"), 0o772),
		os.Mkdir(in("there"), 0o700), makeFolder(in("there"), in("there.new"), 0o777),
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	check("made", temporaryMode)
	check("crashed", 0o772)
	check("there", 0o700)
	if err := os.Symlink(in("there"), in("link")); err != nil {
		t.Fatal(err)
	}
	if err := makeFolder(in("link"), in("link.new"), 0o777); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("a link in its place: %v", err)
	}
	check("there", 0o700)
	for _, what := range []string{"made", "there"} { // nothing that has the name is replaced
		if err := os.Mkdir(in("mine"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := rename(in("mine"), in(what)); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v", what, err)
		}
		if err := os.Remove(in("mine")); err != nil {
			t.Error(err)
		}
	}
	left, err := filepath.Glob(in("*.new"))
	if err != nil || len(left) != 0 {
		t.Errorf("left are %q, %v", left, err)
	}
}
