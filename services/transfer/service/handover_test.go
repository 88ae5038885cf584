package service

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// TestTheSecondTransferWaitsForTheFirst starts two in one work folder, as a
// rolling restart may: nothing is done twice, and what the first one leaves the
// second one ends.
func TestTheSecondTransferWaitsForTheFirst(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.child(b.order())
	b.awaitConsumer()
	release := b.holdChunks()
	b.write("r", []byte("result"))
	step := b.stageOut("out-0", "r")
	b.ask(step)
	b.awaitUpload(step)
	cfg, waits := b.config(), make(chan struct{})
	cfg.OnReady = func() { t.Log("the second one serves") }
	b.startLogging(cfg, func(message string) {
		if strings.Contains(message, "another transfer") {
			close(waits)
		}
	})
	<-waits
	if b.result(step) != nil || b.asked("POST", "/file") != 1 {
		t.Fatalf("%+v, %d uploads", b.result(step), b.asked("POST", "/file"))
	}
	c.terminate()
	release()
	b.drained()
	if code := c.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	result := b.result(step)
	if result == nil || result.Outcome != contracts.StepDone || b.uploaded("r") != "result" || len(b.sim.Files(b.item.ID)) != 1 {
		t.Errorf("%+v", result)
	}
	if b.asked("POST", "/file") != 1 || b.sim.OpenUploads() != 0 {
		t.Errorf("%d uploads, %d left", b.asked("POST", "/file"), b.sim.OpenUploads())
	}
}

// startLogging is start with an ear for what the service says.
func (b *bench) startLogging(cfg Config, says func(message string)) {
	b.t.Helper()
	log := zerolog.New(zerolog.NewTestWriter(b.t)).Hook(zerolog.HookFunc(func(_ *zerolog.Event, _ zerolog.Level, message string) { says(message) }))
	ctx, cancel := context.WithCancel(log.WithContext(context.Background()))
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, cfg, quick) }()
	b.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			b.t.Error("service:", err)
		}
	})
}

// TestAWaitingTransferCanBeStopped: it owns nothing, and ends without error.
func TestAWaitingTransferCanBeStopped(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.serve()
	b.do(b.stageIn("in-0", b.file("in.tif", "pixels")))
	stop := b.serve()
	stop()
	b.do(b.stageIn("in-1", b.file("in.tif", "pixels")))
}

// TestSIGTERMGivesADownloadBackAtOnce stops the process in the middle of a
// download; the next one gets the other half.
func TestSIGTERMGivesADownloadBackAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	step := b.stageIn("in-0", b.file("in.tif", string(crashed)))
	hang := make(chan struct{})
	b.sim.SetFault(func(r *http.Request) *girdersim.Fault {
		switch {
		case !strings.HasSuffix(r.URL.Path, "/download"):
			return nil
		case r.URL.RawQuery == "":
			return &girdersim.Fault{CutAfter: int64(len(crashed) / 2)}
		}
		return &girdersim.Fault{Hang: hang}
	})
	c := b.child(b.order())
	b.awaitConsumer()
	b.ask(step)
	b.awaitHalf()
	c.terminate()
	if code := c.cmd.ProcessState.ExitCode(); code != 0 || b.result(step) != nil {
		t.Errorf("exit code %d, %+v", code, b.result(step))
	}
	close(hang)
	b.serve()
	b.drained()
	if result := b.result(step); result == nil || result.Outcome != contracts.StepDone || result.Bytes != int64(len(crashed)) {
		t.Fatalf("%+v", result)
	}
	whole := 0
	for _, r := range b.sim.Requests() {
		if strings.HasSuffix(r.Path, "/download") && r.Query == "" {
			whole++
		}
	}
	if whole != 1 || len(b.files(b.volume)) != 1 {
		t.Errorf("downloaded %d times from the start, files %v", whole, b.files(b.volume))
	}
}

// TestAttemptsDoNotUploadSideBySide: of a file that two attempts make, Girder
// gets one.
func TestAttemptsDoNotUploadSideBySide(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start(b.config(), slow)
	release := b.holdChunks()
	b.write("out", []byte("older"))
	first := b.stageOut("out-0", "out")
	b.ask(first)
	b.awaitUpload(first)
	second := laterAttempt(&scenario{bench: b, step: b.stageOut("out-1", "out"), outputs: writeOutputs})
	second.Path = "out/old"
	b.ask(second)
	b.awaitRequest(func(r girdersim.Request) bool { return r.Method == "DELETE" })
	release()
	b.drained()
	if result := b.result(second); result == nil || result.Outcome != contracts.StepDone || b.result(first) != nil {
		t.Errorf("%+v", result)
	}
	if files := b.sim.Files(b.item.ID); len(files) != 1 || files[0].Name != "old" || b.sim.OpenUploads() != 0 {
		t.Errorf("%d uploads are left, files %v", b.sim.OpenUploads(), files)
	}
}

// TestAnUploadIsNotFinishedForAnAttemptThatHasEnded: the last look is just
// before the request that makes the file appear.
func TestAnUploadIsNotFinishedForAnAttemptThatHasEnded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	rhythm := slow
	rhythm.fresh = 0
	b.start(b.config(), rhythm)
	hang, begun := make(chan struct{}), make(chan struct{})
	begin := sync.OnceFunc(func() { close(begun) })
	b.sim.SetFault(func(r *http.Request) *girdersim.Fault {
		if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/file") {
			return nil
		}
		begin()
		return &girdersim.Fault{Hang: hang}
	})
	b.write("r", []byte("result"))
	step := b.stageOut("out-0", "r")
	b.ask(step)
	<-begun
	b.append(&contracts.Claimed{Node: b.node, Executor: "y"})
	close(hang)
	b.drained()
	if b.sim.OpenUploads() != 0 || len(b.sim.Files(b.item.ID)) != 0 || b.result(step) != nil {
		t.Errorf("%d uploads, files %v, %+v", b.sim.OpenUploads(), b.sim.Files(b.item.ID), b.result(step))
	}
}

// TestNATSAwayDuringAStepThatEnds takes NATS away until after the step's end.
func TestNATSAwayDuringAStepThatEnds(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.serve()
	release := b.holdChunks()
	b.write("r", []byte("result"))
	step := b.stageOut("out-0", "r")
	b.ask(step)
	b.awaitUpload(step)
	b.nats.Stop()
	release()
	b.until("the step does not end without NATS", func() bool { return b.result(step) != nil })
	b.nats.Start()
	b.drained()
	if result := b.result(step); result.Outcome != contracts.StepDone || len(b.sim.Files(b.item.ID)) != 1 || b.asked("POST", "/file") != 1 {
		t.Errorf("%+v", result)
	}
}

// TestAnUploadOfAnEndedAttemptIsCanceled kills a transfer; before the next one
// starts the attempt's folder is gone, and no message tells of the step.
func TestAnUploadOfAnEndedAttemptIsCanceled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	release := b.holdChunks()
	defer release()
	b.write("r", []byte("result"))
	c := b.child(b.order())
	b.awaitConsumer()
	b.ask(b.stageOut("out-0", "r"))
	b.until("the upload is not noted", func() bool { return b.isNoted("out-0", "pending") })
	c.kill()
	b.endAttempt()
	// Girder is away at first.
	b.sim.Down()
	release()
	refused := make(chan struct{})
	refuse := sync.OnceFunc(func() { close(refused) })
	b.startLogging(b.config(), func(message string) {
		if strings.Contains(message, "not cleared away") {
			refuse()
		}
	})
	<-refused
	if err := b.sim.Up(); err != nil {
		t.Fatal(err)
	}
	b.drained()
	if b.sim.OpenUploads() != 0 || len(b.sim.Files(b.item.ID)) != 0 {
		t.Errorf("%d uploads are left, files %v", b.sim.OpenUploads(), b.sim.Files(b.item.ID))
	}
}

// endAttempt is what the other services do at a job's end.
func (b *bench) endAttempt() {
	b.t.Helper()
	b.append(&contracts.Failed{Kind: contracts.FailureTask, Message: "m"})
	err := b.bus.Purge(b.t.Context(), contracts.StreamTransfers, contracts.TransferJobFilter(job))
	if err := errors.Join(err, os.RemoveAll(filepath.Join(b.root, "attempts"))); err != nil {
		b.t.Fatal(err)
	}
}

// TestHalfAFileOfAnEndedAttemptIsRemoved is the same of a download to a volume
// of the host's, which stays.
func TestHalfAFileOfAnEndedAttemptIsRemoved(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.volume = t.TempDir()
	step := b.stageIn("in-0", b.file("in.tif", string(crashed)))
	m := &moment{part: during, left: 1, halfway: b.awaitHalf} // the document, then the bytes
	order := b.order()
	order.Girder, _ = m.girder(t, b.sim.APIURL())
	c, dead := b.child(order), make(chan struct{})
	m.die = func() { c.kill(); close(dead) }
	b.awaitConsumer()
	m.begin()
	b.ask(step)
	<-dead
	if left := b.files(b.volume); len(left) != 1 {
		t.Fatalf("on the volume: %v", left)
	}
	b.endAttempt()
	b.serve()
	b.drained()
	if left := b.files(b.volume); len(left) != 0 {
		t.Errorf("on the volume: %v", left)
	}
}

// isNoted reports whether the journal says something of a step.
func (b *bench) isNoted(step, what string) bool {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(b.root, "transfer", "steps", string(job)+".1."+step))
	if err != nil && !os.IsNotExist(err) {
		b.t.Fatal(err)
	}
	return strings.Contains(string(data), what)
}
