package stage_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// works are what a run may do.
var works = []func(*run) *work{inFile, inTwice, inItem, inFolder, outToItem, outToItem, outToFolder, outTree, outTree, outAgain, attach}

// content is a file's, of some size: none, one chunk or part of one, several.
func (r *run) content() []byte {
	size := []int{0, 1, r.dice.IntN(faultChunk), faultChunk, r.dice.IntN(4 * faultChunk), r.dice.IntN(4 * faultChunk)}[r.dice.IntN(6)]
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(r.dice.Uint32())
	}
	return data
}

// contents are up to so many files, with names that begin with the text.
func (r *run) contents(prefix string, most int) map[string][]byte {
	files := map[string][]byte{}
	for i := range 1 + r.dice.IntN(most) {
		files[fmt.Sprint(prefix, i, ".bin")] = r.content()
	}
	return files
}

func (r *run) newItem(folder, name string) girdersim.Item {
	r.Helper()
	item, err := r.sim.CreateItem(folder, name)
	if err != nil {
		r.Fatal(err)
	}
	return item
}

func (r *run) newFolder(parent, name string) girdersim.Folder {
	r.Helper()
	folder, err := r.sim.CreateFolder(parent, name, false)
	if err != nil {
		r.Fatal(err)
	}
	return folder
}

func (r *run) add(item, name string, data []byte) girdersim.File {
	r.Helper()
	file, err := r.sim.AddFile(item, name, bytes.NewReader(data))
	if err != nil {
		r.Fatal(err)
	}
	return file
}

// write makes files on the volume.
func (r *run) write(files map[string][]byte) {
	r.Helper()
	for name, data := range files {
		to := filepath.Join(r.volume, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, data, 0o600)); err != nil {
			r.Fatal(err)
		}
	}
}

// onVolume compares the files on the volume, bytes and all.
func (r *run) onVolume(want map[string][]byte) {
	r.Helper()
	if found := r.amongThese(want); found < len(want) {
		r.Errorf("%d of %d files are on the volume", found, len(want))
	}
}

// amongThese compares each file on the volume, and counts them.
func (r *run) amongThese(want map[string][]byte) (found int) {
	r.Helper()
	err := filepath.WalkDir(r.volume, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		found++
		got, err := os.ReadFile(name)
		name, _ = filepath.Rel(r.volume, name)
		if data, ok := want[name]; !ok {
			r.Errorf("%s is left on the volume, with %d bytes", name, len(got))
		} else if !bytes.Equal(got, data) {
			r.Errorf("%s has %d bytes, not the %d that it should", name, len(got), len(data))
		}
		return err
	})
	if err != nil {
		r.Error(err)
	}
	return found
}
