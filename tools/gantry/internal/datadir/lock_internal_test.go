package datadir

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestCloseUnlocksWhoeverHasTheFile: a program that is being started has the
// files of this process until it runs.
func TestCloseUnlocksWhoeverHasTheFile(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	first, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	forked, err := unix.FcntlInt(first.lock.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(forked) //nolint:errcheck // only a lock
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := Open(path)
	if err != nil {
		t.Fatalf("open again: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}
