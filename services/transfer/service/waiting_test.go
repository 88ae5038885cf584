package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/transfer/internal/stage"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// awaitWaiting returns the note of a step that waits for this.
func (b *bench) awaitWaiting(step *contracts.Step, why string) contracts.TransferNote {
	b.t.Helper()
	limit := time.After(timeout)
	for {
		select {
		case note := <-b.notes:
			if !note.isOf(step) {
				continue
			}
			if note.Done {
				b.t.Fatalf("%+v", note)
			}
			if note.Waiting == why {
				return note.TransferNote
			}
		case <-limit:
			b.t.Fatalf("step %s does not say that it waits: %s", step.Step, why)
		}
	}
}

// refusing has Girder answer requests of some kind with a status, until the
// returned function is called.
func (b *bench) refusing(status int, which func(r *http.Request) bool) (enough func()) {
	b.sim.SetFault(func(r *http.Request) *girdersim.Fault {
		if which(r) {
			return &girdersim.Fault{Status: status, Body: "?token=hush", ContentType: "text/plain"}
		}
		return nil
	})
	return func() { b.sim.SetFault(nil) }
}

func ending(suffix string) func(*http.Request) bool {
	return func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, suffix) }
}

// TestAStepSaysWhatItWaitsFor, of each kind and at each of its requests, and no
// longer than that.
func TestAStepSaysWhatItWaitsFor(t *testing.T) {
	t.Parallel()
	any := func(*http.Request) bool { return true }
	in := func(b *bench) *contracts.Step { return b.stageIn("in-0", b.file("in.tif", "pixels")) }
	out := func(b *bench) *contracts.Step {
		b.write("r", []byte("result"))
		return b.stageOut("out-0", "r")
	}
	folderIn := func(b *bench) *contracts.Step {
		folder := b.girderFolder("inputs")
		b.addItem(folder.ID, "a", "pixels")
		return b.stageFolder("in-0", folder.ID)
	}
	folderOut := func(b *bench) *contracts.Step {
		b.onVolume("out/sub/r", "result")
		return b.pushFolder("out-0", "out", b.girderFolder("results").ID)
	}
	streamIn := func(b *bench) *contracts.Step {
		step := b.toPipe("in", b.file("in.tif", "pixels"))
		b.container("cat in")
		return step
	}
	artifact := func(b *bench) *contracts.Step {
		b.write("debug.log", []byte("what happened"))
		b.withGirderJob()
		return b.artifact("out-0", "debug.log")
	}
	const away = "Girder answers 503 Service Unavailable"
	for name, test := range map[string]struct {
		of     func(*bench) *contracts.Step
		status int
		which  func(*http.Request) bool
		says   string
	}{
		"file":            {in, 503, any, away},
		"file's bytes":    {in, 500, ending("/download"), "Girder answers 500 Internal Server Error"},
		"folder in":       {folderIn, 502, any, "Girder answers 502 Bad Gateway"},
		"folder in, file": {folderIn, 503, ending("/download"), away},
		"upload":          {out, 429, any, "Girder answers 429 Too Many Requests"},
		"upload's bytes":  {out, 503, ending("/file/chunk"), away},
		"folder out":      {folderOut, 503, ending("/folder"), away},
		"artifact":        {artifact, 503, any, away},
		"stream":          {streamIn, 503, any, away},
		"stream's bytes":  {streamIn, 503, ending("/download"), away},
		// Of a proxy whose Girder is being restarted: Girder's own have a type.
		"file, by a proxy":           {in, 404, any, "Girder answers 404 Not Found"},
		"file's bytes, by a proxy":   {in, 403, ending("/download"), "Girder answers 403 Forbidden"},
		"folder in, by a proxy":      {folderIn, 401, any, "Girder answers 401 Unauthorized"},
		"upload, by a proxy":         {out, 404, any, "Girder answers 404 Not Found"},
		"upload's bytes, by a proxy": {out, 403, ending("/file/chunk"), "Girder answers 403 Forbidden"},
		"folder out, by a proxy":     {folderOut, 405, ending("/folder"), "Girder answers 405 Method Not Allowed"},
		"artifact, by a proxy":       {artifact, 404, any, "Girder answers 404 Not Found"},
		"stream, by a proxy":         {streamIn, 404, any, "Girder answers 404 Not Found"},
		"stream's bytes, by a proxy": {streamIn, 403, ending("/download"), "Girder answers 403 Forbidden"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setupWith(t, girdersim.Options{Artifacts: true})
			step := test.of(b)
			enough := b.refusing(test.status, test.which)
			b.serve()
			b.ask(step)
			b.awaitWaiting(step, test.says)
			enough()
			if note := b.await(step); note.Waiting != "" || note.Error != "" {
				t.Errorf("the last note is %+v", note)
			}
			if result := b.result(step); result.Outcome != contracts.StepDone {
				t.Errorf("%+v", result)
			}
		})
	}
}

// TestAStepSaysThatNobodyAnswers while Girder is away, and is done when it is back.
func TestAStepSaysThatNobodyAnswers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.serve()
	step := b.stageIn("in-0", b.file("in.tif", "pixels"))
	b.sim.Down()
	b.ask(step)
	b.awaitWaiting(step, "Girder does not answer: connection refused")
	b.must(b.sim.Up())
	b.await(step)
	if result := b.result(step); result.Outcome != contracts.StepDone {
		t.Errorf("%+v", result)
	}
}

// TestAStepIsToldOfAtOnce, though nothing moves, and again to whoever asks again.
func TestAStepIsToldOfAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.serve()
	held, release := b.occupied()
	b.awaitWaiting(held, "")
	for len(b.notes) > 0 {
		<-b.notes
	}
	b.ask(held)
	b.awaitWaiting(held, "")
	release()
	b.await(held)
	b.drained()
}

// TestAStepSaysThatItWaitsForItsTurn, and is known to the next process from then
// on, whatever becomes of its message.
func TestAStepSaysThatItWaitsForItsTurn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.child(b.order()) // which has one place
	b.awaitConsumer()
	held, release := b.occupied()
	waits := b.stageIn("in-0", b.file("waits", "2"))
	b.ask(waits)
	if note := b.awaitWaiting(waits, itsTurn); note.Direction != contracts.StepStageIn {
		t.Errorf("%+v", note)
	}
	b.until("the step is not noted", func() bool { return b.isNoted(waits.Step, waits.FileID) })
	c.kill()
	b.must(b.bus.Purge(t.Context(), contracts.StreamTransfers, contracts.TransferJobFilter(job)))
	release()
	b.serve()
	for _, step := range []*contracts.Step{held, waits} {
		b.until("no result", func() bool { return b.result(step) != nil })
		if result := b.result(step); result.Outcome != contracts.StepDone {
			t.Errorf("%+v", result)
		}
	}
	b.drained()
}

// TestWaitingIsToldAtOnceAndForgotten when bytes move.
func TestWaitingIsToldAtOnceAndForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := meterOf()
		m.waits("Girder is away")
		if n := m.last(); n.Waiting != "Girder is away" || len(m.all()) != 1 {
			t.Errorf("%+v", m.all())
		}
		m.waits("Girder is away")
		m.waits("Girder is ill")
		if len(m.all()) != 1 {
			t.Errorf("two notes at a time: %+v", m.all())
		}
		time.Sleep(noteEvery)
		synctest.Wait()
		if n := m.last(); n.Waiting != "Girder is ill" || len(m.all()) != 2 {
			t.Errorf("%+v", m.all())
		}
		m.progress("big.tif", 0, 2e9) // its name is known, and nothing has moved
		time.Sleep(noteEvery)
		m.progress("big.tif", 0, 2e9)
		if n := m.last(); n.Waiting != "Girder is ill" || n.What != "big.tif" {
			t.Errorf("%+v", n)
		}
		m.move(100)
		if n := m.last(); n.Waiting != "" || n.Bytes == 0 {
			t.Errorf("%+v", n)
		}
		time.Sleep(time.Hour)
		before := len(m.all())
		m.waits(itsTurn)
		if n := m.last(); n.Waiting != itsTurn || n.Rate != 0 || n.Bytes != 100e6 {
			t.Errorf("%+v", n)
		}
		m.goesOn()
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := m.last(); n.Waiting != "" || len(m.all()) != before+2 {
			t.Errorf("%+v", m.all()[before:])
		}
		m.waits("Girder is away")
		m.goesOn() // its place is not what it waits for
		if n := m.last(); n.Waiting == "" {
			t.Errorf("%+v", n)
		}
		m.done(&contracts.StepResult{Outcome: contracts.StepDone, Bytes: 2e9})
		m.waits("nobody")
		if n := m.last(); n.Waiting != "" || !n.Done {
			t.Errorf("%+v", n)
		}
		m.end()
	})
}

// TestReasonsAreShort and have neither paths nor what Girder says in them.
func TestReasonsAreShort(t *testing.T) {
	t.Parallel()
	broken := func(err error) error {
		return fmt.Errorf("stage: %w", &girder.Unreachable{Method: "GET", Path: "file/1/download?token=hush", Err: err})
	}
	for want, err := range map[string]error{
		"Girder answers 502 Bad Gateway":                              &girder.Error{Path: "file?token=hush", Status: 502, Message: "hush"},
		"store.example.org answers 503 Service Unavailable":           &girder.Error{Status: 503, Host: "store.example.org"},
		"Girder does not answer: connection reset by peer":            broken(&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}),
		"Girder does not answer: its host is not known":               broken(&net.OpError{Op: "dial", Err: &net.DNSError{Name: "hush", Err: "no such host"}}),
		"Girder does not answer: it takes too long":                   broken(os.ErrDeadlineExceeded),
		"Girder does not answer: the connection broke":                broken(io.ErrUnexpectedEOF),
		"Girder sends other bytes than those of the file":             broken(stage.ErrChecksum),
		"Girder has other bytes than were sent":                       broken(stage.ErrOtherBytes),
		"another step fetches the same file":                          stage.ErrFetched,
		"Girder does not answer: it takes too long ":                  broken(context.DeadlineExceeded),
		"store.example.org does not answer: connection refused":       &girder.Unreachable{Host: "store.example.org", Err: syscall.ECONNREFUSED},
		"Girder does not answer: none came, or none that can be read": broken(errors.New("invalid character '<' in hush")),
	} {
		if got := reason(err); got != strings.TrimSpace(want) || strings.Contains(got, "hush") {
			t.Errorf("%v: %q, not %q", err, got, want)
		}
	}
}
