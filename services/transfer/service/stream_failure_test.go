package service

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// TestStreamsThatFailAtOnce give a result and no mark.
func TestStreamsThatFailAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.serve()
	file := b.file("in.tif", "x")
	gone := b.toPipe("gone", file)
	b.must(os.Remove(filepath.Join(b.volume, "gone")))
	replaced := b.toPipe("replaced", file)
	b.must(os.Remove(filepath.Join(b.volume, "replaced")))
	b.write("replaced", []byte("no pipe"))
	noToken := b.fromPipe("no-token", b.toItem("x"))
	noToken.Stream.To.Girder.Token = "secret:io/other"
	noHeader := b.fromPipe("no-header", contracts.RouteEnd{URL: "http://127.0.0.1/", Headers: map[string]contracts.Secret{"X": "secret:io/other"}})
	odd := b.fromPipe("odd", contracts.RouteEnd{})
	wrongEnd := b.toPipe("wrong-end", file)
	wrongEnd.Stream.To.Pipe.End = contracts.PipeRead
	noRoute := b.toPipe("no-route", file)
	noRoute.Stream = nil
	noItem := b.fromPipe("no-item", contracts.RouteEnd{ItemID: "5f0c5f0c5f0c5f0c5f0c5f0c", Name: "x", Girder: b.access()})
	noFolder := b.fromPipe("no-folder", contracts.RouteEnd{FolderID: "5f0c5f0c5f0c5f0c5f0c5f0c", Name: "x", Girder: b.access()})
	for step, says := range map[*contracts.Step]string{
		b.toPipe("absent", "5f0c5f0c5f0c5f0c5f0c5f0c"): "Invalid file id", gone: "no such file", replaced: "not a named pipe",
		noToken: "secret of other is gone", noHeader: "secret of other is gone",
		b.fromPipe("bad-url", contracts.RouteEnd{URL: "ftp://h/"}): "not an http or https URL", odd: "does not know", wrongEnd: "does not know",
		noRoute: "no route", noItem: "Invalid item id", noFolder: "Invalid folder id",
	} {
		result := b.do(step)
		if result.Outcome != contracts.StepFailure || !strings.Contains(result.Message, says) || b.marked(step) {
			t.Errorf("%s: %+v", step.Step, result)
		}
		if step.Stream != nil && !strings.HasPrefix(result.Message, "docker.args[2]: ") {
			t.Errorf("%s: %q", step.Step, result.Message)
		}
	}
	b.secret("wrong")
	refused := b.do(b.toPipe("refused", file))
	if refused.Outcome != contracts.StepFailure || !strings.Contains(refused.Message, "core.data.read") {
		t.Errorf("%+v", refused)
	}
	refused = b.do(b.fromPipe("refused-out", b.toItem("x")))
	if refused.Outcome != contracts.StepFailure || !strings.Contains(refused.Message, "core.data.write") {
		t.Errorf("%+v", refused)
	}
	b.removeAttempts()
	b.drained()
}

// removeAttempts removes the folders as an executor does, which tries again
// where a step is looked at in that moment.
func (b *bench) removeAttempts() {
	b.t.Helper()
	b.until("the attempts stay", func() bool { return os.RemoveAll(filepath.Join(b.root, "attempts")) == nil })
}

// TestAFailedStreamGivesNoEndOfFile until the attempt's folder is gone.
func TestAFailedStreamGivesNoEndOfFile(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.serve()
	step := b.toPipe("in", b.file("in.tif", string(streamed)))
	b.ready(step)
	b.sim.SetFault(func(r *http.Request) *girdersim.Fault {
		if strings.HasSuffix(r.URL.Path, "/download") {
			return &girdersim.Fault{Status: 403}
		}
		return nil
	})
	c := b.container("cat in; echo end")
	b.await(step)
	result := b.result(step)
	if result.Outcome != contracts.StepFailure || !strings.HasPrefix(result.Message, "docker.args[2]: ") {
		t.Errorf("%+v", result)
	}
	b.append(&contracts.Failed{Kind: contracts.FailureTask, Message: "m"}) // the folder counts, not the life
	b.ask(b.stageOut("other", "x"))                                        // dropped, after a look at the life
	b.through()
	if again := b.do(step); !again.Ended.Equal(result.Ended) || b.held("in") != 1 || !b.noted(step) {
		t.Errorf("%+v, held %d times", again, b.held("in"))
	}
	if err := c.kill(); err == nil || len(c.printed()) != 0 {
		t.Errorf("the container ended: %v, %q", err, c.printed())
	}
	b.removeAttempts()
	b.awaitHeld(0, "in")
	b.until("the journal has the stream", func() bool { return !b.noted(step) })
}

// TestASinkThatRefuses says which stream, where and why.
func TestASinkThatRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.serve()
	s := b.sink(http.StatusTeapot)
	step := b.fromPipe("post", contracts.RouteEnd{URL: s.URL + "/up?token=secret"})
	b.ready(step)
	b.must(b.container("echo all > post").wait())
	b.do(b.stepFinish(nil))
	b.until("no result", func() bool { return b.result(step) != nil })
	want := fmt.Sprintf("docker.args[2]: POST %s/up: 418 I'm a teapot", strings.TrimPrefix(s.URL, "http://"))
	if result := b.result(step); result.Outcome != contracts.StepFailure || result.Message != want {
		t.Errorf("%+v", result)
	}
}

// TestASpoolOnAFullDisk is the node's fault, and gives the room back.
func TestASpoolOnAFullDisk(t *testing.T) {
	t.Parallel()
	b := setup(t)
	spools := filepath.Join(b.root, "attempts/a1/streams")
	b.must(os.Mkdir(spools, 0o711))
	if err := unix.Mount("tmpfs", spools, "tmpfs", 0, "size=256k"); err != nil {
		t.Skip("no file system can be mounted:", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(spools, unix.MNT_DETACH) })
	b.serve()
	step := b.fromPipe("big", b.toItem("x"))
	b.ready(step)
	b.write("content", bytes.Repeat(streamed, 4))
	c := b.container("cat content > big")
	b.await(step)
	result := b.result(step)
	if result.Outcome != contracts.StepInfrastructure || !strings.Contains(result.Message, "no room") {
		t.Errorf("%+v", result)
	}
	if err := c.kill(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("the container ended before it was killed: %v", err)
	}
	if left, err := os.ReadDir(spools); err != nil || len(left) != 0 {
		t.Errorf("%v %v", left, err)
	}
}

// TestAPipeThatIsNotHeldIsToldOnce, until it is another reason.
func TestAPipeThatIsNotHeldIsToldOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	step := b.toPipe("in", "5f0c5f0c5f0c5f0c5f0c5f0c")
	path := filepath.Join(b.volume, "in")
	b.must(os.Remove(path))
	h := newHolds(b.root, nil, nil)
	h.steps[keyOf(step)] = &hold{step: step, open: map[contracts.Pipe]io.Closer{}}
	var log bytes.Buffer
	ctx := zerolog.New(&log).WithContext(t.Context())
	told := func() int { return strings.Count(log.String(), "a named pipe is not held") }
	h.look(ctx)
	h.look(ctx)
	if told() != 1 {
		t.Errorf("%s", log.String())
	}
	b.write("in", nil)
	h.look(ctx)
	h.look(ctx)
	if told() != 2 {
		t.Errorf("%s", log.String())
	}
}
