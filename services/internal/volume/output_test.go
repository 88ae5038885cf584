package volume_test

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/services/internal/volume"
)

// output opens a path on a volume and returns what is in it: a file's content,
// or a folder's names.
func output(v volume.Volume, rel string) (string, error) {
	root, err := os.OpenRoot(v.Host)
	if err != nil {
		return "", err
	}
	defer root.Close() //nolint:errcheck // only read
	f, err := volume.OpenOutput(root, rel)
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // only read
	if info, err := f.Stat(); err != nil {
		return "", err
	} else if info.IsDir() {
		names, err := f.Readdirnames(-1)
		return strings.Join(names, " "), err
	}
	data, err := io.ReadAll(f)
	return string(data), err
}

func TestOpenOutput(t *testing.T) {
	t.Parallel()
	v := setup(t)
	mkdir(t, v, "out/deep")
	write(t, filepath.Join(v.Host, "out/deep/file"))
	for rel, want := range map[string]string{"out/deep/file": "data", "./out/../out/deep//file": "data", "out/deep": "file", ".": "out"} {
		if got, err := output(v, rel); err != nil || got != want {
			t.Errorf("%s has %q, %v", rel, got, err)
		}
	}
	for rel, want := range map[string]error{
		"absent": fs.ErrNotExist, "absent/x": fs.ErrNotExist, "out/deep/file/x": unix.ENOTDIR,
		"../x": volume.ErrPath, "/out": volume.ErrPath, "": volume.ErrPath,
	} {
		if got, err := output(v, rel); !errors.Is(err, want) {
			t.Errorf("%q: %q, %v, want %v", rel, got, err, want)
		}
	}
}

func TestOpenOutputFollowsNoSymlink(t *testing.T) {
	t.Parallel()
	v := setup(t)
	secret := filepath.Join(t.TempDir(), "secret")
	write(t, secret)
	mkdir(t, v, "folder")
	write(t, filepath.Join(v.Host, "folder/real"))
	for name, target := range map[string]string{
		"etc": "/etc", "out": secret, "outdir": filepath.Dir(secret), "folder/shadow": "/etc/shadow", "up": "../..",
		"in": "folder/real", "indir": "folder", "dangling": "nowhere", "loop": "loop", "proc": "/proc/self/fd",
	} {
		if err := os.Symlink(target, filepath.Join(v.Host, name)); err != nil {
			t.Fatal(err)
		}
	}
	for rel, link := range map[string]string{
		"etc": "etc", "etc/shadow": "etc", "out": "out", "outdir/secret": "outdir", "folder/shadow": "folder/shadow", "up/x": "up",
		"in": "in", "indir/real": "indir", "indir": "indir", "dangling": "dangling", "loop": "loop", "proc/0": "proc",
	} {
		got, err := output(v, rel)
		if !errors.Is(err, volume.ErrSymlink) || !strings.Contains(err.Error(), link+" is a symbolic link") {
			t.Errorf("%s: %q, %v", rel, got, err)
		}
	}
}

// What is neither file nor folder is refused without being opened: the kernel
// reports no opening of it.
func TestOpenOutputOpensNothingElse(t *testing.T) {
	t.Parallel()
	v := setup(t)
	for kind, put := range map[string]func(path string) error{
		"named pipe": func(path string) error { return unix.Mkfifo(path, 0o666) },
		"device":     func(path string) error { return unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) },
		"socket": func(path string) error {
			at, err := net.Listen("unix", path)
			if err == nil {
				t.Cleanup(func() { _ = at.Close() })
			}
			return err
		},
	} {
		t.Run(kind, func(t *testing.T) {
			path := filepath.Join(v.Host, strings.ReplaceAll(kind, " ", "-"))
			if err := put(path); errors.Is(err, fs.ErrPermission) {
				t.Skipf("cannot make a %s: %v", kind, err)
			} else if err != nil {
				t.Fatal(err)
			}
			opened := watchOpens(t, path)
			got, err := output(v, filepath.Base(path))
			if !errors.Is(err, volume.ErrKind) || !strings.Contains(err.Error(), kind) {
				t.Errorf("%q, %v", got, err)
			}
			if _, err := output(v, filepath.Base(path)+"/x"); !errors.Is(err, volume.ErrKind) {
				t.Errorf("as a folder: %v", err)
			}
			if opened() {
				t.Error("it was opened")
			}
			if f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0); err == nil { // a socket cannot be opened
				_ = f.Close()
				if !opened() {
					t.Error("the kernel does not tell")
				}
			}
		})
	}
}

// watchOpens returns a function that says whether a file was opened since.
func watchOpens(t *testing.T, path string) func() bool {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	return func() bool {
		n, err := unix.Read(fd, make([]byte, 4096))
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			t.Fatal(err)
		}
		return n > 0
	}
}

// While somebody exchanges the parts of a path for links, pipes and others, an
// output is what was asked for, or refused.
func TestOpenOutputWhileItIsExchanged(t *testing.T) {
	t.Parallel()
	v := setup(t)
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "a"), []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	at := func(rel string) string { return filepath.Join(v.Host, rel) }
	mkdir(t, v, "out")
	write(t, at("out/a"))
	for link, target := range map[string]string{"linkdir": outside, "out/link": filepath.Join(outside, "a")} {
		if err := os.Symlink(target, at(link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(at("out/pipe"), 0o666); err != nil {
		t.Fatal(err)
	}
	exchange := func(a, b string) {
		if err := unix.Renameat2(unix.AT_FDCWD, at(a), unix.AT_FDCWD, at(b), unix.RENAME_EXCHANGE); err != nil && !errors.Is(err, unix.ENOENT) {
			t.Errorf("exchange %s and %s: %v", a, b, err)
		}
	}
	done := make(chan struct{})
	var exchanging sync.WaitGroup
	exchanging.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				exchange("out", "linkdir")
				exchange("out", "linkdir")
				exchange("out/a", "out/link")
				exchange("out/a", "out/pipe")
			}
		}
	})
	// Until each outcome was seen often enough: all of them come by chance.
	seen := map[string]int{}
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); {
		got, err := output(v, "out/a")
		switch {
		case err == nil && got == "data":
			seen["file"]++
		case errors.Is(err, volume.ErrSymlink):
			seen["link"]++
		case errors.Is(err, volume.ErrKind):
			seen["pipe"]++
		case errors.Is(err, fs.ErrNotExist): // between the two steps of somebody's exchange
		default:
			t.Fatalf("%q, %v", got, err)
		}
		if seen["file"] > 100 && seen["link"] > 100 && seen["pipe"] > 100 {
			break
		}
	}
	close(done)
	exchanging.Wait()
	if seen["file"] == 0 || seen["link"] == 0 {
		t.Errorf("not everything was tried: %v", seen)
	}
}
