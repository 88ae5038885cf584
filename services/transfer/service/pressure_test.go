package service

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// silentGirder takes requests and answers none of them, until the test ends. It
// tells each that it was not asked before.
func (b *bench) silentGirder() (api string, asked <-chan string) {
	b.t.Helper()
	came, gone := make(chan string, 1000), make(chan struct{})
	var known sync.Map
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if _, again := known.LoadOrStore(r.URL.Path, true); !again {
			came <- r.URL.Path
		}
		select {
		case <-gone:
		case <-r.Context().Done():
		}
	}))
	b.t.Cleanup(func() {
		close(gone)
		server.Close()
	})
	return server.URL + "/api/v1", came
}

// TestAGirderThatDoesNotAnswerHoldsUpNobodyElse: its steps have its places and
// wait for more of them, and those of another Girder are done meanwhile.
func TestAGirderThatDoesNotAnswerHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	b := setup(t)
	silent, asked := b.silentGirder()
	cfg := b.config()
	cfg.GirderAPIURL, cfg.Concurrency = "", 2
	b.start(cfg, slow)
	file := b.file("in.tif", "pixels")
	for _, name := range []string{"silent-0", "silent-1", "silent-2", "silent-3"} {
		step := b.stageIn(name, "5f0c0000000000000000000"+name[len(name)-1:])
		step.Girder.APIURL = silent
		b.ask(step)
	}
	<-asked
	<-asked
	for _, name := range []string{"in-0", "in-1", "in-2"} {
		step := b.stageIn(name, file)
		step.Girder.APIURL = b.sim.APIURL()
		if result := b.do(step); result.Outcome != contracts.StepDone {
			t.Errorf("%+v", result)
		}
	}
	if len(asked) != 0 {
		t.Error("more than two steps ask the same Girder")
	}
}

// TestAFileThatGirderCannotSendHoldsUpNoOther: while its step waits to try again,
// the only place is another one's.
func TestAFileThatGirderCannotSendHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cfg := b.config()
	cfg.Concurrency = 1
	b.start(cfg, quick)
	broken, whole := b.file("broken.tif", "bytes"), b.file("whole.tif", "pixels")
	b.sim.SetFault(func(r *http.Request) *girdersim.Fault {
		if strings.Contains(r.URL.Path, broken) && strings.HasSuffix(r.URL.Path, "/download") {
			return &girdersim.Fault{Status: http.StatusInternalServerError}
		}
		return nil
	})
	failing := b.stageIn("in-0", broken)
	b.ask(failing)
	b.awaitRequest(func(r girdersim.Request) bool { return r.Status == http.StatusInternalServerError })
	if result := b.do(b.stageIn("in-1", whole)); result.Outcome != contracts.StepDone {
		t.Errorf("%+v", result)
	}
	if b.result(failing) != nil {
		t.Errorf("%+v", b.result(failing))
	}
	b.sim.SetFault(nil)
	b.await(failing)
	if result := b.result(failing); result.Outcome != contracts.StepDone {
		t.Errorf("%+v", result)
	}
	b.drained()
}

// TestStreamsNeedNoConnectionOfFiles: with the only one taken by a download, a
// stream goes through and another download waits.
func TestStreamsNeedNoConnectionOfFiles(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cfg := b.config()
	cfg.GirderConnections = 1
	b.start(cfg, slow)
	held, waits, streams := b.file("held", "1"), b.file("waits", "2"), b.file("streams", string(streamed))
	hang := make(chan struct{})
	downloads := func(id string) func(girdersim.Request) bool {
		return func(r girdersim.Request) bool { return strings.HasSuffix(r.Path, id+"/download") }
	}
	begun := make(chan struct{})
	begin := sync.OnceFunc(func() { close(begun) })
	b.sim.SetFault(func(r *http.Request) *girdersim.Fault {
		if strings.HasSuffix(r.URL.Path, held+"/download") {
			begin()
			return &girdersim.Fault{Hang: hang}
		}
		return nil
	})
	first, second := b.stageIn("in-0", held), b.stageIn("in-1", waits)
	b.ask(first)
	<-begun
	b.ask(second)
	b.awaitRequest(func(r girdersim.Request) bool { return strings.HasSuffix(r.Path, "/file/"+waits) })
	stream := b.toPipe("pipe", streams)
	b.ready(stream)
	c := b.container("cat pipe")
	b.await(stream)
	b.must(c.wait())
	if result := b.result(stream); result.Outcome != contracts.StepDone || c.printed() != string(streamed) {
		t.Errorf("%+v", result)
	}
	for _, r := range b.sim.Requests() {
		if downloads(waits)(r) {
			t.Error("two files move at a time")
		}
	}
	b.sim.SetFault(nil)
	close(hang)
	for _, step := range []*contracts.Step{first, second} {
		b.until("not done", func() bool { return b.result(step) != nil })
		if result := b.result(step); result.Outcome != contracts.StepDone {
			t.Errorf("%+v", result)
		}
	}
}

// TestTheRateIsLimited has each kind of transfer take so long with a limit that
// it can be revoked in its middle.
func TestTheRateIsLimited(t *testing.T) {
	t.Parallel()
	const size = 64 << 20 // more than a quarter of an hour
	for name, of := range map[string]func(*bench) *contracts.Step{
		"in": func(b *bench) *contracts.Step { return b.stageIn("in-0", b.file("big", strings.Repeat("x", size))) },
		"out": func(b *bench) *contracts.Step {
			b.must(os.WriteFile(filepath.Join(b.volume, "big"), make([]byte, size), 0o600))
			return b.stageOut("out-0", "big")
		},
		"stream in": func(b *bench) *contracts.Step {
			step := b.toPipe("in", b.file("big", strings.Repeat("x", size)))
			b.container("cat in > /dev/null")
			return step
		},
		"stream out": func(b *bench) *contracts.Step {
			step := b.fromPipe("out", contracts.RouteEnd{URL: b.sink(http.StatusOK).URL})
			b.container("head -c 67108864 /dev/zero > out")
			return step
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			cfg := b.config()
			cfg.RateLimit = "64k"
			b.start(cfg, slow)
			step := of(b)
			b.ask(step)
			for seen := 0; seen < 2; {
				note := <-b.notes
				if note.Done {
					t.Fatalf("%+v", note)
				}
				if note.Bytes > 0 {
					seen++
				}
			}
			b.must(b.bus.Revoke(t.Context(), contracts.Revoke{Version: 1, Job: job, Terminate: true}))
			b.await(step)
			if result := b.result(step); result.Outcome != contracts.StepAborted {
				t.Errorf("%+v", result)
			}
		})
	}
}

// occupied has a step take the only place, and keep it until release.
func (b *bench) occupied() (step *contracts.Step, release func()) {
	b.t.Helper()
	file := b.file("held", "1")
	hang, begun := make(chan struct{}), make(chan struct{})
	begin := sync.OnceFunc(func() { close(begun) })
	b.sim.SetFault(func(r *http.Request) *girdersim.Fault {
		if !strings.HasSuffix(r.URL.Path, file+"/download") {
			return nil
		}
		begin()
		return &girdersim.Fault{Hang: hang}
	})
	step = b.stageIn("held", file)
	b.ask(step)
	<-begun
	return step, func() {
		b.sim.SetFault(nil)
		close(hang)
	}
}

// TestAStepThatWaitsIsRevoked like one that runs.
func TestAStepThatWaitsIsRevoked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cfg := b.config()
	cfg.Concurrency = 1
	b.start(cfg, slow)
	held, release := b.occupied()
	defer release()
	waits := b.stageIn("in-0", b.file("waits", "2"))
	b.ask(waits)
	b.must(b.bus.Revoke(t.Context(), contracts.Revoke{Version: 1, Job: job, Terminate: true}))
	for _, step := range []*contracts.Step{held, waits} {
		b.until("no result", func() bool { return b.result(step) != nil })
		if result := b.result(step); result.Outcome != contracts.StepAborted {
			t.Errorf("%+v", result)
		}
	}
	b.drained()
}

// TestAStepThatWaitsIsDoneByTheNextTransfer after this one was stopped.
func TestAStepThatWaitsIsDoneByTheNextTransfer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cfg := b.config()
	cfg.Concurrency = 1
	stop := b.start(cfg, slow)
	held, release := b.occupied()
	waits := b.stageIn("in-0", b.file("waits", "2"))
	b.ask(waits)
	stop()
	for _, step := range []*contracts.Step{held, waits} {
		if b.result(step) != nil {
			t.Errorf("%+v", b.result(step))
		}
	}
	release()
	b.start(cfg, quick)
	for _, step := range []*contracts.Step{held, waits} {
		b.until("no result", func() bool { return b.result(step) != nil })
		if result := b.result(step); result.Outcome != contracts.StepDone {
			t.Errorf("%+v", result)
		}
	}
	b.drained()
}
