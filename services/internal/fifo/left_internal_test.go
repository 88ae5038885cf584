package fifo

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/services/internal/volume"
)

// A write found nobody, since a hold was just given up. Whatever happens until
// the writer looks, only a container that took something and is gone has left.
func TestWhoHasLeft(t *testing.T) {
	t.Parallel()
	v := volume.Volume{Host: t.TempDir()}
	if err := Make(v, "pipe"); err != nil {
		t.Fatal(err)
	}
	w, err := OpenWriter(v, "pipe", Owner)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close() //nolint:errcheck // the test is over
	open := func() *os.File {
		t.Helper()
		f, err := os.OpenFile(filepath.Join(v.Host, "pipe"), os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	expect := func(state string, want bool) {
		t.Helper()
		if left, err := w.left(); left != want || err != nil {
			t.Errorf("%s: left is %v, %v", state, left, err)
		}
	}
	expect("nobody came", false)
	hold := open()
	if _, err := w.Write([]byte("0123456789")); err != nil {
		t.Fatal(err)
	}
	_ = hold.Close()
	expect("a hold came and went", false)
	container := open()
	expect("the container came", false)
	if _, err := io.ReadFull(container, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	expect("the container takes", false)
	_ = container.Close()
	expect("the container left", true)
}
