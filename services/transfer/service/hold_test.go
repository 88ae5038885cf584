package service

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
)

func TestHoldUntilTheFolderIsGone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.serve()
	step := b.hold("progress", "out")
	if result := b.do(step); result.Outcome != contracts.StepDone || result.Step != "hold" || result.Ended.IsZero() {
		t.Fatalf("%+v", result)
	}
	if b.held("progress") != 1 || b.held("out") != 1 {
		t.Fatalf("held %d and %d times", b.held("progress"), b.held("out"))
	}
	first := b.result(step)
	b.drained() // it is asked for again when nothing of the first time is under way
	if again := b.do(step); !again.Ended.Equal(first.Ended) || b.held("progress") != 1 {
		t.Errorf("%+v, held %d times", again, b.held("progress"))
	}
	if n := len(b.sim.Requests()); n != 0 {
		t.Errorf("Girder was asked %d times", n)
	}
	b.removeAttempts()
	b.awaitHeld(0, "progress")
	b.awaitHeld(0, "out")
	b.until("the journal has the hold", func() bool { return b.holdsNoted() == 0 })
}

// holdsNoted counts the holds in the journal.
func (b *bench) holdsNoted() int {
	b.t.Helper()
	found, err := filepath.Glob(filepath.Join(b.root, "transfer", "steps", "*.hold"))
	if err != nil {
		b.t.Fatal(err)
	}
	return len(found)
}

func TestHoldUntilTheAttemptHasEnded(t *testing.T) {
	t.Parallel()
	for name, ends := range map[string]contracts.EntryData{
		"taken over": &contracts.Claimed{Node: "n", Executor: "y"},
		"failed":     &contracts.Failed{Kind: contracts.FailureTask, Message: "m"},
		"released":   &contracts.Released{Node: "n", Executor: "x"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.serve()
			step := b.hold("progress")
			b.do(step)
			if name == "taken over" { // neither of these ends an attempt
				b.append(&contracts.Adopted{Node: b.node, Executor: "x2"})
				b.append(&contracts.Started{Container: "c"})
				b.do(b.stageIn("in-0", b.file("in.tif", "pixels")))
				if b.held("progress") != 1 {
					t.Error("let go at adoption")
				}
			}
			b.append(ends)
			b.awaitHeld(0, "progress")
			b.drained()
			b.do(step) // late, with the folder still there
			b.awaitHeld(0, "progress")
			b.until("the journal has the hold", func() bool { return b.holdsNoted() == 0 })
		})
	}
}

// TestHoldOfACanceledContainer: it still runs for its grace.
func TestHoldOfACanceledContainer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.serve()
	step := b.hold("progress")
	b.append(&contracts.Canceling{})
	if result := b.do(step); result.Outcome != contracts.StepDone {
		t.Fatalf("%+v", result)
	}
	b.drained() // it has looked at the life since
	if b.held("progress") != 1 {
		t.Error("let go while the container runs")
	}
	b.append(&contracts.Canceled{})
	b.awaitHeld(0, "progress")
}

func TestHoldRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.serve()
	outside := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(outside, 0o666); err != nil {
		t.Fatal(err)
	}
	b.write("file", nil)
	good := b.hold("good")
	for name, link := range map[string]string{"link": "good", "outward": outside, "folder": filepath.Dir(outside)} {
		if err := os.Symlink(link, filepath.Join(b.volume, name)); err != nil {
			t.Fatal(err)
		}
	}
	for place, says := range map[string]string{
		"file": "named pipe", "link": "symbolic link", "outward": "symbolic link", "folder/pipe": "symbolic link",
		"../../../x": "leaves", "/etc/passwd": "absolute", "absent": "no such file",
	} {
		step := *good
		step.Step = "hold-" + strings.Map(func(r rune) rune {
			if strings.ContainsRune("./", r) {
				return '_'
			}
			return r
		}, place)
		step.Pipes = append([]contracts.Pipe{good.Pipes[0]}, contracts.Pipe{Volume: b.volume, Name: place, End: contracts.PipeRead})
		result := b.do(&step)
		if result.Outcome != contracts.StepFailure || !strings.Contains(result.Message, says) {
			t.Errorf("%s: %+v", place, result)
		}
	}
	if n := b.held("good"); n != 0 {
		t.Errorf("held %d times by steps that failed", n)
	}
	b.drained()
	if left := b.begun(); len(left) != 0 {
		t.Errorf("in the journal: %v", left)
	}
}

// TestHoldNeedsNoPlace has every place taken by uploads that wait.
func TestHoldNeedsNoPlace(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cfg := b.config()
	cfg.Concurrency = 1
	b.start(cfg, quick)
	defer b.holdChunks()()
	b.write("r", []byte("result"))
	for _, name := range []string{"out-0", "out-1", "out-2"} {
		b.ask(b.stageOut(name, "r"))
	}
	b.awaitRequest(uploadBegun)
	if result := b.do(b.hold("progress")); result.Outcome != contracts.StepDone {
		t.Errorf("%+v", result)
	}
	if n := b.asked("POST", "/file"); n != 1 {
		t.Errorf("%d uploads at once in one place", n)
	}
}

// TestHeldAgainBeforeNATSIsThere starts the next process with NATS away.
func TestHeldAgainBeforeNATSIsThere(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.child(b.order())
	b.awaitConsumer()
	step := b.hold("progress")
	first := b.do(step)
	c.kill()
	if b.held("progress") != 0 {
		t.Fatal("held by the test")
	}
	cfg := b.config()
	b.nats.Stop()
	stop := b.start(cfg, quick)
	b.awaitHeld(1, "progress")
	b.nats.Start()
	if again := b.do(step); !again.Ended.Equal(first.Ended) || b.held("progress") != 1 {
		t.Errorf("%+v after %+v, held %d times", again, first, b.held("progress"))
	}
	stop()
	if n := b.held("progress"); n != 0 {
		t.Errorf("held %d times after the end", n)
	}
	b.serve()
	b.awaitHeld(1, "progress")
}

// TestAnAttemptThatEndedMeanwhileIsNotHeld removes what a dead process held.
func TestAnAttemptThatEndedMeanwhileIsNotHeld(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stop := b.serve()
	b.do(b.hold("progress"))
	stop()
	if err := os.RemoveAll(filepath.Join(b.root, "attempts")); err != nil {
		t.Fatal(err)
	}
	b.serve()
	b.until("the journal has the hold", func() bool { return b.holdsNoted() == 0 })
}
