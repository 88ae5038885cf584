package folder_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/leaktest"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/folder"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func about(job contracts.JobID) folder.About {
	return folder.About{Job: job, Attempt: 2, Executor: "ex", Reply: "$JS.ACK.x", Container: "gantry-" + string(job) + "-2"}
}

func create(t *testing.T, root string, job contracts.JobID) *folder.Folder {
	t.Helper()
	f, err := folder.Create(root, about(job))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestALockedFolderIsNobodyElses(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	f := create(t, root, "job")
	if _, err := folder.Take(root, "job", 2); !errors.Is(err, folder.ErrLocked) {
		t.Errorf("taken with %v", err)
	}
	if _, err := folder.Create(root, about("job")); !errors.Is(err, folder.ErrLocked) {
		t.Errorf("created with %v", err)
	}
	if free, err := folder.Abandoned(root); len(free) != 0 || err != nil {
		t.Errorf("%d are abandoned, error %v", len(free), err)
	}
	want := about("job")
	want.Pipes = []contracts.Pipe{{Volume: "/data", Name: "a"}, {Volume: "/data", Name: "b"}}
	want.Volumes = []folder.Volume{{Host: "/host", Container: "/mnt", ReadOnly: true}}
	want.Exit = &engine.Exit{Code: 3, FinishedAt: time.Unix(7, 0).UTC()}
	f.About = want
	if err := f.Note(); err != nil {
		t.Fatal(err)
	}
	if !folder.Has(root, "job", 2) || folder.Has(root, "job", 1) {
		t.Error("the folder is not seen, or another one is")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := folder.Take(root, "job", 2)
	if err != nil || !reflect.DeepEqual(again.About, want) {
		t.Fatalf("taken %+v, error %v", again, err)
	}
	if err := again.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := folder.Take(root, "job", 2); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("taken with %v", err)
	}
}

// A process that is just being started has a copy of the lock's descriptor until
// it runs its program: a folder that is given back is free all the same.
func TestALockThatAStartingProcessHasACopyOf(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	f := create(t, root, "job")
	file := copyOf(t, filepath.Join(f.Path(), "lock"))
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := folder.Take(root, "job", 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(again.Remove(), file.Close()); err != nil {
		t.Error(err)
	}
}

// copyOf returns another descriptor of a file that this process has open.
func copyOf(t *testing.T, path string) *os.File {
	t.Helper()
	open, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range open {
		if to, err := os.Readlink(link); err != nil || to != path {
			continue
		}
		fd, err := strconv.Atoi(filepath.Base(link))
		if err != nil {
			t.Fatal(err)
		}
		same, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return os.NewFile(uintptr(same), path)
	}
	t.Fatalf("%s is not open", path)
	return nil
}

// Of many that take an abandoned folder at once one gets it, and a folder that
// is made at the same time is whole.
func TestOneOfManyTakesAFolder(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := create(t, root, "job").Close(); err != nil {
		t.Fatal(err)
	}
	var (
		mu    sync.Mutex
		taken []*folder.Folder
		many  sync.WaitGroup
	)
	for range 8 {
		many.Go(func() {
			f, err := folder.Take(root, "job", 2)
			if err != nil {
				if !errors.Is(err, folder.ErrLocked) {
					t.Error(err)
				}
				return
			}
			mu.Lock()
			defer mu.Unlock()
			taken = append(taken, f)
		})
	}
	many.Wait()
	if len(taken) != 1 {
		t.Fatalf("%d took the folder", len(taken))
	}
	if err := taken[0].Remove(); err != nil {
		t.Error(err)
	}
}

// However making, looking for and removing interleave, one at a time has the
// folder of an attempt.
func TestAFolderThatComesAndGoesHasOneOwner(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	var (
		owners atomic.Int32
		many   sync.WaitGroup
	)
	own := func(f *folder.Folder, err error) {
		if err != nil {
			return // somebody else has it
		}
		if n := owners.Add(1); n != 1 {
			t.Errorf("%d have the folder", n)
		}
		for range 20 {
			runtime.Gosched()
		}
		if !folder.Has(root, "job", 2) {
			t.Error("it was removed by another one")
		}
		owners.Add(-1)
		_ = f.Remove() // what others put there meanwhile is theirs to remove
	}
	for range 8 {
		many.Go(func() {
			for range 500 {
				own(folder.Create(root, folder.About{Job: "job", Attempt: 2}))
				own(folder.Take(root, "job", 2))
			}
		})
	}
	many.Wait()
}

// A removal that was cut short leaves a folder of no attempt.
func TestAHalfRemovedFolderIsNoAttempts(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	f := create(t, root, "job")
	if err := errors.Join(f.Close(), os.Rename(f.Path(), filepath.Join(root, "attempts", ".gone-x"))); err != nil {
		t.Fatal(err)
	}
	if folder.Has(root, "job", 2) {
		t.Error("the attempt has it")
	}
	free, err := folder.Abandoned(root)
	if len(free) != 1 || free[0].Job != "" || err != nil {
		t.Fatalf("abandoned %+v, error %v", free, err)
	}
	if err := free[0].Remove(); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(root, "attempts", "*")); len(left) != 0 || err != nil {
		t.Errorf("%v is left, error %v", left, err)
	}
}

func TestWhatAnEarlierClaimLeftIsRemoved(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	stale := create(t, root, "job")
	if err := os.WriteFile(filepath.Join(stale.VolumesDir(), "old"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}
	f := create(t, root, "job")
	if _, err := os.Stat(filepath.Join(f.VolumesDir(), "old")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old file: %v", err)
	}
}

// Another installation may have a job of the same id, whose container runs.
func TestWhatAnotherInstallationLeftIsNotRemoved(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	theirs := about("job")
	theirs.Installation = "theirs"
	f, err := folder.Create(root, theirs)
	if err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(f.VolumesDir(), "file")
	if err := errors.Join(os.WriteFile(kept, nil, 0o600), f.Close()); err != nil {
		t.Fatal(err)
	}
	ours := about("job")
	ours.Installation = "ours"
	if _, err := folder.Create(root, ours); !errors.Is(err, folder.ErrForeign) {
		t.Errorf("made over another installation's, error %v", err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
	again, err := folder.Create(root, theirs)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Remove(); err != nil {
		t.Error(err)
	}
}

func TestStepResults(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	f := create(t, root, "job")
	if result, err := f.StepResult("in-0"); result != nil || err != nil {
		t.Errorf("result %+v, error %v", result, err)
	}
	path := filepath.Join(root, f.Relative(), "steps", "in-0.json")
	if err := os.WriteFile(path, []byte(`{"version":1,"step":"in-0","outcome":"done","path":"a/b","later":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if result, err := f.StepResult("in-0"); err != nil || result.Outcome != contracts.StepDone || result.Path != "a/b" {
		t.Errorf("result %+v, error %v", result, err)
	}
	if err := os.WriteFile(path, []byte(`{`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.StepResult("in-0"); err == nil || !strings.Contains(err.Error(), "in-0") {
		t.Errorf("half a result: %v", err)
	}
}

// A link that a container leaves leads the removal nowhere else.
func TestRemoveFollowsNoLinks(t *testing.T) {
	t.Parallel()
	root, outside := t.TempDir(), t.TempDir()
	keep := filepath.Join(outside, "keep")
	if err := os.WriteFile(keep, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f := create(t, root, "job")
	if err := os.Symlink(outside, filepath.Join(f.VolumesDir(), "link")); err != nil {
		t.Fatal(err)
	}
	deep := filepath.Join(f.VolumesDir(), "readonly", "deep")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(deep), 0o555); err != nil {
		t.Fatal(err)
	}
	if err := f.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(keep); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(root, "attempts", "*")); len(left) != 0 || err != nil {
		t.Errorf("%v is left, error %v", left, err)
	}
}

func TestAnUnreadableFolderHidesNoOther(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := create(t, root, "b").Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(root, "attempts", "a.2", "attempt.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	free, err := folder.Abandoned(root)
	if len(free) != 1 || free[0].Job != "b" || err == nil || !strings.Contains(err.Error(), "a.2") {
		t.Fatalf("abandoned %+v, error %v", free, err)
	}
	if err := free[0].Remove(); err != nil {
		t.Error(err)
	}
}

// What a host that goes down leaves of the note may be half of it, or nothing.
func TestAFolderWithATornNoteIsKnownByItsName(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	f := create(t, root, "job")
	if err := errors.Join(os.WriteFile(filepath.Join(f.Path(), "attempt.json"), []byte(`{"job":"jo`), 0o600), f.Close()); err != nil {
		t.Fatal(err)
	}
	torn, err := folder.Take(root, "job", 2)
	if err != nil || torn.Job != "job" || torn.Attempt != 2 {
		t.Fatalf("taken %+v, error %v", torn, err)
	}
	if err := torn.Remove(); err != nil {
		t.Error(err)
	}
}

// strangerEnv has the work folder for a test that must not run as root.
const strangerEnv = "GANTRY_TEST_STRANGER"

// stranger is a user who is not root.
const stranger = 65534

// TestWhatMayNotBeRemoved is emptied by somebody else, who is asked only then.
// The folder is that of a user who is not root, since nothing stops root.
func TestWhatMayNotBeRemoved(t *testing.T) {
	if root := os.Getenv(strangerEnv); root != "" {
		removeAsStranger(t, root)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("only root makes what is somebody else's")
	}
	root := t.TempDir()
	for _, dir := range []string{root, filepath.Dir(root)} { // those that the test has of its own
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	f, err := folder.Create(root, folder.About{Job: "job", Attempt: 1})
	if err == nil {
		err = errors.Join(f.Close(), filepath.WalkDir(root, func(path string, _ fs.DirEntry, _ error) error { return os.Chown(path, stranger, stranger) }))
	}
	program := filepath.Join(root, "test")
	data, readErr := os.ReadFile("/proc/self/exe")
	foreign := filepath.Join(f.VolumesDir(), "foreign")
	if err = errors.Join(err, readErr, os.WriteFile(program, data, 0o755), os.Mkdir(foreign, 0o755), os.WriteFile(filepath.Join(foreign, "file"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), program, "-test.run=^TestWhatMayNotBeRemoved$")
	child.Dir, child.Env, child.Stderr = root, append(os.Environ(), strangerEnv+"="+root), os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stranger, Gid: stranger}}
	answer, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	asked, err := child.StdoutPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(asked)
	if !lines.Scan() || filepath.Dir(lines.Text()) != filepath.Join(root, "attempts") {
		t.Errorf("asked to empty %q", lines.Text())
	} else if err := os.RemoveAll(filepath.Join(lines.Text(), "volumes")); err != nil {
		t.Error(err)
	}
	if err := answer.Close(); err != nil {
		t.Error(err)
	}
	if out, err := io.ReadAll(asked); err != nil || child.Wait() != nil {
		t.Errorf("the stranger failed: %s, %v", out, err)
	}
	if left, err := filepath.Glob(filepath.Join(root, "attempts", "*")); err != nil || len(left) != 0 {
		t.Errorf("left are %v, error %v", left, err)
	}
}

func removeAsStranger(t *testing.T, root string) {
	f, err := folder.Take(root, "job", 1)
	if err != nil {
		t.Fatal(err)
	}
	err = f.RemoveWith(func(path string) error {
		fmt.Println(path)
		_, err := io.ReadAll(os.Stdin)
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
