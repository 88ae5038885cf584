package folder_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/folder"
)

func TestWritable(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := folder.Writable(root); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(root); len(left) != 1 || err != nil {
		t.Errorf("%v is left, error %v", left, err)
	}
	file := filepath.Join(root, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := folder.Writable(file); err == nil || !strings.Contains(err.Error(), "work folder") {
		t.Errorf("a file as work folder: %v", err)
	}
}

// Where attempts' folders are made may be less writable than the work folder
// around it.
func TestWritableLooksWhereFoldersAreMade(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := os.Symlink("/proc", filepath.Join(root, "attempts")); err != nil { // nobody makes a folder there, not even root
		t.Fatal(err)
	}
	if err := folder.Writable(root); err == nil || !strings.Contains(err.Error(), "work folder") {
		t.Errorf("folders of attempts cannot be made: %v", err)
	}
}

// Writable and whoever looks for abandoned folders do not disturb each other.
func TestWritableBesideALook(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	var looks sync.WaitGroup
	defer looks.Wait()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	looks.Go(func() {
		for ctx.Err() == nil {
			found, err := folder.Abandoned(root)
			for _, f := range found {
				err = errors.Join(err, f.Remove())
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
	for range 500 {
		if err := folder.Writable(root); err != nil {
			t.Error(err)
		}
	}
}

// The reason is the same as long as the fault is, without the probe's name.
func TestWritableGivesOneReason(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	// So long that the folder of attempts fits into a path, and the probe does not.
	const longest = 4095 - len("/attempts")
	for len(root) < longest {
		next := min(longest-len(root)-1, 200)
		if longest-len(root)-1-next == 1 {
			next--
		}
		root = filepath.Join(root, strings.Repeat("x", next))
	}
	first, second := folder.Writable(root), folder.Writable(root)
	if first == nil || second == nil || first.Error() != second.Error() {
		t.Errorf("first %v, then %v", first, second)
	}
}
