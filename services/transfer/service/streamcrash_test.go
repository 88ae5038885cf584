package service

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// halfWay has a stream in each direction stand still in the middle, with the
// executor's holds beside it: a container that has read some and written some.
type halfWay struct {
	*bench
	in, post, upload *contracts.Step
	sink             *sink
	container        *container
	executor         io.Closer // its hold of in
}

func (b *bench) halfWay() *halfWay {
	b.t.Helper()
	h := &halfWay{bench: b, sink: b.sink(http.StatusOK)}
	h.in = b.toPipe("in", b.file("in.tif", string(bytes.Repeat(streamed, 4))))
	h.post = b.fromPipe("post", contracts.RouteEnd{URL: h.sink.URL})
	h.upload = b.fromPipe("upload", b.toItem("out.bin"))
	b.pipe("go-on")
	h.executor = b.holdAs(contracts.PipeWrite, "in")
	b.holdAs(contracts.PipeRead, "post")
	b.holdAs(contracts.PipeRead, "upload")
	return h
}

// begin lets the container run until bytes have moved on every way.
func (h *halfWay) begin() {
	h.t.Helper()
	h.ready(h.in, h.post, h.upload)
	h.container = h.bench.container(`exec 3< in 4> post 5> upload
		head -c 1000 <&3 > /dev/null; echo half >&4; echo half >&5; echo begun
		read x < go-on; cat <&3 > /dev/null; echo end`)
	h.until("the container does not begin", func() bool {
		spool, _ := os.ReadFile(filepath.Join(h.root, "attempts/a1/streams", h.upload.Step+".spool"))
		return strings.Contains(h.container.printed(), "begun") && string(spool) == "half\n"
	})
	<-h.sink.arrived
}

// lost checks that all three ended as lost, that the container has seen no end
// of file, and that our ends are held until the attempt's folder is gone.
func (h *halfWay) lost(says string, heldTimes int) {
	h.t.Helper()
	for _, step := range []*contracts.Step{h.in, h.post, h.upload} {
		h.until("no result", func() bool { return h.result(step) != nil })
		if result := h.result(step); result.Outcome != contracts.StepInfrastructure || !strings.Contains(result.Message, says) {
			h.t.Errorf("%s: %+v", step.Step, result)
		}
		h.awaitHeld(heldTimes, step.Step[len("stream-"):])
	}
	if h.endOfFile("in") {
		h.t.Error("an end of file")
	}
	<-h.sink.got
	if err := <-h.sink.complete; err == nil {
		h.t.Error("the server took half a stream for all of it")
	}
	if len(h.sim.Files(h.item.ID)) != 1 || h.sim.OpenUploads() != 0 {
		h.t.Errorf("%+v", h.sim.Files(h.item.ID))
	}
	h.until("the spool stays", func() bool { // it goes after the result is there
		left, err := os.ReadDir(filepath.Join(h.root, "attempts/a1/streams"))
		h.must(err)
		return len(left) == 0
	})
}

// endOfFile reports whether whoever reads the pipe comes to an end.
func (b *bench) endOfFile(name string) bool {
	b.t.Helper()
	fd, err := unix.Open(filepath.Join(b.volume, name), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	b.must(err)
	defer unix.Close(fd)
	p := make([]byte, 4096)
	for {
		n, err := unix.Read(fd, p)
		if errors.Is(err, unix.EAGAIN) {
			return false
		}
		b.must(err)
		if n == 0 {
			return true
		}
	}
}

// folderGone has the executor die, too, and then the container and the folder end.
func (h *halfWay) folderGone() {
	h.t.Helper()
	h.must(h.executor.Close())
	if h.endOfFile("in") {
		h.t.Error("an end of file for the container of a lost stream")
	}
	if err := h.container.kill(); err == nil || strings.Contains(h.container.printed(), "end") {
		h.t.Errorf("the container has seen an end of file: %v", err)
	}
	h.removeAttempts()
	h.awaitHeld(0, "in")
	h.awaitHeld(1, "post") // the executor's
	h.awaitHeld(1, "upload")
	h.until("the journal has streams", func() bool { return len(h.begun()) == 0 })
}

// TestStreamsOfAKilledTransfer are not gone on with, whether the executor asks
// again or not.
func TestStreamsOfAKilledTransfer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.halfWay()
	c := b.child(b.order())
	h.begin()
	c.kill()
	for _, step := range []*contracts.Step{h.in, h.post, h.upload} {
		if b.result(step) != nil {
			t.Fatalf("%+v", b.result(step))
		}
	}
	stop := b.serve()
	b.ask(h.in)
	h.lost("lost its mover", 2)
	stop()
	b.serve() // once more: they are held, and nothing else
	for _, step := range []*contracts.Step{h.in, h.post, h.upload} {
		before := b.result(step)
		if again := b.do(step); !again.Ended.Equal(before.Ended) {
			t.Errorf("%+v", again)
		}
		b.awaitHeld(2, step.Step[len("stream-"):])
	}
	h.folderGone()
}

// TestStreamsOfATransferThatIsStopped have their results before its end.
func TestStreamsOfATransferThatIsStopped(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := b.halfWay()
	stop := b.serve()
	h.begin()
	stop()
	h.lost("lost its mover", 1)
	b.serve()
	for _, name := range []string{"in", "post", "upload"} {
		b.awaitHeld(2, name)
	}
	h.folderGone()
}

// TestAStreamAskedForBeforeTheCrashButNotBegun is begun by the next process.
func TestAStreamAskedForBeforeTheCrashButNotBegun(t *testing.T) {
	t.Parallel()
	b := setup(t)
	hang := make(chan struct{})
	asked := make(chan struct{})
	begin := sync.OnceFunc(func() { close(asked) })
	b.sim.SetFault(func(r *http.Request) *girdersim.Fault {
		begin()
		return &girdersim.Fault{Hang: hang}
	})
	stop := b.serve()
	step := b.toPipe("in", b.file("in.tif", string(streamed)))
	b.ask(step)
	<-asked
	stop()
	close(hang)
	b.sim.SetFault(nil)
	if b.marked(step) || b.result(step) != nil {
		t.Errorf("%+v", b.result(step))
	}
	b.serve()
	b.until("no mark", func() bool { return b.marked(step) })
	c := b.container("cat in")
	b.await(step)
	b.must(c.wait())
	if c.printed() != string(streamed) || b.result(step).Outcome != contracts.StepDone {
		t.Errorf("%+v", b.result(step))
	}
}

// TestTheUploadOfAWholeSpoolGoesOn in the next process, however the first one
// ended, and makes one file.
func TestTheUploadOfAWholeSpoolGoesOn(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*child){"killed": (*child).kill, "stopped": (*child).terminate} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			release := b.holdChunks()
			c := b.child(b.order())
			step := b.fromPipe("upload", b.toItem("out.bin"))
			b.ready(step)
			b.write("content", streamed)
			b.must(b.container("cat content > upload").wait())
			b.do(b.stepFinish(nil))
			b.awaitRequest(uploadBegun)
			end(c)
			if b.result(step) != nil {
				t.Fatalf("%+v", b.result(step))
			}
			release()
			b.serve()
			b.until("no result", func() bool { return b.result(step) != nil })
			result := b.result(step)
			if result.Outcome != contracts.StepDone || result.Bytes != int64(len(streamed)) || len(result.Files) != 1 {
				t.Errorf("%+v", result)
			}
			if files := b.sim.Files(b.item.ID); len(files) != 1 || b.uploaded("out.bin") != string(streamed) {
				t.Errorf("%+v", files)
			}
			b.until("the journal has the stream", func() bool { return !b.noted(step) })
			b.awaitHeld(0, "upload")
		})
	}
}

// TestFinishIsKnownToTheNextProcess with what was written.
func TestFinishIsKnownToTheNextProcess(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stop := b.serve()
	b.do(b.stepFinish(map[string]int64{"stream-short": 7, "stream-empty": 0}))
	stop()
	b.serve()
	short, empty := b.fromPipe("short", b.toItem("short")), b.fromPipe("empty", b.toItem("empty"))
	if result := b.do(short); result.Outcome != contracts.StepInfrastructure || !strings.Contains(result.Message, "7 bytes were written") {
		t.Errorf("%+v", result)
	}
	if result := b.do(empty); result.Outcome != contracts.StepDone {
		t.Errorf("%+v", result)
	}
}

// TestAKilledTransferNeverSaysDone kills it at any moment of streams in both
// directions. A result that says done has all the bytes; a container sees an
// end of file only after such a result.
func TestAKilledTransferNeverSaysDone(t *testing.T) {
	t.Parallel()
	rounds := 8
	if testing.Short() {
		rounds = 3
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	done := 0
	for round := range rounds {
		b := setup(t)
		content := bytes.Repeat(streamed, 4+8*(round%4))
		in := b.toPipe("in", b.file("in.tif", string(content)))
		out := b.fromPipe("out", b.toItem("out.bin"))
		executor := b.holdAs(contracts.PipeWrite, "in")
		b.holdAs(contracts.PipeRead, "out")
		c := b.child(b.order())
		b.ready(in, out)
		// It copies what it reads, 4 KiB at a time, and ends of itself when it has all.
		task := b.container(fmt.Sprintf("head -c %d in | dd bs=4096 status=none of=out; echo end", len(content)))
		ended := make(chan error, 1)
		go func() { ended <- task.wait() }()
		moment := time.NewTimer(time.Duration(random.Int64N(int64(60 * time.Millisecond))))
		killed := false
		look := time.NewTicker(5 * time.Millisecond)
		for finished := false; !finished; {
			select {
			case <-moment.C:
				c.kill()
				killed = true
				b.serve()
				if ended == nil {
					b.ask(b.stepFinish(nil)) // as an executor does that has no answer
				}
			case err := <-ended:
				b.must(err)
				b.ask(b.stepFinish(nil))
				ended = nil
			case <-look.C:
				lost := b.result(in) != nil && b.result(in).Outcome != contracts.StepDone || b.result(out) != nil && b.result(out).Outcome != contracts.StepDone
				finished = killed && (lost || b.result(in) != nil && b.result(out) != nil)
			}
		}
		look.Stop()
		for _, step := range []*contracts.Step{in, out} {
			result := b.result(step)
			switch {
			case result == nil: // the other one was lost: the attempt ends here
			case result.Outcome == contracts.StepDone:
				done++
				if result.Bytes != int64(len(content)) {
					t.Errorf("%s: %+v of %d", step.Step, result, len(content))
				}
			case result.Outcome != contracts.StepInfrastructure:
				t.Errorf("%s: %+v", step.Step, result)
			}
		}
		if result := b.result(out); result != nil && result.Outcome == contracts.StepDone && b.uploaded("out.bin") != string(content) {
			t.Errorf("girder has %d bytes of %d", len(b.uploaded("out.bin")), len(content))
		}
		b.must(executor.Close())
		if ended != nil {
			_ = task.kill()
			<-ended
		}
	}
	t.Logf("%d streams of %d were done", done, 2*rounds)
}
