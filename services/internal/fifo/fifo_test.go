package fifo_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/leaktest"
	"github.com/gantry-worker/gantry/services/internal/fifo"
	"github.com/gantry-worker/gantry/services/internal/volume"
)

// TestMain runs the tests, or what a test starts as a process of its own.
func TestMain(m *testing.M) {
	if part := os.Getenv(partEnv); part != "" {
		os.Exit(play(part))
	}
	leaktest.Main(m)
}

const name = "pipe"

func setup(t *testing.T) volume.Volume {
	t.Helper()
	v := volume.Volume{Host: t.TempDir()}
	if err := fifo.Make(v, name); err != nil {
		t.Fatal(err)
	}
	return v
}

func closeAll(t *testing.T, all ...io.Closer) {
	t.Helper()
	for _, c := range all {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

func checkMode(t *testing.T, v volume.Volume) {
	t.Helper()
	info, err := os.Lstat(filepath.Join(v.Host, name))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != fs.ModeNamedPipe|0o666 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestMakeWhateverTheUmask(t *testing.T) {
	// Not parallel: the umask belongs to the whole process.
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	checkMode(t, setup(t))
}

func TestMakeInAFolderOfTheVolume(t *testing.T) {
	t.Parallel()
	v := setup(t)
	if err := os.MkdirAll(filepath.Join(v.Host, "a/b"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := fifo.Make(v, "a/./b/../b/p"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(filepath.Join(v.Host, "a/b/p")); err != nil || info.Mode().Type() != fs.ModeNamedPipe {
		t.Errorf("made %v, error %v", info, err)
	}
	if err := fifo.Make(v, "../x"); !errors.Is(err, volume.ErrPath) {
		t.Errorf("outside: %v", err)
	}
	if err := fifo.Make(v, "no/folder/x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent folder: %v", err)
	}
}

// What stands in a pipe's place and is none is neither opened nor removed.
func TestWhatIsNoPipeIsRefused(t *testing.T) {
	t.Parallel()
	for kind, test := range map[string]struct {
		put  func(file string) error
		want error
	}{
		"file":         {func(file string) error { return os.WriteFile(file, nil, 0o644) }, fifo.ErrNoPipe},
		"folder":       {func(file string) error { return os.Mkdir(file, 0o755) }, fifo.ErrNoPipe},
		"device":       {func(file string) error { return unix.Mknod(file, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) }, fifo.ErrNoPipe},
		"socket":       {func(file string) error { return unix.Mknod(file, unix.S_IFSOCK|0o666, 0) }, fifo.ErrNoPipe},
		"link to pipe": {func(file string) error { return os.Symlink(name, file) }, volume.ErrSymlink},
		"link outside": {func(file string) error { return os.Symlink("/dev/zero", file) }, volume.ErrSymlink},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			v := setup(t)
			file := filepath.Join(v.Host, "x")
			if err := test.put(file); errors.Is(err, fs.ErrPermission) {
				t.Skipf("cannot make a %s: %v", kind, err)
			} else if err != nil {
				t.Fatal(err)
			}
			if _, err := fifo.OpenReader(v, "x", fifo.Owner); !errors.Is(err, test.want) || !strings.Contains(err.Error(), "x") {
				t.Errorf("open: %v", err)
			}
			for _, end := range []contracts.PipeEnd{contracts.PipeRead, contracts.PipeWrite} {
				if _, err := fifo.Hold(v, "x", end); !errors.Is(err, test.want) {
					t.Errorf("hold of the %s end: %v", end, err)
				}
			}
			if err := fifo.Make(v, "x"); !errors.Is(err, test.want) || (test.want == fifo.ErrNoPipe && !errors.Is(err, fs.ErrExist)) {
				t.Errorf("make: %v", err)
			}
			_ = fifo.Remove(v, "x")
			if _, err := os.Lstat(file); err != nil {
				t.Errorf("after remove: %v", err)
			}
		})
	}
}

// A pipe is its owner's until that one closes it, also against a new one; a
// holder beside it owns nothing.
func TestAPipeHasOneOwner(t *testing.T) {
	t.Parallel()
	v := setup(t)
	owner, err := fifo.OpenReader(v, name, fifo.Owner)
	if err != nil {
		t.Fatal(err)
	}
	holder, err := fifo.Hold(v, name, contracts.PipeRead)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fifo.OpenReader(v, name, fifo.Owner); !errors.Is(err, fifo.ErrOwned) {
		t.Errorf("opened by a second owner: %v", err)
	}
	if err := fifo.Make(v, name); !errors.Is(err, fifo.ErrOwned) || !errors.Is(err, fs.ErrExist) {
		t.Errorf("made while it is owned: %v", err)
	}
	if err := fifo.Remove(v, name); err != nil {
		t.Error(err)
	}
	checkMode(t, v) // it is still there
	closeAll(t, owner)

	if err := os.Chmod(filepath.Join(v.Host, name), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := fifo.Make(v, name); err != nil {
		t.Errorf("made after it was left: %v", err)
	}
	checkMode(t, v)
	next, err := fifo.OpenReader(v, name, fifo.Owner)
	if err != nil {
		t.Fatalf("opened after it was left: %v", err)
	}
	closeAll(t, next, holder)
	for range 2 { // what is not there is no error
		if err := fifo.Remove(v, name); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(filepath.Join(v.Host, name)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the pipe is still there, error %v", err)
	}
}

// A writer whose reader died goes on where the read end is held, and what it
// wrote waits for the next owner.
func TestAHeldPipeSparesItsWriter(t *testing.T) {
	t.Parallel()
	v := setup(t)
	owner := openReader(t, v)
	holder, err := fifo.Hold(v, name, contracts.PipeRead)
	if err != nil {
		t.Fatal(err)
	}
	c := shell(t, v, `exec 3>pipe; echo one >&3; printf .; read x; echo two >&3; echo three >pipe`)
	c.did()
	closeAll(t, owner)
	c.goOn()
	if said := c.says(); said != "" {
		t.Errorf("the container said %q", said)
	}
	expect(t, openReader(t, v), "one\ntwo\nthree\n")
	closeAll(t, holder)
}

// A reader whose writer died sees no end where the write end is held, and sees
// it when the hold is given up.
func TestAHeldPipeSparesItsReader(t *testing.T) {
	t.Parallel()
	v := setup(t)
	holder, err := fifo.Hold(v, name, contracts.PipeWrite)
	if err != nil {
		t.Fatal(err)
	}
	mover := as(t, v, "move and hold")
	c := shell(t, v, `exec 3<pipe; head -c 4 <&3; printf .; cat <&3; printf E`)
	mover.did()
	expect(t, c.out, "half.")
	mover.die()
	next, err := fifo.OpenWriter(v, name, fifo.Beside) // the container is still there
	if err != nil {
		t.Fatal(err)
	}
	if _, err := next.Write([]byte("more")); err != nil {
		t.Error(err)
	}
	closeAll(t, next)
	expect(t, c.out, "more")
	closeAll(t, holder)
	if said := c.says(); said != "E" {
		t.Errorf("after the hold the container said %q", said)
	}
}

func TestHoldOfNoEnd(t *testing.T) {
	t.Parallel()
	if held, err := fifo.Hold(setup(t), name, "both"); err == nil || held != nil {
		t.Errorf("held %v, %v", held, err)
	}
	if held, err := fifo.Hold(setup(t), "absent", contracts.PipeWrite); !errors.Is(err, fs.ErrNotExist) || held != nil {
		t.Errorf("held %v, %v", held, err)
	}
}

func TestMakePrivate(t *testing.T) {
	t.Parallel()
	v := setup(t)
	if err := fifo.MakePrivate(v, "p"); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(filepath.Join(v.Host, "p"))
	if err != nil || info.Mode() != fs.ModeNamedPipe|0o600 {
		t.Errorf("made %v, %v", info, err)
	}
}
