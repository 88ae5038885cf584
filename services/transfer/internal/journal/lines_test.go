package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/transfer/internal/stage"
)

// TestSeveralRememberAtATime: each note is one line, whole, and known after.
func TestSeveralRememberAtATime(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	j := open(t, root)
	entry := begin(t, j, "out-0")
	const files, each = 8, 20
	var group sync.WaitGroup
	for file := range files {
		group.Go(func() {
			for i := range each {
				path := stage.NotedPath(fmt.Sprintf("%d/%d", file, i))
				for _, note := range []stage.Note{
					{Pending: &stage.Pending{Path: path, ID: girder.UploadID(path)}},
					{Sent: &stage.Sent{Path: path, File: contracts.GirderSent{FileID: string(path)}}},
				} {
					if i == each-1 && note.Sent != nil {
						continue // the last one stays on its way
					}
					if err := entry.Remember(note); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	group.Wait()
	want := entry.Memory
	if len(want.Pending) != files || len(want.Sent) != files*(each-1) {
		t.Errorf("%d on their way, %d sent", len(want.Pending), len(want.Sent))
	}
	if err := errors.Join(entry.Close(), j.Close()); err != nil {
		t.Fatal(err)
	}
	again := begin(t, open(t, root), "out-0")
	defer again.Close() //nolint:errcheck // only read
	if diff := cmp.Diff(want, again.Memory); diff != "" {
		t.Error(diff)
	}
}

// TestLinesOfOneAtATimeAreRead, as they were written before several files of a
// step were on their way at a time.
func TestLinesOfOneAtATimeAreRead(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	j := open(t, root)
	if err := begin(t, j, "out-0").Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, dir, stepsDir, "job.1.out-0")
	step, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	old := string(step) + `{"target":{"path":"out","id":"d1","newest":"i0","created":"2026-01-01T00:00:00+00:00"}}
{"pending":{"path":"out/a","local":{"size":10,"mod_time":1,"inode":2},"id":"u1"}}
{"pending":{"path":"out/a","local":{"size":10,"mod_time":1,"inode":2},"id":"u1","sha512":"aa"}}
{"sent":{"path":"out/a","local":{"size":10,"mod_time":1,"inode":2},"file":{"name":"a","file_id":"f1","item_id":"i1","size":10,"sha512":"aa"}}}
{"begun":{"path":"out/b","local":{"size":0,"mod_time":1,"inode":3}}}
{"sent":{"path":"out/b","local":{"size":0,"mod_time":1,"inode":3},"file":{"name":"b","file_id":"f2","item_id":"i2","size":0,"sha512":"bb"}}}
{"pending":{"path":"out/c","local":{"size":5,"mod_time":1,"inode":4},"id":"u2","old_id":"f0","old_created":"then"}}
{"canceled":"u2"}
{"pending":{"path":"out/d","local":{"size":7,"mod_time":1,"inode":5},"id":"u3"}}
`
	if err := os.WriteFile(path, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	entry := begin(t, j, "out-0")
	defer entry.Close() //nolint:errcheck // only read
	m := entry.Memory
	want := map[stage.NotedPath]stage.Pending{"out/d": {Path: "out/d", ID: "u3", Local: stage.Local{Size: 7, ModTime: 1, Inode: 5}}}
	if diff := cmp.Diff(want, m.Pending); diff != "" || len(m.Begun) != 0 || m.Targets["out"].Newest != "i0" {
		t.Errorf("%+v\n%s", m, diff)
	}
	if m.Sent["out/a"].File.SHA512 != "aa" || m.Sent["out/b"].File.FileID != "f2" || len(m.Sent) != 2 {
		t.Errorf("%+v", m.Sent)
	}
}

// TestANoteThatCannotBeWritten leaves no half of a line, behind which nothing
// would be read.
func TestANoteThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("cannot mount a small volume here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil { // another test may just fork, with what is open there
			t.Error(err)
		}
	})
	j := open(t, root)
	entry := begin(t, j, "out-0")
	sent := func(path string) error {
		return entry.Remember(stage.Note{Sent: &stage.Sent{Path: stage.NotedPath(path)}})
	}
	if err := sent("before"); err != nil {
		t.Fatal(err)
	}
	if err := sent(strings.Repeat("x", 1<<20)); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if err := errors.Join(sent("after"), entry.Close()); err != nil {
		t.Fatal(err)
	}
	again := begin(t, j, "out-0")
	if len(again.Memory.Sent) != 2 || again.Memory.Sent["after"].Path == "" {
		t.Errorf("%d notes", len(again.Memory.Sent))
	}
	if err := errors.Join(again.Close(), j.Close()); err != nil {
		t.Error(err)
	}
}
