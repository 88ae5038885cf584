package service

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/fifo"
	"github.com/gantry-worker/gantry/services/internal/volume"
)

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// pipe makes a named pipe on the volume.
func (b *bench) pipe(name string) string {
	b.t.Helper()
	path := filepath.Join(b.volume, name)
	b.must(syscall.Mkfifo(path, 0o666))
	return path
}

func (b *bench) streamStep(name string, route *contracts.Route) *contracts.Step {
	route.Field = "docker.args[2]"
	return &contracts.Step{
		Version: 1, Job: job, Attempt: 1, Step: name, Kind: contracts.StepStream, Folder: "attempts/a1", Stream: route,
	}
}

func (b *bench) access() contracts.GirderAccess {
	return contracts.GirderAccess{APIURL: publicAPI, Token: "secret:io/girder.token"}
}

// toPipe is the stream of a file into a pipe, which it makes.
func (b *bench) toPipe(name, fileID string) *contracts.Step {
	b.t.Helper()
	b.pipe(name)
	return b.streamStep("stream-"+name, &contracts.Route{
		From: contracts.RouteEnd{FileID: fileID, Girder: b.access()},
		To:   contracts.RouteEnd{Pipe: &contracts.Pipe{Volume: b.volume, Name: name, End: contracts.PipeWrite}},
	})
}

// fromPipe is a stream out of a pipe, which it makes.
func (b *bench) fromPipe(name string, to contracts.RouteEnd) *contracts.Step {
	b.t.Helper()
	b.pipe(name)
	return b.streamStep("stream-"+name, &contracts.Route{
		From: contracts.RouteEnd{Pipe: &contracts.Pipe{Volume: b.volume, Name: name, End: contracts.PipeRead}},
		To:   to,
	})
}

func (b *bench) toItem(name string) contracts.RouteEnd {
	return contracts.RouteEnd{ItemID: b.item.ID, Name: name, Reference: "ref", Girder: b.access()}
}

// stepFinish says that the container has ended.
func (b *bench) stepFinish(written map[string]int64) *contracts.Step {
	return &contracts.Step{
		Version: 1, Job: job, Attempt: 1, Step: "finish", Kind: contracts.StepFinish, Folder: "attempts/a1", Written: written,
	}
}

// ready asks for streams and waits until the container may start.
func (b *bench) ready(steps ...*contracts.Step) {
	b.t.Helper()
	for _, step := range steps {
		b.ask(step)
		b.until("no mark of "+step.Step, func() bool { return b.marked(step) })
	}
}

func (b *bench) marked(step *contracts.Step) bool {
	_, err := os.Lstat(filepath.Join(b.root, step.Folder, "steps", contracts.StreamingMark(step.Step)))
	return err == nil
}

// container is a process that has the pipes open, as a shell's script.
type container struct {
	t   *testing.T
	cmd *exec.Cmd
	out *os.File

	once  sync.Once
	ended error
}

func (b *bench) container(script string) *container {
	b.t.Helper()
	out, err := os.Create(filepath.Join(b.t.TempDir(), "out"))
	b.must(err)
	b.t.Cleanup(func() { _ = out.Close() })
	c := &container{t: b.t, cmd: exec.Command("sh", "-c", script), out: out}
	c.cmd.Dir, c.cmd.Stdout, c.cmd.SysProcAttr = b.volume, out, &syscall.SysProcAttr{Setpgid: true}
	b.must(c.cmd.Start())
	b.t.Cleanup(func() { _ = c.kill() })
	return c
}

// printed is what it wrote to its standard output.
func (c *container) printed() string {
	c.t.Helper()
	all, err := os.ReadFile(c.out.Name())
	if err != nil {
		c.t.Fatal(err)
	}
	return string(all)
}

func (c *container) wait() error {
	c.once.Do(func() { c.ended = c.cmd.Wait() })
	return c.ended
}

func (c *container) kill() error {
	_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
	return c.wait()
}

// holdAs holds a pipe as the executor does.
func (b *bench) holdAs(end contracts.PipeEnd, name string) io.Closer {
	b.t.Helper()
	held, err := fifo.Hold(volume.Volume{Host: b.volume}, name, end)
	b.must(err)
	b.t.Cleanup(func() { _ = held.Close() })
	return held
}

// sink is an HTTP server that takes one stream.
type sink struct {
	*httptest.Server
	arrived  chan struct{} // closed when the request is there
	header   http.Header
	got      chan string
	complete chan error // how the body ended
}

func (b *bench) sink(status int) *sink {
	s := &sink{arrived: make(chan struct{}), got: make(chan string, 1), complete: make(chan error, 1)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.header = r.Header
		close(s.arrived)
		all, err := io.ReadAll(r.Body)
		s.got <- string(all)
		s.complete <- err
		w.WriteHeader(status)
	}))
	b.t.Cleanup(s.Close)
	return s
}

var streamed = bytes.Repeat([]byte("0123456789abcdef"), 20_000) // several times what a pipe holds

func TestStreamIntoAPipe(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.serve()
	step := b.toPipe("in", b.file("in.tif", string(streamed)))
	executor := b.holdAs(contracts.PipeWrite, "in")
	b.ready(step)
	if n := b.asked("GET", "/download"); n != 0 || b.result(step) != nil {
		t.Errorf("begun before the container: %d downloads, %+v", n, b.result(step))
	}
	c := b.container("cat in; echo end")
	b.await(step)
	result := b.result(step)
	if result.Outcome != contracts.StepDone || result.Bytes != int64(len(streamed)) || result.Ended.IsZero() || result.Message != "" {
		t.Fatalf("%+v", result)
	}
	b.awaitHeld(1, "in") // the executor's, in this process
	if strings.HasSuffix(c.printed(), "end\n") {
		t.Error("an end of file while the executor holds the pipe")
	}
	b.must(executor.Close())
	b.must(c.wait())
	if c.printed() != string(streamed)+"end\n" {
		t.Errorf("the container has %d bytes", len(c.printed()))
	}
	b.do(b.stepFinish(nil))
	if again := b.do(step); !again.Ended.Equal(result.Ended) {
		t.Errorf("%+v", again)
	}
	b.until("the journal has the stream", func() bool { return !b.noted(step) })
}

// noted reports whether the journal has a step.
func (b *bench) noted(step *contracts.Step) bool {
	found, err := filepath.Glob(filepath.Join(b.root, "transfer", "steps", "*."+step.Step))
	b.must(err)
	return len(found) > 0
}

// TestStreamsOutOfPipes has each sink at once, with one place for other steps.
func TestStreamsOutOfPipes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.must(b.bus.DeleteSecrets(t.Context(), job))
	b.must(b.bus.PutSecrets(t.Context(), job, contracts.SecretIO, contracts.Secrets{
		"girder.token": b.token, "docker.args[1].output.headers.X-Key": "value",
	}))
	cfg := b.config()
	cfg.Concurrency = 1
	b.start(cfg, quick)
	folder := b.folder()
	s := b.sink(http.StatusOK)
	steps := []*contracts.Step{
		b.fromPipe("post", contracts.RouteEnd{URL: s.URL + "/up?x=1", Headers: map[string]contracts.Secret{
			"X-Key": "secret:io/docker.args[1].output.headers.X-Key", "X-Plain": "plain",
		}}),
		b.fromPipe("item", b.toItem("result.bin")),
		b.fromPipe("folder", contracts.RouteEnd{FolderID: folder, Name: "in-folder.bin", Girder: b.access()}),
		b.fromPipe("unused", b.toItem("empty.bin")),
	}
	b.ready(steps...)
	b.write("content", streamed)
	c := b.container("cat content > post & cat content > item; cat content > folder; echo more > folder; wait")
	b.must(c.wait())
	b.ask(b.stepFinish(nil))
	want := map[string]int{"post": len(streamed), "item": len(streamed), "folder": len(streamed) + 5, "unused": 0}
	for _, step := range steps {
		b.until("no result", func() bool { return b.result(step) != nil })
		name := step.Stream.From.Pipe.Name
		result := b.result(step)
		if result.Outcome != contracts.StepDone || result.Bytes != int64(want[name]) {
			t.Errorf("%s: %+v", name, result)
		}
		if isFile := step.Stream.To.URL == ""; isFile && (len(result.Files) != 1 || result.Files[0].Name != step.Stream.To.Name || result.Files[0].Size != int64(want[name])) {
			t.Errorf("%s: %+v", name, result.Files)
		}
		b.awaitHeld(0, name)
		b.until("the journal has "+name, func() bool { return !b.noted(step) })
	}
	if got := <-s.got; got != string(streamed) || s.header.Get("X-Key") != "value" || s.header.Get("X-Plain") != "plain" {
		t.Errorf("the server has %d bytes and %v", len(got), s.header)
	}
	if b.uploaded("result.bin") != string(streamed) || b.uploaded("empty.bin") != "" || len(b.sim.Files(b.item.ID)) != 2 {
		t.Errorf("%+v", b.sim.Files(b.item.ID))
	}
	spools, err := os.ReadDir(filepath.Join(b.root, "attempts/a1/streams"))
	if err != nil || len(spools) != 0 {
		t.Errorf("%v %v", spools, err)
	}
}

// folder makes a folder in Girder that the task may write.
func (b *bench) folder() string {
	b.t.Helper()
	user, err := b.sim.FindUser("alice")
	b.must(err)
	folder, err := b.sim.CreateFolder(user.ID, "out", false)
	b.must(err)
	return folder.ID
}

// TestStreamsOfAContainerThatDoesNotCare: pipes that are not opened, or not read to their end.
func TestStreamsOfAContainerThatDoesNotCare(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.serve()
	file := b.file("in.tif", string(streamed))
	s := b.sink(http.StatusOK)
	unopened, left := b.toPipe("unopened", file), b.toPipe("left", file)
	empty := b.fromPipe("empty", contracts.RouteEnd{URL: s.URL})
	b.ready(unopened, left, empty)
	b.must(b.container("head -c 1000 left > /dev/null").wait())
	finish := b.stepFinish(nil)
	b.do(finish)
	for _, step := range []*contracts.Step{unopened, left, empty} {
		b.until("no result", func() bool { return b.result(step) != nil })
		result := b.result(step)
		if result.Outcome != contracts.StepDone || result.Bytes >= int64(len(streamed)) || (step == left) != (result.Bytes >= 1000) {
			t.Errorf("%s: %+v", step.Step, result)
		}
	}
	if got := <-s.got; got != "" {
		t.Errorf("%q", got)
	}
	again := b.do(finish)
	if again.Outcome != contracts.StepDone || !b.noted(finish) {
		t.Errorf("%+v", again)
	}
	late := b.toPipe("late", file) // begun when the container has ended
	if result := b.do(late); result.Outcome != contracts.StepDone || result.Bytes != 0 {
		t.Errorf("%+v", result)
	}
	b.removeAttempts()
	b.drained()
}

// TestStreamsAborted: by a revoke, another attempt, the job's end; in each direction.
func TestStreamsAborted(t *testing.T) {
	t.Parallel()
	for name, abort := range map[string]func(b *bench){
		"revoked": func(b *bench) {
			b.must(b.bus.Publish(b.t.Context(), contracts.RevokeSubject(job), "", &contracts.Revoke{Version: 1, Job: job, By: "me"}))
		},
		"canceling":  func(b *bench) { b.append(&contracts.Canceling{}) },
		"taken over": func(b *bench) { b.append(&contracts.Claimed{Node: "n", Executor: "y"}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.serve()
			file := b.file("in.tif", string(streamed))
			s := b.sink(http.StatusOK)
			steps := []*contracts.Step{
				b.toPipe("unopened", file), b.toPipe("stands", file),
				b.fromPipe("post", contracts.RouteEnd{URL: s.URL}), b.fromPipe("spool", b.toItem("x")),
			}
			b.ready(steps...)
			c := b.container("exec 3< stands; head -c 1 <&3; exec 4> post 5> spool; echo half >&4; echo half >&5; read x <&3; cat <&3; echo end")
			<-s.arrived
			b.until("nothing is spooled", func() bool {
				spool, _ := os.ReadFile(filepath.Join(b.root, "attempts/a1/streams/stream-spool.spool"))
				return len(spool) > 0
			})
			abort(b)
			for _, step := range steps {
				b.until("no result", func() bool { return b.result(step) != nil })
				if result := b.result(step); result.Outcome != contracts.StepAborted {
					t.Errorf("%s: %+v", step.Step, result)
				}
				if n := b.held(step.Step[len("stream-"):]); n == 0 {
					t.Errorf("%s is held no more while the container runs", step.Step)
				}
			}
			if err := c.kill(); err == nil || strings.Contains(c.printed(), "end") {
				t.Errorf("the container has seen an end of file: %v", err)
			}
			<-s.got
			if err := <-s.complete; err == nil {
				t.Error("the server took half a stream for all of it")
			}
			if len(b.sim.Files(b.item.ID)) != 1 {
				t.Errorf("%+v", b.sim.Files(b.item.ID))
			}
			b.removeAttempts()
			for _, step := range steps {
				b.awaitHeld(0, step.Step[len("stream-"):])
				b.until("the journal has "+step.Step, func() bool { return !b.noted(step) })
			}
		})
	}
}

// TestAStreamThatNobodyWaitsFor is dropped without an answer.
func TestAStreamThatNobodyWaitsFor(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.append(&contracts.Claimed{Node: b.node, Executor: "y"})
	b.serve()
	step := b.toPipe("in", b.file("in.tif", "x"))
	b.ask(step)
	b.drained()
	if b.result(step) != nil || b.marked(step) || b.held("in") != 0 {
		t.Errorf("%+v", b.result(step))
	}
}

// TestWrittenIsCompared has an executor that wrote more than arrived.
func TestWrittenIsCompared(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.serve()
	s := b.sink(http.StatusOK)
	post, upload, right := b.fromPipe("post", contracts.RouteEnd{URL: s.URL}), b.fromPipe("upload", b.toItem("x")), b.fromPipe("right", b.toItem("y"))
	b.ready(post, upload, right)
	b.must(b.container("echo half > post; echo half > upload; echo half > right").wait())
	b.do(b.stepFinish(map[string]int64{post.Step: 6, upload.Step: 4, right.Step: 5}))
	for _, step := range []*contracts.Step{post, upload, right} {
		b.until("no result", func() bool { return b.result(step) != nil })
		result := b.result(step)
		if step == right && result.Outcome != contracts.StepDone ||
			step != right && (result.Outcome != contracts.StepInfrastructure || !strings.Contains(result.Message, "5 came out of it")) {
			t.Errorf("%s: %+v", step.Step, result)
		}
	}
	<-s.got
	if err := <-s.complete; err == nil {
		t.Error("the server took it for complete")
	}
	if files := b.sim.Files(b.item.ID); len(files) != 1 || files[0].Name != "y" {
		t.Errorf("%+v", files)
	}
}

// TestTheNotesOfAStream say that it is ready, how far it is, and its end.
func TestTheNotesOfAStream(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.serve()
	step := b.toPipe("in", b.file("in.tif", string(streamed)))
	b.ask(step)
	if note := <-b.notes; note.ID != step.Step || note.What != "" || note.Done {
		t.Errorf("%+v", note)
	}
	note := <-b.notes
	for note.What == "" { // it is told again where its message came twice
		note = <-b.notes
	}
	if note.ID != step.Step || note.Direction != contracts.StepStream || note.What != "in.tif" || note.Done || note.Bytes != 0 || note.Total != int64(len(streamed)) || !b.marked(step) {
		t.Errorf("%+v", note)
	}
	c := b.container("cat in")
	if note := b.await(step); note.Bytes != int64(len(streamed)) || note.Total != note.Bytes {
		t.Errorf("%+v", note)
	}
	b.must(c.wait())
}

// TestStreamsGoOnWithoutNATS to their results.
func TestStreamsGoOnWithoutNATS(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.serve()
	step := b.toPipe("in", b.file("in.tif", string(streamed)))
	b.ready(step)
	b.nats.Stop()
	c := b.container("cat in")
	b.must(c.wait())
	if c.printed() != string(streamed) {
		t.Errorf("the container has %d bytes", len(c.printed()))
	}
	if result := b.result(step); result == nil || result.Outcome != contracts.StepDone { // it is on disk before the end of file
		t.Errorf("%+v", result)
	}
	b.nats.Start()
}

// TestManyStreams leave nothing behind, neither descriptors nor files.
func TestManyStreams(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stop := b.start(b.config(), rhythm{life: time.Hour, holds: quick.holds, sweep: quick.sweep})
	file := b.file("in.tif", "pixels")
	var script strings.Builder
	var steps []*contracts.Step
	for i := range 60 {
		in, out := b.toPipe(fmt.Sprintf("in-%d", i), file), b.fromPipe(fmt.Sprintf("out-%d", i), b.toItem(fmt.Sprintf("out-%d", i)))
		steps = append(steps, in, out)
		fmt.Fprintf(&script, "cat in-%d > out-%d &\n", i, i)
	}
	script.WriteString("wait")
	for _, step := range steps {
		b.ask(step)
	}
	for _, step := range steps {
		b.until("no mark of "+step.Step, func() bool { return b.marked(step) })
	}
	b.must(b.container(script.String()).wait())
	b.ask(b.stepFinish(nil))
	for _, step := range steps {
		b.until("no result", func() bool { return b.result(step) != nil })
		if result := b.result(step); result.Outcome != contracts.StepDone || result.Bytes != int64(len("pixels")) {
			t.Errorf("%s: %+v", step.Step, result)
		}
		b.awaitHeld(0, step.Step[len("stream-"):])
	}
	for i := range 60 {
		if got := b.uploaded(fmt.Sprintf("out-%d", i)); got != "pixels" {
			t.Errorf("out-%d: %q", i, got)
		}
	}
	b.removeAttempts()
	b.until("the journal has streams", func() bool { return len(b.begun()) == 0 })
	stop()
}
