package stage_test

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/transfer/internal/faultproxy"
	"github.com/gantry-worker/gantry/services/transfer/internal/stage"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// held is a file in Girder.
type held struct {
	folder, item, name, id string // folder is a path
	data                   []byte
}

// inGirder lists the files of a folder and those in it. Empty items are none of ours.
func (r *run) inGirder(id, at string) []held {
	r.Helper()
	var all []held
	for _, item := range r.sim.Items(id) {
		files := r.heldOf(item.ID)
		if len(files) != 1 {
			r.Errorf("item %s/%s has %d files", at, item.Name, len(files))
		}
		for _, file := range files {
			file.folder, file.item = at, item.Name
			all = append(all, file)
		}
	}
	for _, sub := range r.sim.Folders(id) {
		all = append(all, r.inGirder(sub.ID, path.Join(at, sub.Name))...)
	}
	return all
}

func (r *run) heldOf(item string) []held {
	r.Helper()
	var all []held
	for _, file := range r.sim.Files(item) {
		data, err := r.sim.ReadFile(file.ID)
		if err != nil || int64(len(data)) != file.Size {
			r.Errorf("%s: %d bytes of %d: %v", file.Name, len(data), file.Size, err)
		}
		all = append(all, held{name: file.Name, id: file.ID, data: data})
	}
	return all
}

// wanted is what Girder is to have in the end: a file of each name, which no two
// folders share.
type wanted struct {
	files map[string][]byte // by path below the folder
	old   map[string]held   // what has these paths before
	sent  []contracts.GirderSent
}

// compare looks at the files that Girder has.
func (r *run) compare(w *wanted, found []held, whole bool) {
	r.Helper()
	counts := r.proxy.Counts()
	spoils := counts[faultproxy.CorruptUpload]
	seen, good := map[string]int{}, map[string]int{}
	for _, file := range found {
		at := path.Join(file.folder, file.name)
		data, ok := w.files[at]
		old, replaced := w.old[at]
		seen[at]++
		switch {
		case !ok:
			r.Errorf("%s is in Girder", at)
		case bytes.Equal(file.data, data) && (!replaced || file.id == old.id):
			good[at]++
		case replaced && bytes.Equal(file.data, old.data) && !whole:
		case spoils == 0 && len(file.data) > 0: // an empty file is made twice before it is filled
			r.Errorf("%s has other bytes: %d instead of %d", at, len(file.data), len(data))
		}
	}
	twice := map[string]int{}
	for _, name := range r.proxy.Twice() {
		twice[name]++
	}
	for at, n := range seen {
		// Of a file in a folder whose bytes were changed on the way, and whose
		// answer was lost, nobody can tell whose it is.
		if n > 1+twice[path.Base(at)]+spoils {
			r.Errorf("%s is there %d times, %d of them for a request that arrived twice", at, n, twice[path.Base(at)])
		}
	}
	if !whole {
		return
	}
	for at := range w.files {
		if good[at] == 0 {
			r.Errorf("%s is not there as it should be", at)
		}
	}
	r.told(w, found)
}

// told looks at what the run says that it sent.
func (r *run) told(w *wanted, found []held) {
	r.Helper()
	if len(w.sent) != len(w.files) {
		r.Errorf("%d of %d files are told", len(w.sent), len(w.files))
	}
	for _, sent := range w.sent {
		i := slices.IndexFunc(found, func(file held) bool { return file.id == sent.FileID })
		if i < 0 {
			r.Errorf("told of a file that is not there: %+v", sent)
			continue
		}
		sum := sha512.Sum512(found[i].data)
		if sent.Name != found[i].name || sent.Size != int64(len(found[i].data)) || sent.SHA512 != hex.EncodeToString(sum[:]) {
			r.Errorf("told %+v of %s with %d bytes", sent, found[i].name, len(found[i].data))
		}
	}
}

func (r *run) out(l *life, path string) stage.Out {
	known, remember := l.step(path)
	return stage.Out{
		Sink: r.client, Volume: r.volume, Path: path, MustExist: true, Chunk: faultChunk, Retry: r.retry, Memory: known, Remember: remember,
	}
}

// sending is work that sends a file or a folder, and then looks at what Girder
// has, and that the volume is as it was.
func (r *run) sending(name, path string, local map[string][]byte, w *wanted, set func(*stage.Out), found func() []held) *work {
	r.write(local)
	job := &work{name: name}
	job.do = func(ctx context.Context, l *life) (err error) {
		out := r.out(l, path)
		set(&out)
		w.sent, err = out.Run(ctx)
		return err
	}
	job.check = func(whole bool) {
		r.Helper()
		r.compare(w, found(), whole)
		r.onVolume(local)
	}
	return job
}

// below returns the files of a folder by their paths in it, or the file that has this path.
func below(folder string, files map[string][]byte) map[string][]byte {
	inside := map[string][]byte{}
	for name, data := range files {
		if path, ok := strings.CutPrefix(name, folder+"/"); ok || name == folder {
			inside[path] = data
		}
	}
	return inside
}

func outToItem(r *run) *work {
	item := r.newItem(r.folder.ID, "results")
	local, from := r.contents("out/o", 4), "out"
	if r.dice.IntN(2) == 0 {
		from = "out/o0.bin"
		local = map[string][]byte{from: local[from]}
	}
	w := &wanted{files: below("out", local), old: map[string]held{}}
	for _, name := range slices.Sorted(maps.Keys(w.files)) {
		data, before := w.files[name], r.content()
		switch r.dice.IntN(3) {
		case 0:
			continue
		case 1:
			before = slices.Clone(data) // of the same size
			slices.Reverse(before)
		}
		w.old[name] = held{id: r.add(item.ID, name, before).ID, data: before}
	}
	set := func(o *stage.Out) { o.Item = girder.ItemID(item.ID) }
	return r.sending("out, item", from, local, w, set, func() []held { return r.heldOf(item.ID) })
}

// toFolder sends to a folder that has other files.
func toFolder(r *run, name, from string, local map[string][]byte, flat bool) *work {
	w := &wanted{files: below("out", local)}
	other := r.content()
	r.add(r.newItem(r.folder.ID, "o0.bin").ID, "o0.bin", other) // somebody else's, of the same name
	set := func(o *stage.Out) { o.Folder, o.Flat = girder.FolderID(r.folder.ID), flat }
	return r.sending(name, from, local, w, set, func() []held {
		found := r.inGirder(r.folder.ID, "")
		first := slices.IndexFunc(found, func(file held) bool { return file.item == "o0.bin" })
		if first < 0 || !bytes.Equal(found[first].data, other) {
			r.Error("somebody else's file was touched")
			return found
		}
		return slices.Delete(found, first, first+1)
	})
}

func outToFolder(r *run) *work {
	local, from := r.contents("out/o", 3), "out"
	if r.dice.IntN(2) == 0 {
		from = "out/o0.bin"
		local = map[string][]byte{from: local[from]}
	}
	return toFolder(r, "out, folder", from, local, true)
}

func outTree(r *run) *work { return toFolder(r, "out, tree", "out", r.tree(), false) }

func (r *run) tree() map[string][]byte {
	local := r.contents("out/o", 3)
	maps.Copy(local, r.contents("out/sub/s", 3))
	maps.Copy(local, r.contents("out/sub/deep/d", 2))
	return local
}

// outAgain is what a later attempt does: the files of the one before get new
// contents and keep their ids.
func outAgain(r *run) *work {
	first := r.tree()
	r.write(first)
	direct, err := girder.New(girder.Options{APIURL: r.sim.APIURL(), Token: r.token, Retry: girder.Retry{Total: -1}})
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(direct.CloseIdle)
	before := r.out(&life{disk: newDisk()}, "out")
	before.Sink, before.Folder, before.Remember = direct, girder.FolderID(r.folder.ID), nil
	sent, err := before.Run(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	w := &wanted{files: map[string][]byte{}, old: map[string]held{}}
	for _, file := range r.inGirder(r.folder.ID, "") {
		w.old[path.Join(file.folder, file.name)] = file
	}
	local := map[string][]byte{}
	for _, name := range slices.Sorted(maps.Keys(first)) {
		local[name] = r.content()
	}
	w.files = below("out", local)
	set := func(o *stage.Out) { o.Folder, o.Before = girder.FolderID(r.folder.ID), sent }
	return r.sending("out, again", "out", local, w, set, func() []held { return r.inGirder(r.folder.ID, "") })
}

func attach(r *run) *work {
	job, err := r.sim.CreateJob(girdersim.JobSpec{Title: "job", UserID: r.user.ID})
	if err != nil {
		r.Fatal(err)
	}
	local := r.contents("out/a", 4)
	r.write(local)
	w, sends := &wanted{files: below("out", local)}, &work{name: "artifact"}
	sends.do = func(ctx context.Context, l *life) (err error) {
		w.sent, err = r.out(l, "out").Attach(ctx, r.client, func(context.Context) (girder.JobID, error) { return girder.JobID(job.ID), nil })
		return err
	}
	sends.check = func(whole bool) {
		r.Helper()
		r.compare(w, r.heldOf(job.ID), whole)
		r.onVolume(local)
	}
	return sends
}
