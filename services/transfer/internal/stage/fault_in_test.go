package stage_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/transfer/internal/cache"
	"github.com/gantry-worker/gantry/services/transfer/internal/stage"
)

// bringing is work that brings files to the volume.
func (r *run) bringing(name string, in stage.In, to string, want map[string][]byte) *work {
	return r.bringingAll(name, map[string]stage.In{to: in}, want)
}

// bringingAll is work of several steps at the same time, by where they bring
// what is below that.
func (r *run) bringingAll(name string, steps map[string]stage.In, want map[string][]byte) *work {
	staged := map[string]stage.Staged{}
	w := &work{name: name}
	folder, room := r.TempDir(), int64(r.dice.IntN(3)*(faultChunk+1)) // for nothing, one file or two
	w.do = func(ctx context.Context, l *life) error {
		kept, err := cache.Open(folder, room, zerolog.Nop())
		if err != nil {
			return err
		}
		var mu sync.Mutex
		var group errgroup.Group
		fetches := stage.NewFetches()
		for to, in := range steps {
			in.Source, in.Volume, in.Retry = r.client, r.volume, r.retry
			in.Cache, in.Fetches, in.Task, in.Girder = kept, fetches, "job/1", r.sim.APIURL()
			in.Memory, in.Remember = l.step(to)
			group.Go(func() error {
				one, err := in.Run(ctx)
				mu.Lock()
				defer mu.Unlock()
				staged[to] = one
				return err
			})
		}
		err = group.Wait()
		return errors.Join(err, kept.Close())
	}
	w.check = func(whole bool) {
		r.Helper()
		if !whole && len(steps) > 1 {
			r.amongThese(want) // one of them may have come to its end
			return
		}
		if !whole {
			r.onVolume(nil)
			return
		}
		r.onVolume(want)
		for to := range steps {
			size := total(below(to, want))
			if staged[to].Path != to || staged[to].Bytes != size {
				r.Errorf("%+v instead of %s with %d bytes", staged[to], to, size)
			}
		}
	}
	return w
}

// inTwice brings one file to two places at the same time.
func inTwice(r *run) *work {
	data := r.content()
	file := r.add(r.newItem(r.folder.ID, "item").ID, "in.bin", data)
	steps, want := map[string]stage.In{}, map[string][]byte{}
	for _, to := range []string{"here", "there"} {
		steps[to], want[to] = stage.In{File: girder.FileID(file.ID), Filename: to}, data
	}
	return r.bringingAll("in, twice", steps, want)
}

func total(files map[string][]byte) int64 {
	var n int64
	for _, data := range files {
		n += int64(len(data))
	}
	return n
}

func inFile(r *run) *work {
	data := r.content()
	file := r.add(r.newItem(r.folder.ID, "item").ID, "in.bin", data)
	in, to := stage.In{File: girder.FileID(file.ID)}, filepath.Join(file.ID, "in.bin")
	if r.dice.IntN(2) == 0 {
		in.Filename, to = "some/where", "some/where"
	}
	return r.bringing("in, file", in, to, map[string][]byte{to: data})
}

func inItem(r *run) *work {
	item := r.newItem(r.folder.ID, "i0.bin") // which may be its only file's name
	to, want := filepath.Join(item.ID, item.Name), map[string][]byte{}
	files := r.contents("i", 5)
	for name, data := range files {
		r.add(item.ID, name, data)
		want[filepath.Join(to, name)] = data
	}
	if len(files) == 1 {
		want = map[string][]byte{to: files["i0.bin"]}
	}
	return r.bringing("in, item", stage.In{Item: girder.ItemID(item.ID)}, to, want)
}

func inFolder(r *run) *work {
	in := stage.In{Folder: girder.FolderID(r.folder.ID)}
	to, want := filepath.Join(r.folder.ID, "data"), map[string][]byte{}
	if r.dice.IntN(6) == 0 { // more than a page
		for i := range girder.PageSize + 5 {
			name := fmt.Sprint(i)
			r.add(r.newItem(r.folder.ID, name).ID, name, []byte(name))
			want[filepath.Join(to, name)] = []byte(name)
		}
		return r.bringing("in, pages", in, to, want)
	}
	in.FolderName, to = "renamed", filepath.Join(r.folder.ID, "renamed")
	sub := r.newFolder(r.folder.ID, "sub")
	deep := r.newFolder(sub.ID, "deep")
	for _, place := range [][2]string{{"", r.folder.ID}, {"sub", sub.ID}, {"sub/deep", deep.ID}} {
		below, id := place[0], place[1]
		for name, data := range r.contents("f", 3) {
			r.add(r.newItem(id, name).ID, name, data)
			want[filepath.Join(to, below, name)] = data
		}
		for name, data := range r.contents("two", 2) {
			r.add(r.newItem(id, "item of "+name).ID, name, data)
			want[filepath.Join(to, below, "item of "+name, name)] = data
		}
	}
	return r.bringing("in, folder", in, to, want)
}
