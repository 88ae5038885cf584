package fifo_test

import (
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

var errRevoked = errors.New("revoked")

func openReader(t *testing.T, v volume.Volume) *fifo.Reader {
	t.Helper()
	r, err := fifo.OpenReader(v, name, fifo.Owner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeAll(t, r) })
	return r
}

// expect reads exactly what is wanted, however it is cut.
func expect(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v, want %q", got[:n], err, want)
	}
}

// result is what a call in another goroutine returned.
type result struct {
	n   int
	err error
}

func inBackground(call func() (int, error)) <-chan result {
	done := make(chan result, 1)
	go func() {
		n, err := call()
		done <- result{n, err}
	}()
	return done
}

// A container opens and closes its end as often as it likes: no end of file.
func TestReaderSeesNoEndBeforeTheEnd(t *testing.T) {
	t.Parallel()
	v := setup(t)
	r := openReader(t, v)
	c := shell(t, v, `for i in 1 2 3 4 5 6 7 8 9; do echo $i >pipe; : >pipe; read x; done; exec 3>pipe; echo a >&3; read x; echo b >&3`)
	for _, part := range []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b"} {
		expect(t, r, part+"\n")
		if part != "b" {
			c.goOn()
		}
	}
	if said := c.says(); said != "" {
		t.Errorf("the container said %q", said)
	}
	done := inBackground(func() (int, error) { return r.Read(make([]byte, 1)) })
	r.End()
	if got := <-done; got != (result{0, io.EOF}) {
		t.Errorf("after the end %v", got)
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("again %d, %v", n, err)
	}
}

// What a container wrote before its end arrives, also when it was killed, and
// nothing that others write later.
func TestReaderDrainsAfterTheEnd(t *testing.T) {
	t.Parallel()
	v := setup(t)
	r := openReader(t, v)
	c := shell(t, v, `exec 3>pipe; echo last words >&3; printf .; read x`)
	c.did()
	c.die()
	r.End()
	got := make([]byte, 5)
	if n, err := r.Read(got); n != 5 || err != nil {
		t.Errorf("read %d, %v", n, err)
	}
	put(t, v, "somebody else's")
	rest, err := io.ReadAll(r)
	if err != nil || string(got)+string(rest) != "last words\n" {
		t.Errorf("read %q and %q, %v", got, rest, err)
	}
}

// On a shared folder somebody else may go on writing: that keeps nobody waiting.
func TestReaderEndsWhileOthersWrite(t *testing.T) {
	t.Parallel()
	v := setup(t)
	r := openReader(t, v)
	f, err := os.OpenFile(filepath.Join(v.Host, name), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	const first = "the container's\n"
	if _, err := f.WriteString(first); err != nil {
		t.Fatal(err)
	}
	noise := []byte(strings.Repeat("x", 4096))
	var writing sync.WaitGroup
	writing.Go(func() {
		for {
			if _, err := f.Write(noise); err != nil {
				return
			}
		}
	})
	r.End()
	got, err := io.ReadAll(r)
	if err != nil || !strings.HasPrefix(string(got), first) || len(got) > 1<<20 {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	closeAll(t, f)
	writing.Wait()
}

// End, Interrupt and Close are heard in each state, at any moment.
func TestReaderIsInterruptedInEachState(t *testing.T) {
	t.Parallel()
	for state, enter := range map[string]func(t *testing.T, v volume.Volume) io.Closer{
		"nobody ever opened it": func(*testing.T, volume.Volume) io.Closer { return io.NopCloser(nil) },
		"opened, nothing written": func(t *testing.T, v volume.Volume) io.Closer {
			f, err := os.OpenFile(filepath.Join(v.Host, name), os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			return f
		},
		"opened and left": func(t *testing.T, v volume.Volume) io.Closer { put(t, v, ""); return io.NopCloser(nil) },
	} {
		for way, test := range map[string]struct {
			call func(r *fifo.Reader) error
			want error
		}{
			"end":       {func(r *fifo.Reader) error { r.End(); return nil }, io.EOF},
			"interrupt": {func(r *fifo.Reader) error { r.Interrupt(errRevoked); return nil }, errRevoked},
			"both":      {func(r *fifo.Reader) error { r.End(); r.Interrupt(errRevoked); return nil }, errRevoked},
			"close":     {(*fifo.Reader).Close, os.ErrClosed},
		} {
			t.Run(state+", "+way, func(t *testing.T) {
				t.Parallel()
				for range 20 {
					v := setup(t)
					r := openReader(t, v)
					container := enter(t, v)
					done := inBackground(func() (int, error) { return r.Read(make([]byte, 10)) })
					for range 2 { // twice is no harm
						if err := test.call(r); err != nil {
							t.Error(err)
						}
					}
					got := <-done
					again, err := r.Read(make([]byte, 10))
					if way == "both" && errors.Is(got.err, io.EOF) {
						got.err = errRevoked // it had heard the end before
					}
					if got.n != 0 || !errors.Is(got.err, test.want) || again != 0 || !errors.Is(err, test.want) {
						t.Fatalf("read %v, then %d, %v", got, again, err)
					}
					closeAll(t, container)
				}
			})
		}
	}
}

// An interrupted end stays open: the container notices nothing.
func TestAnInterruptedReaderStillHolds(t *testing.T) {
	t.Parallel()
	v := setup(t)
	r := openReader(t, v)
	r.Interrupt(errRevoked)
	put(t, v, "more")
	if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, errRevoked) {
		t.Errorf("read %d, %v", n, err)
	}
	next, err := fifo.OpenReader(v, name, fifo.Beside)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, next, "more")
	closeAll(t, next)
}

func TestReaderGetsEveryByte(t *testing.T) {
	t.Parallel()
	v := setup(t)
	r := openReader(t, v)
	c := as(t, v, "write in 300 KiB")
	read := make(chan string, 1)
	go func() {
		got, err := sum(r)
		if err != nil {
			t.Error(err)
		}
		read <- got
	}()
	c.says() // it has written everything
	r.End()
	if got, want := <-read, contentSum(t); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// An owner that died is no owner any more; what it had not read is there for the
// next one, if somebody held the pipe.
func TestReaderAfterTheDeathOfItsOwner(t *testing.T) {
	t.Parallel()
	v := setup(t)
	owner := as(t, v, "own and read")
	owner.did()
	holder, err := fifo.OpenReader(v, name, fifo.Beside)
	if err != nil {
		t.Fatal(err)
	}
	put(t, v, "one two ")
	owner.goOn()
	owner.did()
	if _, err := fifo.OpenReader(v, name, fifo.Owner); !errors.Is(err, fifo.ErrOwned) {
		t.Errorf("opened beside the owner: %v", err)
	}
	owner.die()
	r := openReader(t, v)
	put(t, v, "three")
	expect(t, r, "two three")
	closeAll(t, holder)
}
