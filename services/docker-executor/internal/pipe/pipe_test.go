package pipe_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/pipe"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/volume"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const name = ".girder_progress"

func setup(t *testing.T) (volume.Volume, *pipe.Progress) {
	t.Helper()
	v, err := volume.Make(t.TempDir(), "/mnt")
	if err != nil {
		t.Fatal(err)
	}
	if err := pipe.Make(v, name); err != nil {
		t.Fatal(err)
	}
	p, err := pipe.OpenProgress(v, name)
	if err != nil {
		t.Fatal(err)
	}
	return v, p
}

// write opens the pipe as a container does, writes, and leaves.
func write(t *testing.T, v volume.Volume, text string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(v.Host, name), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func TestMakeWhateverTheUmask(t *testing.T) {
	// Not parallel: the umask belongs to the whole process.
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	v, p := setup(t)
	p.Ended()
	if err := p.Run(t.Context(), func(pipe.State) {}); err != nil {
		t.Error(err)
	}
	info, err := os.Lstat(filepath.Join(v.Host, name))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != fs.ModeNamedPipe|0o666 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestMakeRefuses(t *testing.T) {
	t.Parallel()
	v, err := volume.Make(t.TempDir(), "/mnt")
	if err != nil {
		t.Fatal(err)
	}
	if err := pipe.Make(v, "../x"); !errors.Is(err, volume.ErrPath) {
		t.Errorf("outside: %v", err)
	}
	if err := pipe.Make(v, "no/folder/x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent folder: %v", err)
	}
	if err := pipe.Make(v, "x"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(v.Host, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := pipe.Make(v, "file"); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "file") {
		t.Errorf("in a file's place: %v", err)
	}
	if err := pipe.Remove(v, "file"); err != nil {
		t.Errorf("remove of a plain file: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(v.Host, "file")); err != nil {
		t.Errorf("the plain file is gone: %v", err)
	}
	if _, err := pipe.OpenProgress(v, "file"); !errors.Is(err, pipe.ErrNoPipe) {
		t.Errorf("open of a plain file: %v", err)
	}
	if err := os.Symlink("x", filepath.Join(v.Host, "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := pipe.OpenProgress(v, "link"); !errors.Is(err, volume.ErrSymlink) {
		t.Errorf("open of a link: %v", err)
	}
}

// A pipe that was left is taken over and removed, one that is read is neither.
func TestAPipeThatIsReadIsLeftToItsReader(t *testing.T) {
	t.Parallel()
	v, p := setup(t)
	file := filepath.Join(v.Host, name)
	if err := pipe.Make(v, name); !errors.Is(err, fs.ErrExist) {
		t.Errorf("made while it is read: %v", err)
	}
	if err := pipe.Remove(v, name); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(file); err != nil {
		t.Fatalf("the pipe was removed under its reader: %v", err)
	}
	p.Ended()
	if err := p.Run(t.Context(), func(pipe.State) {}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := pipe.Make(v, name); err != nil {
		t.Errorf("made after it was left: %v", err)
	}
	if info, err := os.Lstat(file); err != nil || info.Mode() != fs.ModeNamedPipe|0o666 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
	for range 2 { // what is not there is no error
		if err := pipe.Remove(v, name); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the pipe is still there, error %v", err)
	}
}

func TestProgressOpenedManyTimes(t *testing.T) {
	t.Parallel()
	v, p := setup(t)
	states := make(chan pipe.State)
	done := make(chan error, 1)
	go func() { done <- p.Run(t.Context(), func(s pipe.State) { states <- s }) }()
	for i, line := range []string{`{"total":3,"current":1}` + "\n", `{"current":2}` + "\n", `{"current":3,"message":"last"}` + "\n"} {
		write(t, v, line)
		if s := <-states; *s.Current != float64(i+1) || *s.Total != 3 {
			t.Errorf("state %d: %v of %v", i, *s.Current, *s.Total)
		}
	}
	p.Ended()
	p.Ended()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestProgressDrained: what a container wrote just before its end, with nobody
// reading, arrives, also the line without a newline.
func TestProgressDrained(t *testing.T) {
	t.Parallel()
	v, p := setup(t)
	write(t, v, "{\"current\":1}\nnoise\n{\"current\":2}")
	p.Ended()
	var last float64
	if err := p.Run(t.Context(), func(s pipe.State) { last = *s.Current }); err != nil {
		t.Fatal(err)
	}
	if last != 2 || p.Ignored() != 1 {
		t.Errorf("last %v, %d ignored", last, p.Ignored())
	}
}

func TestProgressCanceled(t *testing.T) {
	t.Parallel()
	_, p := setup(t)
	why := errors.New("revoked")
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx, func(pipe.State) {}) }()
	cancel(why)
	if err := <-done; !errors.Is(err, why) {
		t.Errorf("run: %v, want its cause", err)
	}
}

func TestProgressNeverOpenedByTheContainer(t *testing.T) {
	t.Parallel()
	_, p := setup(t)
	done := make(chan error, 1)
	go func() { done <- p.Run(t.Context(), func(s pipe.State) { t.Errorf("state %+v", s) }) }()
	p.Ended()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
