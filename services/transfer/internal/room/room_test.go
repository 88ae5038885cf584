package room_test

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gantry-worker/gantry/services/transfer/internal/room"
)

// disk mounts a small disk and returns a new file on it.
func disk(t *testing.T, size string) *os.File {
	t.Helper()
	folder := t.TempDir()
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("cannot mount a small disk here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(folder, syscall.MNT_DETACH); err != nil { // another test may just fork, with what is open there
			t.Error(err)
		}
	})
	file, err := os.Create(filepath.Join(folder, "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return file
}

func free(t *testing.T, file *os.File) int64 {
	t.Helper()
	on, err := room.On(file)
	if err != nil {
		t.Fatal(err)
	}
	return on.Free
}

func TestReserve(t *testing.T) {
	t.Parallel()
	file := disk(t, "20m")
	before := free(t, file)
	if on, err := room.On(file); err != nil || on.Left != 1<<20 {
		t.Fatal(on, err) // a 20th
	}
	if err := room.Reserve(file, 12<<20); err != nil {
		t.Fatal(err)
	}
	if now := free(t, file); before-now != 12<<20 {
		t.Errorf("%d bytes were set aside", before-now)
	}
	if info, err := file.Stat(); err != nil || info.Size() != 0 {
		t.Error("the file has a size", err)
	}
	// Asked again, by the next process, it needs no more.
	if err := room.Reserve(file, 12<<20); err != nil || before-free(t, file) != 12<<20 {
		t.Error(err)
	}
	if _, err := file.WriteAt(make([]byte, 12<<20), 0); err != nil || before-free(t, file) != 12<<20 {
		t.Error(err, "written bytes take their room twice")
	}
	var short *room.Short
	for _, size := range []int64{math.MaxInt64, 21 << 20, 20 << 20, 19<<20 + 1} {
		if err := room.Reserve(file, size); !errors.As(err, &short) || short.Need != size-12<<20 || short.Free != 8<<20 || short.Missing() != size-19<<20 {
			t.Errorf("%d: %v, %+v", size, err, short)
		}
	}
	if before-free(t, file) != 12<<20 {
		t.Error("what does not fit takes room")
	}
	if say := "it takes 7.3 MB more, 8.4 MB are free and 1.0 MB of them are left to others"; short.Error() != say {
		t.Errorf("%q", short)
	}
	if err := room.Reserve(file, 19<<20); err != nil {
		t.Error(err)
	}
}

func TestReserveForASmallFile(t *testing.T) {
	t.Parallel()
	file := disk(t, "64k")
	var short *room.Short
	if err := room.Reserve(file, 64<<10); !errors.As(err, &short) {
		t.Error(err)
	}
	if err := room.Reserve(file, 32<<10); err != nil {
		t.Error(err)
	}
}

// TestReserveWithoutADisk: what cannot be looked at is an error that says so.
func TestReserveWithoutADisk(t *testing.T) {
	t.Parallel()
	file := disk(t, "64k")
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if err := room.Reserve(file, 1); err == nil || !strings.Contains(err.Error(), "look how much room") {
		t.Error(err)
	}
}
