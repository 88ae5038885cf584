package service

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

func (b *bench) cached() Config {
	cfg := b.config()
	cfg.CacheSize = "1g"
	return cfg
}

// inCache lists what is in the cache, and how long it is. It is all there when
// the service has stopped.
func (b *bench) inCache() map[string]int {
	b.t.Helper()
	return b.files(filepath.Join(b.root, "transfer", "cache"))
}

// written is how many bytes are on the volume and in the cache.
func (b *bench) written() (bytes int) {
	for _, folder := range []string{b.volume, filepath.Join(b.root, "transfer", "cache")} {
		entries, _ := os.ReadDir(folder) // it may not be there yet
		inside, _ := os.ReadDir(filepath.Join(folder, "in"))
		for _, entry := range append(entries, inside...) {
			if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
				bytes += int(info.Size())
			}
		}
	}
	return bytes
}

// nextAttempt has another attempt begin, with a volume of its own.
func (b *bench) nextAttempt() {
	b.t.Helper()
	b.append(&contracts.Claimed{Node: b.node, Executor: "y"})
	b.volume = filepath.Join(b.root, "attempts", fmt.Sprint("a", b.life.Attempt), "volume")
	b.must(os.MkdirAll(b.volume, 0o777))
}

// again is a step in the present attempt.
func (b *bench) again(step *contracts.Step) *contracts.Step {
	next := *step
	next.Attempt = b.life.Attempt
	next.Folder, next.Volume = fmt.Sprint("attempts/a", next.Attempt), b.volume
	return &next
}

// TestTheSameFileIsFetchedOnceForATask wherever it is wanted, at the same time or later.
func TestTheSameFileIsFetchedOnceForATask(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.serve()
	file := b.file("in.tif", string(streamed))
	steps := []*contracts.Step{b.stageIn("in-0", file), b.stageIn("in-1", file), b.stageIn("in-2", file)}
	for _, step := range steps {
		b.ask(step)
	}
	late := b.stageIn("in-3", file)
	for _, step := range steps {
		b.until("no result", func() bool { return b.result(step) != nil })
	}
	b.do(late)
	for _, step := range append(steps, late) {
		got, err := os.ReadFile(filepath.Join(b.volume, step.Filename))
		if result := b.result(step); result.Outcome != contracts.StepDone || result.Bytes != int64(len(streamed)) || err != nil || !bytes.Equal(got, streamed) {
			t.Errorf("%+v, %d bytes, %v", result, len(got), err)
		}
	}
	if n := b.asked("GET", "/download"); n != 1 {
		t.Errorf("%d downloads", n)
	}
}

// TestWaitingForTheSameFileNeedsNoPlace: those that wait for another step's
// download do not keep it from its place.
func TestWaitingForTheSameFileNeedsNoPlace(t *testing.T) {
	t.Parallel()
	b := setup(t)
	file := b.file("in.tif", string(streamed))
	left := make(chan struct{}, 2)
	left <- struct{}{}
	left <- struct{}{}
	b.sim.SetFault(func(r *http.Request) *girdersim.Fault {
		if !strings.HasSuffix(r.URL.Path, "/download") {
			return nil
		}
		select {
		case <-left:
			return &girdersim.Fault{Status: http.StatusBadGateway}
		default:
			return nil
		}
	})
	cfg := b.config()
	cfg.Concurrency = 1
	b.start(cfg, quick)
	steps := make([]*contracts.Step, 5)
	for i := range steps {
		steps[i] = b.stageIn(fmt.Sprint("in-", i), file)
		b.ask(steps[i])
	}
	for _, step := range steps {
		b.until("no result", func() bool { return b.result(step) != nil })
		if result := b.result(step); result.Outcome != contracts.StepDone {
			t.Errorf("%+v", result)
		}
	}
	b.drained()
}

// TestAFileIsKeptForFurtherTasks, for those who may read it, as it is in Girder.
func TestAFileIsKeptForFurtherTasks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stop := b.start(b.cached(), quick)
	file := b.file("in.tif", string(streamed))
	step := b.stageIn("in-0", file)
	b.do(step)
	// A container that changes its input changes nobody else's.
	b.must(os.WriteFile(filepath.Join(b.volume, step.Filename), []byte("changed"), 0o600))
	second := func() *contracts.StepResult {
		b.nextAttempt()
		step := b.again(step)
		result := b.do(step)
		got, err := os.ReadFile(filepath.Join(b.volume, step.Filename))
		if result.Outcome == contracts.StepDone && (err != nil || !bytes.Equal(got, streamed)) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		return result
	}
	if result := second(); result.Outcome != contracts.StepDone || b.asked("GET", "/download") != 1 {
		t.Errorf("%+v after %d downloads", result, b.asked("GET", "/download"))
	}
	stop()
	if entries := b.inCache(); len(entries) != 1 {
		t.Errorf("in the cache: %v", entries)
	}
	stop = b.start(b.cached(), quick)
	if result := second(); result.Outcome != contracts.StepDone || b.asked("GET", "/download") != 1 {
		t.Errorf("after a restart: %+v after %d downloads", result, b.asked("GET", "/download"))
	}
	b.secret("of nobody")
	if result := second(); result.Outcome != contracts.StepFailure {
		t.Errorf("without access: %+v", result)
	}
	b.secret(b.token)
	stop()
	b.serve() // without a cache
	if result := second(); result.Outcome != contracts.StepDone || b.asked("GET", "/download") != 2 {
		t.Errorf("without a cache: %+v after %d downloads", result, b.asked("GET", "/download"))
	}
	if _, err := os.Stat(filepath.Join(b.root, "transfer", "cache")); !os.IsNotExist(err) {
		t.Errorf("the cache that is off is still there: %v", err)
	}
}

// TestNothingIsKeptFromAFolderOfTheHost, which others may write to. What is in
// the cache already goes there.
func TestNothingIsKeptFromAFolderOfTheHost(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stop := b.start(b.cached(), quick)
	file := b.file("in.tif", "pixels")
	own, other := b.stageIn("in-0", file), b.stageIn("in-1", file)
	own.Volume = t.TempDir()
	if result := b.do(own); result.Outcome != contracts.StepDone {
		t.Errorf("%+v", result)
	}
	stop()
	if entries := b.inCache(); len(entries) != 0 {
		t.Errorf("in the cache: %v", entries)
	}
	b.start(b.cached(), quick)
	b.do(other)
	b.nextAttempt()
	own = b.again(own)
	own.Volume = t.TempDir()
	if result := b.do(own); result.Outcome != contracts.StepDone || b.asked("GET", "/download") != 2 {
		t.Errorf("%+v after %d downloads", result, b.asked("GET", "/download"))
	}
}

// TestAGirderReachedOtherwiseIsAnotherOne: what came over a way that a task
// brought is not given to those who did not bring it.
func TestAGirderReachedOtherwiseIsAnotherOne(t *testing.T) {
	t.Parallel()
	p := setupPrivate(t)
	p.start(p.cached(), quick)
	step := p.stageIn("in-0", p.file("in.tif", "pixels"))
	step.Session = p.session("")
	step.Session.Verify = &contracts.Verify{Off: true}
	for downloads, session := range []*contracts.GirderSession{step.Session, step.Session, p.session(p.authority)} {
		step.Session = session
		if result := p.do(p.again(step)); result.Outcome != contracts.StepDone {
			t.Errorf("%+v", result)
		}
		if n := p.asked("GET", "/download"); n != max(1, downloads) { // 1, 1, 2
			t.Errorf("%d downloads", n)
		}
		p.nextAttempt()
	}
}

// TestWithoutAWorkingCache everything else works.
func TestWithoutAWorkingCache(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.must(os.MkdirAll(filepath.Join(b.root, "transfer"), 0o700))
	b.must(os.WriteFile(filepath.Join(b.root, "transfer", "cache"), nil, 0o600))
	b.start(b.cached(), quick)
	if result := b.do(b.stageIn("in-0", b.file("in.tif", "pixels"))); result.Outcome != contracts.StepDone {
		t.Errorf("%+v", result)
	}
}

// TestAFileThatDoesNotFitTheDisk is this node's trouble, and leaves room for what fits.
func TestAFileThatDoesNotFitTheDisk(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if err := unix.Mount("tmpfs", b.volume, "tmpfs", 0, "size=8m"); err != nil {
		t.Skip("no file system can be mounted:", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(b.volume, unix.MNT_DETACH) })
	b.serve()
	result := b.do(b.stageIn("in-0", b.file("big.tif", strings.Repeat("x", 9<<20))))
	if result.Outcome != contracts.StepInfrastructure {
		t.Errorf("%+v", result)
	}
	for _, says := range []string{"no space", "9.4 MB", "8.4 MB"} {
		if !strings.Contains(result.Message, says) {
			t.Errorf("%q does not say %q", result.Message, says)
		}
	}
	if n := b.asked("GET", "/download"); n != 0 || len(b.files(b.volume)) != 0 {
		t.Errorf("%d downloads, left: %v", n, b.files(b.volume))
	}
	if result := b.do(b.stageIn("in-1", b.file("small.tif", "x"))); result.Outcome != contracts.StepDone {
		t.Errorf("%+v", result)
	}
}

// TestAKilledTransferLeavesARightCache whenever it dies: while it fetches, copies
// for another step, or fills the cache.
func TestAKilledTransferLeavesARightCache(t *testing.T) {
	t.Parallel()
	rounds := 4
	if testing.Short() {
		rounds = 2
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	content := make([]byte, 16<<20)
	for i := range len(content) / 4 {
		content[4*i], content[4*i+1] = byte(i), byte(i>>8)
	}
	for range rounds {
		b := setup(t)
		file := b.file("in.tif", string(content))
		steps := make([]*contracts.Step, 3)
		want := map[string]int{}
		for i := range steps {
			steps[i] = b.stageIn(fmt.Sprint("in-", i), file)
			want[steps[i].Filename] = len(content)
		}
		order := b.order()
		order.CacheSize, order.Concurrency = "1g", len(steps)
		c := b.child(order)
		b.awaitConsumer()
		for _, step := range steps {
			b.ask(step)
		}
		moment := random.IntN(4 * len(content)) // three files and what is in the cache
		b.until("too little is written", func() bool { return b.written() > moment || b.result(steps[0]) != nil && len(b.begun()) == 0 })
		c.kill()
		stop := b.start(b.cached(), quick)
		for _, step := range steps {
			b.until("no result", func() bool { return b.result(step) != nil })
			got, err := os.ReadFile(filepath.Join(b.volume, step.Filename))
			if result := b.result(step); result.Outcome != contracts.StepDone || err != nil || !bytes.Equal(got, content) {
				t.Errorf("%+v, %d bytes, %v", result, len(got), err)
			}
		}
		b.until("steps are left", func() bool { return len(b.begun()) == 0 })
		if diff := cmp.Diff(want, b.files(b.volume)); diff != "" {
			t.Error(diff)
		}
		stop()
		for name := range b.inCache() {
			got, err := os.ReadFile(filepath.Join(b.root, "transfer", "cache", name))
			if err != nil || !bytes.Equal(got, content) {
				t.Errorf("in the cache: %s with %d bytes, %v", name, len(got), err)
			}
		}
	}
}
