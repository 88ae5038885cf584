package service

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/transfer/internal/faultproxy"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// faultRounds is how many transfers get a set of steps each.
const faultRounds = 6

// faultKinds are the faults before a Girder that tells checksums, without the
// one that takes the services' whole patience with a connection.
func faultKinds() []faultproxy.Kind {
	var kinds []faultproxy.Kind
	for _, kind := range faultproxy.Kinds {
		if kind != faultproxy.Stall {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

// TestFaultsInSteps gives a transfer steps of every kind at once, while the way
// to Girder fails and the transfer itself is stopped, or killed, and started
// again: each step is done, once and byte by byte, or says what was wrong.
// GANTRY_FAULT_SEED and GANTRY_FAULT_RUNS choose the rounds.
func TestFaultsInSteps(t *testing.T) {
	t.Parallel()
	first, rounds := faultNumber(t, "GANTRY_FAULT_SEED", 1), faultNumber(t, "GANTRY_FAULT_RUNS", faultRounds)
	var mu sync.Mutex
	counts, interrupted := map[faultproxy.Kind]int{}, 0
	t.Run("rounds", func(t *testing.T) {
		for seed := first; seed < first+min(rounds, faultRounds); seed++ {
			t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
				t.Parallel()
				r := &round{bench: setupWith(t, girdersim.Options{Artifacts: true, Hashsums: true}), dice: rand.New(rand.NewPCG(seed, 1)), seed: seed}
				r.run()
				mu.Lock()
				defer mu.Unlock()
				for kind, n := range r.proxy.Counts() {
					counts[kind] += n
				}
				if r.amid {
					interrupted++
				}
			})
		}
	})
	t.Logf("%d interrupted amid steps, faults: %v", interrupted, counts)
	if rounds < faultRounds || t.Failed() {
		return
	}
	if len(counts) < len(faultKinds())/2 {
		t.Errorf("few kinds of faults did happen: %v", counts)
	}
	if interrupted == 0 { // one that is, is so for longer than any server is waited for
		t.Error("no transfer was ended amid its steps")
	}
}

func faultNumber(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// round is one set of steps.
type round struct {
	*bench
	seed   uint64
	dice   *rand.Rand
	proxy  *faultproxy.Proxy
	staged map[string][]byte // what is to be on the volume, by path
	tasks  []*tasked
	kills  bool
	amid   bool            // the first transfer had steps to do when it ended
	first  map[string]bool // the uploads that were begun for it: had it noted their id?
}

// tasked is one step and how to look at what it did; whole means that it was done.
type tasked struct {
	step  *contracts.Step
	check func(result *contracts.StepResult, whole bool)
}

func (r *round) run() {
	r.t.Helper()
	var err error
	r.proxy, err = faultproxy.Start(r.sim.APIURL(), faultproxy.Options{Seed: r.seed, Rate: 0.3, Most: 12, Kinds: faultKinds()})
	r.must(err)
	r.t.Cleanup(func() { _ = r.proxy.Close() })
	r.staged = map[string][]byte{}
	r.bringing()
	r.sending()
	defer func() {
		if r.t.Failed() {
			r.t.Logf("%s\nagain with GANTRY_FAULT_SEED=%d GANTRY_FAULT_RUNS=1", strings.Join(r.proxy.Story(), "\n"), r.seed)
		}
	}()
	r.interrupted()
	for _, task := range r.tasks {
		r.until("no end of step "+task.step.Step, func() bool { return r.result(task.step) != nil })
	}
	r.until("steps are left", func() bool { return len(r.begun()) == 0 && (r.kills || r.isDrained()) })
	r.must(r.proxy.Close())
	r.sim.Down()
	for _, task := range r.tasks {
		r.judge(task)
	}
	r.nothingLeft()
}

// interrupted runs the transfer, ends it amid its steps, and starts another.
func (r *round) interrupted() {
	r.t.Helper()
	cfg := r.config()
	cfg.GirderAPIURL = r.proxy.APIURL()
	if r.dice.IntN(2) == 0 {
		cfg.CacheSize = "1m"
	}
	// The request is under way when the transfer ends, and so is its step.
	now, ending := make(chan struct{}), make(chan struct{})
	goOn := sync.OnceFunc(func() { close(ending) })
	defer goOn()
	r.proxy.Interrupt(3+r.dice.IntN(20), r.dice.IntN(2) == 0, func() { close(now); <-ending })
	var stop func()
	if r.kills = r.seed%2 == 0; r.kills {
		order := r.order()
		order.Girder = r.proxy.APIURL()
		stop = r.child(order).kill
	} else {
		stop = r.start(cfg, quick)
	}
	for _, task := range r.tasks {
		r.ask(task.step)
	}
	r.until("the transfer asks for little", func() bool {
		select {
		case <-now:
			return true
		default:
			return false
		}
	})
	if !r.kills {
		goOn() // one that ends in good order waits a while for answers
	}
	stop()
	goOn()
	r.ended()
	r.start(cfg, quick)
	for _, task := range r.tasks {
		r.ask(task.step) // what the other was given comes again after its lease
	}
}

// ended looks at what the first transfer left, when nothing that it asked for is
// under way any more.
func (r *round) ended() {
	r.t.Helper()
	r.proxy.Cut()
	r.proxy.Mend()
	var journal strings.Builder
	for _, path := range r.begun() {
		text, err := os.ReadFile(path)
		r.must(err)
		journal.Write(text)
	}
	r.amid = journal.Len() > 0
	r.first = map[string]bool{}
	for _, up := range r.proxy.Uploads() {
		r.first[up.ID] = strings.Contains(journal.String(), up.ID)
	}
}

func (r *round) content() []byte {
	data := make([]byte, []int{0, 1, 1000, 100_000}[r.dice.IntN(4)])
	for i := range data {
		data[i] = byte(r.dice.Uint32())
	}
	return data
}

// wants adds a step whose files are to be on the volume, by path.
func (r *round) wants(step *contracts.Step, files map[string][]byte) {
	r.tasks = append(r.tasks, &tasked{step: step, check: func(result *contracts.StepResult, whole bool) {
		r.t.Helper()
		for path, data := range files {
			got, err := os.ReadFile(filepath.Join(r.volume, path))
			switch {
			case whole && (err != nil || !bytes.Equal(got, data)):
				r.t.Errorf("%s: %s has %d bytes, not the %d that it should: %v", step.Step, path, len(got), len(data), err)
			case !whole && !os.IsNotExist(err):
				r.t.Errorf("%s: %s is there after %+v", step.Step, path, result)
			}
			r.staged[path] = data
		}
	}})
}

// bringing adds steps that bring files, one of them to two places.
func (r *round) bringing() {
	r.t.Helper()
	data := r.content()
	same := r.file("same.bin", string(data))
	for _, name := range []string{"in-0", "in-1"} {
		r.wants(r.stageIn(name, same), map[string][]byte{"in/" + name: data})
	}
	folder := r.girderFolder("inputs")
	item, err := r.sim.CreateItem(folder.ID, "several")
	r.must(err)
	files := map[string][]byte{}
	for i := range 3 {
		name, data := fmt.Sprint("f", i), r.content()
		_, err := r.sim.AddFile(item.ID, name, bytes.NewReader(data))
		r.must(err)
		files[name] = data
	}
	below := func(folder string) map[string][]byte {
		placed := map[string][]byte{}
		for name, data := range files {
			placed[filepath.Join(folder, name)] = data
		}
		return placed
	}
	step := r.stageIn("in-2", "")
	step.ItemID, step.Filename = item.ID, ""
	r.wants(step, below(filepath.Join(item.ID, "several")))
	step = r.stageIn("in-3", "")
	step.FolderID, step.FolderName, step.Filename = folder.ID, "all", ""
	r.wants(step, below(filepath.Join(folder.ID, "all", "several")))
}

// sending adds steps that send files: to an item, to a folder, and to a job.
func (r *round) sending() {
	r.t.Helper()
	old := r.file("old.bin", "from before")
	outputs := func(folder string, names ...string) map[string]string {
		files := map[string]string{}
		for _, name := range names {
			data := r.content()
			files[name], r.staged[filepath.Join(folder, name)] = string(data), data
			r.onVolume(filepath.Join(folder, name), string(data))
		}
		return files
	}
	toItem := outputs("results", "old.bin", "new.bin")
	r.tasks = append(r.tasks, &tasked{step: r.stageOut("out-0", "results"), check: func(_ *contracts.StepResult, whole bool) {
		r.t.Helper()
		found := r.sim.Files(r.item.ID)
		for _, file := range found {
			if file.Name == "old.bin" && file.ID != old {
				r.t.Error("the replaced file has another id")
			}
		}
		for name, data := range toItem {
			if whole && r.uploaded(name) != data {
				r.t.Errorf("%s has other bytes", name)
			}
		}
		if most := 3 + len(r.proxy.Twice()); len(found) > most {
			r.t.Errorf("%d files are in the item: %+v", len(found), found)
		}
	}})
	folder, want := r.girderFolder("outputs"), map[string]string{"sub/": ""}
	for name, data := range outputs("tree", "a.bin", "sub/b.bin", "sub/c.bin") {
		want[name] = data
	}
	step := r.stageOut("out-1", "tree")
	step.ItemID, step.FolderID = "", folder.ID
	r.tasks = append(r.tasks, &tasked{step: step, check: func(_ *contracts.StepResult, whole bool) {
		r.t.Helper()
		if found := r.inGirder(folder.ID); whole && r.doubles() == 0 && !cmp.Equal(want, found) {
			r.t.Errorf("in the folder: %s", cmp.Diff(want, found))
		}
	}})
	of, attached := r.withGirderJob(), outputs("logs", "x.log", "y.log")
	step = r.stageOut("out-2", "logs")
	step.ItemID, step.Artifact, step.MustExist = "", true, false
	r.tasks = append(r.tasks, &tasked{step: step, check: func(result *contracts.StepResult, _ bool) {
		r.t.Helper()
		found := map[string]string{}
		for _, file := range r.sim.Artifacts(of.ID) {
			data, err := r.sim.ReadFile(file.ID)
			r.must(err)
			found[file.Name] += string(data)
		}
		if len(result.Warnings) == 0 && r.doubles() == 0 && !cmp.Equal(attached, found) {
			r.t.Errorf("attached: %s", cmp.Diff(attached, found))
		}
	}})
}

// doubles is how many files may be there twice.
func (r *round) doubles() int {
	return len(r.proxy.Twice()) + r.proxy.Counts()[faultproxy.CorruptUpload]
}

// judge looks at a step's result and at what it did.
func (r *round) judge(task *tasked) {
	r.t.Helper()
	result := r.result(task.step)
	if result.Outcome == contracts.StepDone {
		task.check(result, true)
		return
	}
	// No client can make good what is left out where no length tells of it, or
	// the same file spoiled time after time.
	n := r.proxy.Counts()
	spoiled := n[faultproxy.CorruptDownload] + n[faultproxy.ShortLength] + n[faultproxy.LongLength] + n[faultproxy.Page]
	mayFail := n[faultproxy.ShortBody] > 0 || n[faultproxy.CorruptUpload] > 2 || spoiled > 4
	if !mayFail || result.Message == "" || result.Outcome == contracts.StepAborted {
		r.t.Errorf("%+v after %v", result, n)
	}
	task.check(result, false)
}

// nothingLeft looks for what no step left in its place.
func (r *round) nothingLeft() {
	r.t.Helper()
	for path := range r.files(r.volume) {
		if _, ok := r.staged[path]; !ok {
			r.t.Errorf("%s is left on the volume", path)
		}
	}
	least, most := 0, r.proxy.PartsAttached()
	for _, up := range r.proxy.Uploads() {
		if !up.Used && !up.Told {
			least++
		}
		noted, first := r.first[up.ID]
		if !up.Used && (!up.Told || first && !noted) { // who was told of it may have ended before it was written down
			most++
		}
	}
	if n := r.sim.OpenUploads(); n < least || n > most {
		r.t.Errorf("%d uploads are open, of which nobody knows %d, or %d", n, least, most)
	}
}
