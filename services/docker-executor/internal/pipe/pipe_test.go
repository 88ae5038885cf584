package pipe_test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/leaktest"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/pipe"
	"github.com/gantry-worker/gantry/services/internal/fifo"
	"github.com/gantry-worker/gantry/services/internal/volume"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

const name = ".girder_progress"

func setup(t *testing.T) (volume.Volume, *pipe.Progress) {
	t.Helper()
	v := volume.Volume{Host: t.TempDir()}
	if err := fifo.Make(v, name); err != nil {
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

// What a container wrote while its executor was dead waits for the adopter, and
// the container notices nothing.
func TestProgressAdopted(t *testing.T) {
	t.Parallel()
	v, p := setup(t)
	holder, err := fifo.Hold(v, name, contracts.PipeRead)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close() //nolint:errcheck // nothing was written
	steps, out := container(t, v)
	step := func() {
		t.Helper()
		if _, err := io.WriteString(steps, "go\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
			t.Fatalf("the container died: %v", err)
		}
	}

	first := make(chan pipe.State, 1)
	ctx, die := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx, func(s pipe.State) { first <- s }) }()
	step()
	if s := <-first; *s.Current != 1 {
		t.Errorf("first %v", *s.Current)
	}
	if _, err := pipe.OpenProgress(v, name); !errors.Is(err, fifo.ErrOwned) {
		t.Errorf("opened while its owner lives: %v", err)
	}
	die()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("run: %v", err)
	}
	step() // with nobody but the holder there
	step()

	adopted, err := pipe.OpenProgress(v, name)
	if err != nil {
		t.Fatal(err)
	}
	var got []float64
	seen := make(chan struct{}, 10)
	go func() {
		done <- adopted.Run(t.Context(), func(s pipe.State) {
			got = append(got, *s.Current)
			seen <- struct{}{}
		})
	}()
	<-seen
	<-seen
	step()
	adopted.Ended()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(got) != 3 || got[0] != 2 || got[2] != 4 || adopted.Ignored() != 0 {
		t.Errorf("adopter got %v, %d ignored", got, adopted.Ignored())
	}
}

// container runs a program that opens the pipe once and writes a line for each
// that it gets, and says so.
func container(t *testing.T, v volume.Volume) (steps io.Writer, out io.Reader) {
	t.Helper()
	// It ends with its input, and not by a signal when the test is over.
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "sh", "-c",
		`exec 3>`+name+`; n=0; while read x; do n=$((n+1)); echo "{\"current\":$n}" >&3 || exit 1; printf .; done`)
	cmd.Dir = v.Host
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err = cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // it may have ended
		if err := cmd.Wait(); err != nil {
			t.Errorf("the container ended with %v", err)
		}
	})
	return in, out
}

// On a mounted folder somebody else may go on writing when the container has
// ended: that keeps nobody waiting.
func TestProgressEndsWhileOthersWrite(t *testing.T) {
	t.Parallel()
	v, p := setup(t)
	write(t, v, "{\"current\":1}\n")
	f, err := os.OpenFile(filepath.Join(v.Host, name), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	noise := []byte(strings.Repeat("x", 4095) + "\n")
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := f.Write(noise); err != nil {
				return
			}
		}
	}()
	p.Ended()
	var last float64
	if err := p.Run(t.Context(), func(s pipe.State) { last = *s.Current }); err != nil || last != 1 {
		t.Errorf("last %v, error %v", last, err)
	}
	close(stop)
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	<-stopped
}

// Ended is heard whatever Run is doing, and nothing that came before is missed.
func TestProgressEndedAtAnyTime(t *testing.T) {
	t.Parallel()
	for i := range 50 {
		v, p := setup(t)
		done := make(chan error, 1)
		var last float64
		go func() { done <- p.Run(t.Context(), func(s pipe.State) { last = *s.Current }) }()
		for n := range i {
			write(t, v, "{\"current\":"+strings.Repeat("1", n%5+1)+"}\n")
		}
		write(t, v, "{\"current\":7}")
		p.Ended()
		if err := <-done; err != nil || last != 7 {
			t.Fatalf("round %d: last %v, error %v", i, last, err)
		}
	}
}
