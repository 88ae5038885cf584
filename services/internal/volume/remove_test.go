package volume_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/services/internal/volume"
)

const nobody = 65534

// asNobody runs do without root's rights, where the tests have them.
func asNobody(t *testing.T, do func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		do()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// For this thread alone, which ends with the goroutine.
		runtime.LockOSThread()
		if _, _, err := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); err != 0 {
			t.Errorf("become nobody: %v", err)
			return
		}
		do()
	}()
	<-done
}

// tree makes a volume of nobody's with folders that are closed or read-only.
func tree(t *testing.T) volume.Volume {
	t.Helper()
	parent := t.TempDir()
	if err := errors.Join(os.Chmod(filepath.Dir(parent), 0o755), os.Chmod(parent, 0o777)); err != nil {
		t.Fatal(err)
	}
	v := volume.Volume{Host: filepath.Join(parent, "volume")}
	mkdir(t, v, "closed/deep/er")
	mkdir(t, v, "read-only/deep")
	write(t, filepath.Join(v.Host, "closed/deep/file"))
	write(t, filepath.Join(v.Host, "read-only/deep/file"))
	var err error
	if os.Geteuid() == 0 {
		err = filepath.WalkDir(v.Host, func(path string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Lchown(path, nobody, nobody))
		})
	}
	for _, shut := range []struct { // the inner ones first
		rel  string
		mode fs.FileMode
	}{{"closed/deep", 0}, {"closed", 0}, {"read-only/deep", 0o555}, {"read-only", 0o500}, {".", 0o111}} {
		err = errors.Join(err, os.Chmod(filepath.Join(v.Host, shut.rel), shut.mode))
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestRemoveOfClosedFoldersWithoutRootsRights(t *testing.T) {
	t.Parallel()
	v := tree(t)
	asNobody(t, func() {
		if err := v.Remove(); err != nil {
			t.Error(err)
		}
	})
	if _, err := os.Lstat(v.Host); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
}

// What is somebody else's stays, everything around it goes, and the error says
// what stays.
func TestRemoveOfWhatIsSomebodyElses(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("cannot make folders of somebody else's")
	}
	v := tree(t)
	foreign := filepath.Join(v.Host, "closed/foreign")
	if err := errors.Join(os.Mkdir(foreign, 0o700), os.WriteFile(filepath.Join(foreign, "file"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	asNobody(t, func() {
		if err := v.Remove(); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("removed: %v", err)
		}
	})
	var left []string
	_ = filepath.WalkDir(v.Host, func(path string, _ fs.DirEntry, _ error) error {
		rel, err := filepath.Rel(v.Host, path)
		left = append(left, rel)
		return err
	})
	if len(left) != 4 || left[3] != "closed/foreign/file" {
		t.Errorf("left: %v", left)
	}
	if err := v.Remove(); err != nil {
		t.Errorf("with root's rights: %v", err)
	}
}

// What is ours goes also where the folder it is in stays: a sticky one lets only
// owners remove what is in it.
func TestRemoveBelowWhatStays(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("cannot make folders of somebody else's")
	}
	v := setup(t)
	parent := filepath.Dir(v.Host) // which the umask may have closed
	if err := errors.Join(os.Chmod(filepath.Dir(parent), 0o755), os.Chmod(parent, 0o755)); err != nil {
		t.Fatal(err)
	}
	at := func(rel string) string { return filepath.Join(v.Host, rel) }
	mkdir(t, v, "sticky/foreign")
	write(t, at("sticky/foreign/ours"))
	write(t, at("sticky/file"))
	err := errors.Join(os.Chmod(at("sticky"), 0o777|fs.ModeSticky), os.Lchown(at("sticky/foreign/ours"), nobody, nobody))
	if err != nil {
		t.Fatal(err)
	}
	asNobody(t, func() {
		if err := v.Remove(); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("removed: %v", err)
		}
	})
	if _, err := os.Lstat(at("sticky/foreign/ours")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ours is left: %v", err)
	}
	if _, err := os.Lstat(at("sticky/file")); err != nil {
		t.Errorf("the other's is gone: %v", err)
	}
}

// removeEnv names a folder that this binary, started by a test, is to remove.
const removeEnv = "VOLUME_TEST_REMOVE"

func TestMain(m *testing.M) {
	folder := os.Getenv(removeEnv)
	if folder == "" {
		os.Exit(m.Run())
	}
	few := unix.Rlimit{Cur: 100, Max: 100}
	if err := errors.Join(unix.Setrlimit(unix.RLIMIT_NOFILE, &few), volume.RemoveTree(folder)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A tree may be deeper than there are descriptors, and than any path is long.
func TestRemoveOfADeepTree(t *testing.T) {
	t.Parallel()
	v := setup(t)
	at, err := unix.Open(v.Host, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("d", 100)
	for range 300 {
		err := errors.Join(unix.Mkdirat(at, long, 0o777), unix.Mknodat(at, ".deep-1", unix.S_IFREG|0o600, 0))
		if err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(at, long, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err := errors.Join(err, unix.Close(at)); err != nil {
			t.Fatal(err)
		}
		at = next
	}
	if err := unix.Close(at); err != nil {
		t.Error(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), removeEnv+"="+v.Host)
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, said)
	}
	if _, err := os.Lstat(v.Host); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
}

// A container that sees the folder above may put something into its place.
func TestRemoveTreeOfSomethingElse(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	write(t, filepath.Join(outside, "kept"))
	dir := t.TempDir()
	for name, put := range map[string]func(path string) error{
		"file":    func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"link":    func(path string) error { return os.Symlink(outside, path) },
		"pipe":    func(path string) error { return unix.Mkfifo(path, 0o600) },
		"nothing": func(string) error { return nil },
	} {
		path := filepath.Join(dir, name)
		if err := put(path); err != nil {
			t.Fatal(err)
		}
		if err := volume.RemoveTree(path); err != nil {
			t.Errorf("remove of a %s: %v", name, err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the %s is left: %v", name, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(outside, "kept")); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
	if err := volume.RemoveTree(filepath.Join(dir, "absent", "x")); err != nil {
		t.Errorf("remove of nothing: %v", err)
	}
}
