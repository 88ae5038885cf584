package transfer

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// reads is a task that says what its input is like, and then spoils it.
func reads(g *setup.Gantry, file girdersim.File, title string) *contracts.Task {
	task := g.Shell(`sha256sum < "$1" | cut -d ' ' -f 1; echo spoiled > "$1"`, &contracts.GirderFile{ID: file.ID})
	task.Girder = g.Girder.Of(title)
	return task
}

// sumOf is what such a task says of so much noise.
func sumOf(t *testing.T, seed string, size int64) string {
	t.Helper()
	sum := sha256.New()
	if _, err := io.Copy(sum, noise(seed, size)); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// saw waits for a task's end and checks what it said.
func saw(g *setup.Gantry, job contracts.JobID, sum string) {
	g.T.Helper()
	g.AwaitSuccess(job)
	if log, _ := g.JobLog(job); strings.TrimSpace(log) != sum {
		g.T.Errorf("%s saw %q, want %s", job, log, sum)
	}
}

// TestAFileIsFetchedOnceForAllTasksOfANode while it is the same in Girder, and
// whatever tasks do to what they got of it.
func TestAFileIsFetchedOnceForAllTasksOfANode(t *testing.T) {
	t.Parallel()
	const size = 8 * mebibyte
	g := start(t, setup.Config{Slots: 4, Env: map[string]string{"GANTRY_CACHE_SIZE": "1g"}})
	file, sum := addFile(g, "slide", size), sumOf(t, "slide", size)
	fetched := func(want int64, when string) {
		t.Helper()
		if sent := downloaded(g, file); sent != want {
			t.Errorf("Girder sent %d bytes %s, want %d", sent, when, want)
		}
	}
	var jobs []contracts.JobID
	for i := range 4 {
		jobs = append(jobs, g.MustSubmit(reads(g, file, fmt.Sprintf("beside others %d", i))))
	}
	for _, job := range jobs {
		saw(g, job, sum)
	}
	fetched(size, "for four tasks at once")
	saw(g, g.MustSubmit(reads(g, file, "after them")), sum)
	fetched(size, "for one more")

	awaitKept(g)
	g.Services[setup.Transfer].Kill()
	g.Services[setup.Transfer].Start()
	g.AwaitService(setup.Transfer)
	saw(g, g.MustSubmit(reads(g, file, "after a restart")), sum)
	fetched(size, "after a restart")

	foreign := reads(g, file, "without access")
	foreign.Girder.Token = contracts.Secret(strangersToken(t, g))
	failed := g.AwaitFailure(g.MustSubmit(foreign))
	if failed.Kind != contracts.FailureTask || !strings.Contains(failed.Message, file.ID) {
		t.Errorf("a task without access to the file failed with %+v", failed)
	}

	spoil(t, g)
	saw(g, g.MustSubmit(reads(g, file, "after damage")), sum)
	fetched(2*size, "after damage to the cache")

	renew := g.Shell(`head -c 1000 /dev/zero > "$1"`, &contracts.VolumePath{Path: "slide"})
	renew.Outputs = []contracts.Output{setup.UploadTo(girdersim.Item{ID: file.ItemID}, "slide")}
	renew.Girder = g.Girder.Of("new contents")
	g.AwaitSuccess(g.MustSubmit(renew))
	zeros := sha256.Sum256(make([]byte, 1000))
	saw(g, g.MustSubmit(reads(g, file, "of the new contents")), hex.EncodeToString(zeros[:]))
	fetched(2*size+1000, "after it got new contents")
}

// strangersToken is that of a user who may read nothing of the first one's.
func strangersToken(t *testing.T, g *setup.Gantry) string {
	t.Helper()
	stranger, err := g.Girder.CreateUser("mallory", "password")
	if err != nil {
		t.Fatal(err)
	}
	token, err := g.Girder.UserToken(stranger.ID, girdersim.ScopeDataRead, girdersim.ScopeDataWrite)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// awaitKept waits until all that was kept is on the disk, under its name: what is
// not outlives no kill.
func awaitKept(g *setup.Gantry) {
	g.T.Helper()
	g.AwaitGone("files on their way into the cache", func() []string {
		kept, err := filepath.Glob(filepath.Join(g.WorkRoot, "transfer", "cache", "*"))
		if err != nil || len(kept) == 0 {
			return []string{"all"}
		}
		return slices.DeleteFunc(kept, func(path string) bool { return !strings.HasPrefix(filepath.Base(path), ".") })
	})
}

// spoil cuts something off whatever is in the node's cache.
func spoil(t *testing.T, g *setup.Gantry) {
	t.Helper()
	kept, err := filepath.Glob(filepath.Join(g.WorkRoot, "transfer", "cache", "*"))
	if err != nil || len(kept) == 0 {
		t.Fatalf("in the cache are %v, %v", kept, err)
	}
	for _, path := range kept {
		info, err := os.Stat(path)
		if err == nil {
			err = os.Truncate(path, info.Size()/2)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestTheCacheGivesWayToTasks where the disk has no room for both, and to new
// files where it is full itself.
func TestTheCacheGivesWayToTasks(t *testing.T) {
	t.Parallel()
	const size = 12 * mebibyte
	g := startOnDisk(t, map[string]string{"GANTRY_CACHE_SIZE": "1g"})
	// What a task had on the disk is gone before the next one comes.
	alone := func(file girdersim.File, title, seed string, size int64) {
		t.Helper()
		saw(g, g.MustSubmit(reads(g, file, title)), sumOf(t, seed, size))
		g.AwaitGone("folders of attempts", func() []string {
			left, err := filepath.Glob(filepath.Join(g.WorkRoot, "attempts", "*"))
			if err != nil {
				t.Fatal(err)
			}
			return left
		})
	}
	var first girdersim.File
	for i := range 5 {
		name := fmt.Sprintf("slide %d", i)
		file := addFile(g, name, size)
		if i == 0 {
			first = file
		}
		alone(file, name, name, size)
	}
	alone(first, "the first again", "slide 0", size)
	const large = disk * 3 / 4
	file := addFile(g, "large", large)
	alone(file, "large", "large", large)
	if !strings.Contains(g.Services[setup.Transfer].Log(), "the cache gave way") {
		t.Error("the cache did not give way")
	}
}
