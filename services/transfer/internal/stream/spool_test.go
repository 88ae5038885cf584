package stream

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSpool(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 65537, 3_000_000} {
		b := setup(t)
		file, err := os.Create(filepath.Join(t.TempDir(), "spool"))
		b.must(err)
		outlet := b.outlet()
		ended := b.container(func() error { return Spool(t.Context(), outlet, file) })
		content := noise(size)
		if size > 0 { // opened and closed again and again
			b.must(b.write(string(content[:size/3])))
			b.must(b.write(string(content[size/3 : size/2])))
			b.must(b.write(string(content[size/2:])))
		}
		outlet.Pipe.End()
		b.must(b.await(ended))
		b.must(file.Close())
		got, err := os.ReadFile(file.Name())
		if err != nil || !bytes.Equal(got, content) || outlet.Bytes() != int64(size) {
			t.Errorf("%d bytes: %d in the file, %d moved, %v", size, len(got), outlet.Bytes(), err)
		}
	}
}

// TestSpoolOnAFullDisk writes to the device that is always full.
func TestSpoolOnAFullDisk(t *testing.T) {
	t.Parallel()
	b := setup(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	b.must(err)
	defer full.Close()
	outlet := b.outlet()
	ended := b.container(func() error { return Spool(t.Context(), outlet, full) })
	b.must(b.write("much"))
	if err := b.await(ended); !errors.Is(err, ErrNoSpace) || IsFailure(err) {
		t.Errorf("%v", err)
	}
}

func TestSpoolCanceled(t *testing.T) {
	t.Parallel()
	revoked := errors.New("revoked")
	b := setup(t)
	file, err := os.Create(filepath.Join(t.TempDir(), "spool"))
	b.must(err)
	defer file.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := b.container(func() error { return Spool(ctx, b.outlet(), file) })
	cancel(revoked)
	if err := b.await(ended); !errors.Is(err, revoked) {
		t.Errorf("%v", err)
	}
}

func TestSpoolOfAMiscount(t *testing.T) {
	t.Parallel()
	b := setup(t)
	file, err := os.Create(filepath.Join(t.TempDir(), "spool"))
	b.must(err)
	defer file.Close()
	outlet := b.outlet()
	outlet.Complete = func(bytes int64) error { return &Miscounted{Written: bytes + 1, Read: bytes} }
	outlet.Pipe.End()
	var miscounted *Miscounted
	if err := Spool(t.Context(), outlet, file); !errors.As(err, &miscounted) {
		t.Errorf("%v", err)
	}
}

// TestSpoolLeavesRoom for what others have to write.
func TestSpoolLeavesRoom(t *testing.T) {
	t.Parallel()
	b := setup(t)
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=16m"); err != nil {
		t.Skip("no file system can be mounted:", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
	b.must(os.WriteFile(filepath.Join(disk, "others"), make([]byte, 11<<20+512<<10), 0o600))
	file, err := os.Create(filepath.Join(disk, "spool"))
	b.must(err)
	outlet := b.outlet()
	ended := b.container(func() error { return Spool(t.Context(), outlet, file) })
	written := b.container(func() error { return b.write(string(noise(5 << 20))) })
	if err := b.await(ended); !errors.Is(err, ErrNoSpace) || IsFailure(err) {
		t.Errorf("%v", err)
	}
	b.must(outlet.Pipe.Close())
	if err := b.await(written); err == nil {
		t.Error("everything was taken")
	}
	info, err := file.Stat()
	if err != nil || info.Size() >= 4<<20+512<<10 {
		t.Errorf("%d bytes were written, %v", info.Size(), err)
	}
	b.must(file.Close())
}
