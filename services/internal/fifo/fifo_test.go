package fifo_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/fifo"
	"github.com/gantry-worker/gantry/services/internal/volume"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const name = "pipe"

func setup(t *testing.T) volume.Volume {
	t.Helper()
	v, err := volume.Make(t.TempDir(), "/mnt")
	if err != nil {
		t.Fatal(err)
	}
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
	if err := v.MkdirAll("a/b"); err != nil {
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
			if _, err := fifo.Open(v, "x"); !errors.Is(err, test.want) || !strings.Contains(err.Error(), "x") {
				t.Errorf("open: %v", err)
			}
			if _, err := fifo.Hold(v, "x", contracts.PipeRead); !errors.Is(err, test.want) {
				t.Errorf("hold: %v", err)
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
	owner, err := fifo.Open(v, name)
	if err != nil {
		t.Fatal(err)
	}
	holder, err := fifo.Hold(v, name, contracts.PipeRead)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fifo.Open(v, name); !errors.Is(err, fifo.ErrOwned) {
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
	next, err := fifo.Open(v, name)
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

// shell starts a program that uses the pipe as a container does.
func shell(t *testing.T, v volume.Volume, script string) (*exec.Cmd, io.WriteCloser, io.ReadCloser) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
	cmd.Dir = v.Host
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, in, out
}

// say lets the program go on with its next step and awaits that it did it.
func say(t *testing.T, in io.Writer, out io.Reader) {
	t.Helper()
	if _, err := io.WriteString(in, "\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

// A writer whose reader died goes on where the read end is held, and what it
// wrote waits for the next owner.
func TestAHeldPipeSparesItsWriter(t *testing.T) {
	t.Parallel()
	v := setup(t)
	owner, err := fifo.Open(v, name)
	if err != nil {
		t.Fatal(err)
	}
	holder, err := fifo.Hold(v, name, contracts.PipeRead)
	if err != nil {
		t.Fatal(err)
	}
	cmd, in, out := shell(t, v, `exec 3>pipe; read x; echo one >&3; printf .; read x; echo two >&3; printf .; read x; echo three >pipe; printf .`)
	say(t, in, out)
	closeAll(t, owner)
	say(t, in, out)
	say(t, in, out)
	if err := cmd.Wait(); err != nil {
		t.Errorf("the writer ended with %v", err)
	}
	next, err := fifo.Open(v, name)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 64)
	n, err := next.Read(got)
	if err != nil || string(got[:n]) != "one\ntwo\nthree\n" {
		t.Errorf("read %q, %v", got[:n], err)
	}
	closeAll(t, next, holder)
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
	cmd, _, out := shell(t, v, `exec 3<pipe; while read line <&3; do printf "%s" "$line"; done; printf E`)
	for _, part := range []string{"a", "b"} { // each by a writer of its own, that leaves
		f, err := os.OpenFile(filepath.Join(v.Host, name), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(part + "\n"); err != nil {
			t.Error(err)
		}
		closeAll(t, f)
		got := make([]byte, 1)
		if _, err := io.ReadFull(out, got); err != nil || string(got) != part {
			t.Errorf("the reader got %q, %v", got, err)
		}
	}
	closeAll(t, holder)
	if rest, err := io.ReadAll(out); err != nil || string(rest) != "E" {
		t.Errorf("after the hold %q, %v", rest, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the reader ended with %v", err)
	}
}
