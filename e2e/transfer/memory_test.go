package transfer

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// TestMemoryIsBoundedWhateverIsMoved runs eight tasks at once that bring and
// take away files in all sizes, and looks at the most that transfer had. What it
// has for a file of 1 GiB [TestABigFileIsNotMovedTwice] looks at.
func TestMemoryIsBoundedWhateverIsMoved(t *testing.T) {
	t.Parallel()
	g := start(t, setup.Config{Slots: 8})
	ends := []func(){bigFile(t, g), manySmallFilesIn(t, g), manySmallFilesOut(t, g)}
	for i := range 5 {
		ends = append(ends, several(t, g, fmt.Sprintf("task %d", i)))
	}
	for _, end := range ends {
		end()
	}
	checkMemory(g, "with eight tasks at once")
}

// bigFile begins a task that takes a file to Girder again. Each of these
// functions returns one that waits for its task and checks what it did.
func bigFile(t *testing.T, g *setup.Gantry) func() {
	t.Helper()
	file, result := addFile(g, "big", 256*mebibyte), g.Girder.Item("big result")
	task := g.Shell(`test -s "$1"`, &contracts.GirderFile{ID: file.ID, Filename: "big"})
	task.Outputs = []contracts.Output{setup.UploadTo(result, "big")}
	task.Girder = g.Girder.Of("a big file")
	job := g.MustSubmit(task)
	return func() {
		g.AwaitSuccess(job)
		if files := g.Girder.Files(result.ID); len(files) != 1 || files[0].SHA512 != file.SHA512 {
			t.Errorf("in Girder are %+v, want one file with checksum %s", files, file.SHA512)
		}
	}
}

func manySmallFilesIn(t *testing.T, g *setup.Gantry) func() {
	t.Helper()
	const folders, items = 50, 100
	top := newFolder(g, g.Girder.Folder.ID, "many")
	want := sha256.New()
	for i := range folders {
		folder := newFolder(g, top.ID, fmt.Sprintf("f%02d", i))
		for j := range items {
			name := fmt.Sprintf("f%02d-%02d.txt", i, j)
			addSmall(g, folder, name)
			_, _ = io.WriteString(want, small(name)) // a hash takes everything
		}
	}
	task := g.Shell(`find "$1" -type f | wc -l; find "$1" -type f | sort | while read -r f; do cat "$f"; done | sha256sum`,
		&contracts.GirderFolder{ID: top.ID})
	task.Girder = g.Girder.Of("many small files")
	job := g.MustSubmit(task)
	return func() {
		g.AwaitSuccess(job)
		log, _ := g.JobLog(job)
		if fields := strings.Fields(log); len(fields) < 2 || fields[0] != "5000" || fields[1] != hex.EncodeToString(want.Sum(nil)) {
			t.Errorf("the container saw %q, want 5000 files with checksum %x", log, want.Sum(nil))
		}
	}
}

func manySmallFilesOut(t *testing.T, g *setup.Gantry) func() {
	t.Helper()
	into := newFolder(g, g.Girder.Folder.ID, "results")
	task := g.Shell(`mkdir "$1"; for i in $(seq 1000); do yes "file $i" | head -n 400 > "$1/$i.txt"; done`, &contracts.VolumePath{Path: "out"})
	task.Outputs = []contracts.Output{uploadFolder(into, "out")}
	task.Girder = g.Girder.Of("many small results")
	job := g.MustSubmit(task)
	return func() {
		g.AwaitSuccess(job)
		found := map[string]girdersim.File{}
		for _, file := range g.Girder.FilesIn(into.ID) {
			found[file.Name] = file
		}
		for i := range 1000 {
			content := strings.Repeat(fmt.Sprintf("file %d\n", i+1), 400)
			if file := found[fmt.Sprintf("%d.txt", i+1)]; file.SHA512 != setup.SHA512([]byte(content)) {
				t.Errorf("file %d is %+v in Girder", i+1, file)
			}
		}
		if len(found) != 1000 {
			t.Errorf("%d files are in Girder", len(found))
		}
	}
}

// several begins a task with files of a middling size, both ways.
func several(t *testing.T, g *setup.Gantry, name string) func() {
	t.Helper()
	file, result := addFile(g, name, 48*mebibyte), g.Girder.Item(name+" result")
	task := g.Shell(`cp "$1" "$2"`, &contracts.GirderFile{ID: file.ID}, &contracts.VolumePath{Path: "copy"})
	task.Outputs = []contracts.Output{setup.UploadTo(result, "copy")}
	task.Girder = g.Girder.Of(name)
	job := g.MustSubmit(task)
	return func() {
		g.AwaitSuccess(job)
		if files := g.Girder.Files(result.ID); len(files) != 1 || files[0].SHA512 != file.SHA512 {
			t.Errorf("%s: in Girder are %+v, want one file with checksum %s", name, files, file.SHA512)
		}
	}
}
