package fifo_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gantry-worker/gantry/services/internal/fifo"
	"github.com/gantry-worker/gantry/services/internal/volume"
)

func openWriter(t *testing.T, v volume.Volume) *fifo.Writer {
	t.Helper()
	w, err := fifo.OpenWriter(v, name, fifo.Owner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeAll(t, w) })
	return w
}

// fill is more than any pipe takes.
var fill = bytes.Repeat([]byte("0123456789abcdef"), 4<<20/16)

func TestWriterToASlowReader(t *testing.T) {
	t.Parallel()
	v := setup(t)
	w := openWriter(t, v)
	c := as(t, v, "read in 4 KiB")
	done := make(chan error, 1)
	go func() {
		if err := w.Opened(t.Context()); err != nil {
			done <- err
			return
		}
		_, err := io.CopyBuffer(struct{ io.Writer }{w}, content(), make([]byte, 300_000))
		done <- errors.Join(err, w.Close())
	}()
	for range size / (16 << 20) {
		c.did() // it has stopped reading
		c.goOn()
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got, want := c.says(), contentSum(t); got != want {
		t.Errorf("the container got %s, want %s", got, want)
	}
}

func TestWriterToAReaderThatLeaves(t *testing.T) {
	t.Parallel()
	v := setup(t)
	w := openWriter(t, v)
	c := shell(t, v, `exec 3<pipe; dd bs=1000 count=100 iflag=fullblock <&3 2>/dev/null | wc -c; exec 3<&-; printf .; read x`)
	n, err := w.Write(fill)
	if !errors.Is(err, fifo.ErrLeft) || n < 100_000 || n == len(fill) {
		t.Errorf("wrote %d, %v", n, err)
	}
	if taken := w.Taken(); taken != 100_000 {
		t.Errorf("%d taken", taken)
	}
	if n, err := w.Write(fill); n != 0 || !errors.Is(err, fifo.ErrLeft) {
		t.Errorf("then wrote %d, %v", n, err)
	}
	closeAll(t, w)
	if taken := w.Taken(); taken != 100_000 {
		t.Errorf("%d taken after close", taken)
	}
	c.goOn()
	if said := c.says(); strings.TrimSpace(said) != "100000\n." {
		t.Errorf("the container said %q", said)
	}
}

// A container that looks at the pipe and takes nothing gets it all when it opens
// it again.
func TestWriterToAReaderThatOpensTwice(t *testing.T) {
	t.Parallel()
	v := setup(t)
	w := openWriter(t, v)
	c := shell(t, v, `exec 3<pipe; exec 3<&-; printf .; read x; exec 3<pipe; exec 3<&-; printf .; wc -c <pipe`)
	c.did()
	done := inBackground(func() (int, error) { return w.Write(fill) })
	c.goOn()
	c.did()
	if got := <-done; got.err != nil || got.n != len(fill) {
		t.Errorf("wrote %v", got)
	}
	closeAll(t, w)
	if said := c.says(); strings.TrimSpace(said) != "4194304" {
		t.Errorf("the container got %q", said)
	}
}

// Who opens a pipe that is finished reads an end of file, as often as that is.
func TestAFinishedPipeHasAnEndForEverybody(t *testing.T) {
	t.Parallel()
	v := setup(t)
	w := openWriter(t, v)
	c := shell(t, v, `wc -c <pipe; printf .; read x; wc -c <pipe; cat pipe; printf .`)
	if n, err := w.Write(fill); n != len(fill) || err != nil {
		t.Errorf("wrote %d, %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	finished := inBackground(func() (int, error) { return 0, w.Finish(ctx) })
	expect(t, c.out, "4194304\n.")
	c.goOn()
	expect(t, c.out, "0\n.")
	cancel()
	if got := <-finished; got.err != nil {
		t.Error(got.err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// What fits into the pipe is there for a second opening also if the first one
// took a part.
func TestWriterHoldsWhatIsInThePipe(t *testing.T) {
	t.Parallel()
	v := setup(t)
	w := openWriter(t, v)
	c := shell(t, v, `dd bs=1 count=3 <pipe 2>/dev/null; printf .; read x; cat pipe`)
	if n, err := w.Write([]byte("onetwo")); n != 6 || err != nil {
		t.Errorf("wrote %d, %v", n, err)
	}
	expect(t, c.out, "one.")
	if taken := w.Taken(); taken != 3 {
		t.Errorf("%d taken", taken)
	}
	c.goOn()
	expect(t, c.out, "two")
	closeAll(t, w)
	if said := c.says(); said != "" {
		t.Errorf("then it said %q", said)
	}
}

// Others who take a hold, as an adopter does, have both ends open for a moment.
// That is no container that came and left.
func TestWriterIsNotMisledByHolds(t *testing.T) {
	t.Parallel()
	v := setup(t)
	w := openWriter(t, v)
	opened := make(chan error, 1)
	written := make(chan result, 1)
	go func() {
		opened <- w.Opened(t.Context())
		n, err := w.Write(fill)
		written <- result{n, err}
	}()
	hold := func() {
		for range 300 {
			held, err := fifo.OpenWriter(v, name, fifo.Beside)
			if err != nil {
				t.Error(err)
				return
			}
			closeAll(t, held)
		}
	}
	var holding sync.WaitGroup
	for range 2 {
		holding.Go(hold)
	}
	holding.Wait()
	select {
	case got := <-written:
		t.Fatalf("nobody read, and it wrote %v", got)
	default:
	}
	c := shell(t, v, `wc -c <pipe`)
	if err := <-opened; err != nil {
		t.Error(err)
	}
	hold()
	if got := <-written; got.n != len(fill) || got.err != nil {
		t.Errorf("wrote %v", got)
	}
	closeAll(t, w)
	if said := c.says(); strings.TrimSpace(said) != "4194304" {
		t.Errorf("the container got %q", said)
	}
}

// End, Interrupt, Close and a context are heard in each state, at any moment.
func TestWriterIsInterruptedInEachState(t *testing.T) {
	t.Parallel()
	write := func(_ context.Context, w *fifo.Writer) (int, error) { return w.Write(fill) }
	for state, test := range map[string]struct {
		enter func(t *testing.T, v volume.Volume) io.Closer
		wait  func(context.Context, *fifo.Writer) (int, error)
	}{
		"waits for the first opening": {nobody, func(ctx context.Context, w *fifo.Writer) (int, error) { return 0, w.Opened(ctx) }},
		"writes before it is opened":  {nobody, write},
		"the pipe is full":            {reads(0), write},
		"the reader takes a bit":      {reads(10), write},
	} {
		for way, by := range map[string]struct {
			call func(w *fifo.Writer, cancel context.CancelCauseFunc) error
			want error
		}{
			"end":       {func(w *fifo.Writer, _ context.CancelCauseFunc) error { w.End(); return nil }, fifo.ErrLeft},
			"interrupt": {func(w *fifo.Writer, _ context.CancelCauseFunc) error { w.Interrupt(errRevoked); return nil }, errRevoked},
			"close":     {func(w *fifo.Writer, _ context.CancelCauseFunc) error { return w.Close() }, os.ErrClosed},
			"context":   {func(_ *fifo.Writer, cancel context.CancelCauseFunc) error { cancel(errRevoked); return nil }, errRevoked},
		} {
			t.Run(state+", "+way, func(t *testing.T) {
				t.Parallel()
				for range 20 {
					v := setup(t)
					w := openWriter(t, v)
					container := test.enter(t, v)
					ctx, cancel := context.WithCancelCause(t.Context())
					stop := context.AfterFunc(ctx, func() { w.Interrupt(context.Cause(ctx)) })
					done := inBackground(func() (int, error) { return test.wait(ctx, w) })
					for range 2 {
						if err := by.call(w, cancel); err != nil {
							t.Error(err)
						}
					}
					if got := <-done; got.n == len(fill) || !errors.Is(got.err, by.want) {
						t.Fatalf("%v, want %v", got, by.want)
					}
					stop()
					cancel(nil)
					closeAll(t, container)
				}
			})
		}
	}
}

func nobody(*testing.T, volume.Volume) io.Closer { return io.NopCloser(nil) }

// reads is a container that takes n bytes and no more.
func reads(n int64) func(*testing.T, volume.Volume) io.Closer {
	return func(t *testing.T, v volume.Volume) io.Closer {
		t.Helper()
		f, err := os.Open(filepath.Join(v.Host, name))
		if err != nil {
			t.Fatal(err)
		}
		taken := make(chan error, 1)
		go func() {
			_, err := io.CopyN(io.Discard, f, n)
			taken <- err
		}()
		return closer(func() error {
			err := f.Close()
			<-taken // it has what it wanted, an end of file, or was cut off
			return err
		})
	}
}

type closer func() error

func (c closer) Close() error { return c() }

// A stream that was interrupted keeps its write end: the container, still there,
// sees no end of file.
func TestAnInterruptedWriterStillHolds(t *testing.T) {
	t.Parallel()
	v := setup(t)
	w := openWriter(t, v)
	c := shell(t, v, `exec 3<pipe; printf .; head -c 4 <&3; head -c 4 <&3; cat <&3`)
	c.did()
	w.Interrupt(errRevoked)
	for _, part := range []string{"half", "more"} {
		put(t, v, part)
		expect(t, c.out, part)
	}
	closeAll(t, w)
	if said := c.says(); said != "" {
		t.Errorf("then it said %q", said)
	}
}

// A reader that was killed has left.
func TestWriterToAReaderThatDies(t *testing.T) {
	t.Parallel()
	v := setup(t)
	w := openWriter(t, v)
	c := shell(t, v, `exec 3<pipe; head -c 10 <&3 >/dev/null; printf .; read x`)
	done := inBackground(func() (int, error) { return w.Write(fill) })
	c.did()
	c.die()
	if got := <-done; !errors.Is(got.err, fifo.ErrLeft) || got.n < 10 {
		t.Errorf("wrote %v", got)
	}
}

// The same at the moment when the container comes: what it took does not make
// the hold that is gone a container that left.
func TestWriterIsNotMisledByAHoldBesideTheFirstReader(t *testing.T) {
	t.Parallel()
	data := fill[:200_000] // more than a pipe takes
	for range 100 {
		v := setup(t)
		w := openWriter(t, v)
		done := inBackground(func() (int, error) {
			n, err := w.Write(data)
			return n, errors.Join(err, w.Close())
		})
		var beside sync.WaitGroup
		beside.Go(func() {
			for range 2 {
				held, err := fifo.OpenWriter(v, name, fifo.Beside)
				if err != nil {
					t.Error(err)
					return
				}
				closeAll(t, held)
			}
		})
		beside.Go(func() {
			f, err := os.Open(filepath.Join(v.Host, name))
			if err != nil {
				t.Error(err)
				return
			}
			if n, err := io.Copy(io.Discard, f); n != int64(len(data)) || err != nil {
				t.Errorf("the container got %d, %v", n, err)
			}
			closeAll(t, f)
		})
		beside.Wait()
		if got := <-done; got.n != len(data) || got.err != nil {
			t.Fatalf("wrote %v", got)
		}
	}
}
