package docker_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/docker"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/enginetest"
	"github.com/gantry-worker/gantry/services/docker-executor/removetree"
)

// buildHelper makes the program that helper containers run: one of this test's
// own, and so its image is, whoever else runs the same test on the engine.
func buildHelper(t *testing.T) string {
	t.Helper()
	return build(t, "./testdata/unprivileged", "-ldflags", "-X main.of="+rand.Text())
}

// helperImages returns the images that are made of a program, and has them
// removed at the end of the test.
func helperImages(t *testing.T, program string) func() []string {
	t.Helper()
	api, err := client.NewClientWithOpts(client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	label := fmt.Sprintf("%s=%x", engine.LabelHelper, sha256.Sum256(content))
	list := func() []string {
		found, err := api.ImageList(context.WithoutCancel(t.Context()), image.ListOptions{Filters: filters.NewArgs(filters.Arg("label", label))})
		if err != nil {
			t.Error(err)
		}
		var ids []string
		for _, one := range found {
			ids = append(ids, one.ID)
		}
		return ids
	}
	t.Cleanup(func() {
		for _, id := range list() {
			if _, err := api.ImageRemove(context.WithoutCancel(t.Context()), id, image.RemoveOptions{Force: true}); err != nil {
				t.Error(err)
			}
		}
		if err := api.Close(); err != nil {
			t.Error(err)
		}
	})
	return list
}

// rootTree makes a tree that only root may look into, in a folder that anybody
// may.
func rootTree(t *testing.T) string {
	t.Helper()
	tree := t.TempDir()
	if err := os.Chmod(filepath.Dir(tree), 0o755); err != nil { // nobody has to reach it
		t.Fatal(err)
	}
	secret := filepath.Join(tree, "secret")
	outside := filepath.Join(t.TempDir(), "outside")
	errs := []error{
		os.WriteFile(outside, []byte("kept"), 0o600),
		os.MkdirAll(filepath.Join(secret, "a/b/c"), 0o700),
		os.WriteFile(filepath.Join(secret, "a/b/file"), nil, 0o400),
		os.Symlink(outside, filepath.Join(secret, "a/link")),
		os.Symlink(filepath.Dir(outside), filepath.Join(tree, "folder-link")),
		unix.Mkfifo(filepath.Join(tree, "pipe"), 0o600),
		os.Mkdir(filepath.Join(tree, "sticky"), 0o1777),
		os.WriteFile(filepath.Join(tree, "sticky/theirs"), nil, 0o600),
		os.Chown(filepath.Join(tree, "sticky"), 4711, 4711),
		os.Chown(filepath.Join(tree, "sticky/theirs"), 4712, 4712),
		os.Chmod(filepath.Join(secret, "a"), 0o000),
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if data, err := os.ReadFile(outside); err != nil || string(data) != "kept" {
			t.Errorf("what was linked to is %q, %v", data, err)
		}
	})
	return tree
}

func TestRemoveTree(t *testing.T) {
	t.Parallel()
	program := buildHelper(t)
	e := newEngine(t, docker.Config{Program: program})
	if os.Geteuid() != 0 {
		enginetest.Unavailable(t, "files of root, and mounts, need root")
	}
	images := helperImages(t, program)
	t.Run("of root", func(t *testing.T) { removeTreeOfRoot(t, e, program, images) })
	t.Run("with something mounted in it", func(t *testing.T) { removeTreeWithMount(t, e) })
}

func removeTreeOfRoot(t *testing.T, e *docker.Engine, program string, images func() []string) {
	if err := os.Chmod(filepath.Dir(filepath.Dir(program)), 0o755); err != nil { // nobody has to reach it
		t.Fatal(err)
	}
	socket, err := os.Stat("/var/run/docker.sock")
	if err != nil {
		t.Fatal(err)
	}
	mark := rand.Text()
	remove := func(tree string) (string, error) {
		cmd := exec.CommandContext(t.Context(), program, tree, mark)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: socket.Sys().(*syscall.Stat_t).Gid}}
		text, err := cmd.CombinedOutput()
		return string(text), err
	}
	tree := rootTree(t)
	if text, err := remove(tree); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if left, err := os.ReadDir(tree); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	made := images()

	again := rootTree(t)
	fixed := filepath.Join(again, "secret/fixed")
	if err := os.WriteFile(fixed, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	setImmutable(t, fixed)
	text, err := remove(again)
	if err == nil || !strings.Contains(text, "remove what is in "+again) || !strings.Contains(text, "secret/fixed: it or its folder is immutable") {
		t.Errorf("with an immutable file: %v: %s", err, text)
	}
	if left, err := os.ReadDir(again); err != nil || len(left) != 1 {
		t.Errorf("left beside the immutable file: %v, %v", left, err)
	}
	if now := images(); len(made) != 1 || len(now) != 1 || now[0] != made[0] {
		t.Errorf("images %q, then %q, want one for both", made, now)
	}
	if list, err := e.List(t.Context(), map[string]string{"gantry.test": mark}); err != nil || len(list) != 0 {
		t.Errorf("containers left: %+v, %v", list, err)
	}
}

func setImmutable(t *testing.T, path string) {
	t.Helper()
	set := func(flags int) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close() //nolint:errcheck // only its attributes are changed
		return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags)
	}
	if err := set(0x10); err != nil {
		t.Skipf("a file cannot be made immutable here: %v", err)
	}
	t.Cleanup(func() {
		if err := set(0); err != nil {
			t.Error(err)
		}
	})
}

// removeTreeWithMount: what is mounted below the folder is another one's.
func removeTreeWithMount(t *testing.T, e *docker.Engine) {
	tree, other := t.TempDir(), t.TempDir()
	point := filepath.Join(tree, "point")
	errs := []error{
		os.Mkdir(point, 0o755), os.WriteFile(filepath.Join(tree, "plain"), nil, 0o600),
		os.WriteFile(filepath.Join(other, "kept"), nil, 0o600),
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(other, point, "", unix.MS_BIND, ""); err != nil {
		enginetest.Unavailable(t, "mount: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(point, unix.MNT_DETACH) }) // it went with its mount point
	id, err := removetree.IDOf(tree)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.RemoveTree(t.Context(), tree, id, nil); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(tree); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if _, err := os.Stat(filepath.Join(other, "kept")); err != nil {
		t.Errorf("what was mounted there: %v", err)
	}
}

func TestRemoveTreeRefusesADynamicProgram(t *testing.T) {
	t.Parallel()
	sh, err := filepath.EvalSymlinks("/bin/bash")
	if err != nil {
		t.Skip(err)
	}
	e := newEngine(t, docker.Config{Program: sh})
	dir := t.TempDir()
	if err := e.RemoveTree(t.Context(), dir, removetree.ID{}, nil); err == nil || !strings.Contains(err.Error(), "dynamically linked") || !strings.Contains(err.Error(), dir) {
		t.Errorf("error %v", err)
	}
}
