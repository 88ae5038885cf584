package setup

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
)

// mountDisk makes a folder that is a disk of its own, of so many bytes, in
// memory. The test is skipped where that is not allowed.
func mountDisk(t testing.TB, path string, size int64) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a disk of its own needs root")
	}
	err := os.Mkdir(path, 0o755)
	if err == nil {
		err = syscall.Mount("tmpfs", path, "tmpfs", 0, fmt.Sprintf("size=%d,mode=755", size))
	}
	if err != nil {
		t.Fatalf("mount a disk: %v", err)
	}
	t.Cleanup(func() {
		err := syscall.Unmount(path, 0)
		if errors.Is(err, syscall.EBUSY) {
			err = errors.Join(err, syscall.Unmount(path, syscall.MNT_DETACH))
		}
		if err != nil {
			t.Errorf("unmount a disk: %v", err)
		}
	})
}

// FreeSpace is how much room there is on the disk of the node's work folder.
func (n *Node) FreeSpace() int64 {
	t := n.Executor.t
	t.Helper()
	var disk syscall.Statfs_t
	if err := syscall.Statfs(n.WorkRoot, &disk); err != nil {
		t.Fatalf("look at the disk: %v", err)
	}
	return int64(disk.Bavail) * disk.Bsize
}
