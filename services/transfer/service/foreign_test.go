package service

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// elsewhere is the same node with the NATS of another installation, which knows
// no job yet.
func (b *bench) elsewhere() *bench {
	b.t.Helper()
	other := *b
	other.nats, other.life, other.notes, other.log = natstest.Start(b.t), nil, make(chan told, 10000), new(bytes.Buffer)
	other.connect()
	return &other
}

// own notes in an attempt's folder whose it is, as an executor does.
func (b *bench) own(folder string) {
	b.t.Helper()
	installation, err := b.bus.Installation(b.t.Context())
	b.must(err)
	b.must(os.MkdirAll(filepath.Join(b.root, folder, "volume"), 0o777))
	about := fmt.Sprintf(`{"job":%q,"attempt":1,"installation":%q,"executor":"x","reply":"","container":""}`, job, installation)
	b.must(os.WriteFile(filepath.Join(b.root, folder, "attempt.json"), []byte(about), 0o600))
}

// journalText has the entries of the journal by name.
func (b *bench) journalText() map[string]string {
	b.t.Helper()
	paths, err := filepath.Glob(filepath.Join(b.root, "transfer", "steps", "*"))
	b.must(err)
	entries := map[string]string{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		b.must(err)
		entries[filepath.Base(path)] = string(text)
	}
	return entries
}

// swept waits until the service has looked at every step of the journal twice.
func (b *bench) swept() {
	b.t.Helper()
	for i := range 2 {
		step := &contracts.Step{Version: 1, Job: "nobodys", Attempt: 1, Step: fmt.Sprint("in-", i), Kind: contracts.StepStageIn, Folder: "attempts/none"}
		line, err := json.Marshal(step)
		b.must(err)
		path := filepath.Join(b.root, "transfer", "steps", fmt.Sprintf("%s.1.%s", step.Job, step.Step))
		b.must(os.WriteFile(path, append(line, '\n'), 0o600))
		b.until("the journal is not looked at", func() bool {
			_, err := os.Stat(path)
			return os.IsNotExist(err)
		})
	}
}

// lookedAtLives waits until the service has looked at the life of everything that
// it holds: of two holds whose attempts end one after the other it lets go at
// different looks.
func (b *bench) lookedAtLives() {
	b.t.Helper()
	var steps []*contracts.Step
	var ends []func()
	for i := range 2 {
		id := contracts.JobID(fmt.Sprint("other-", i))
		step := &contracts.Step{Version: 1, Job: id, Attempt: 1, Step: "hold", Kind: contracts.StepHold, Folder: "attempts/" + string(id)}
		b.must(os.MkdirAll(filepath.Join(b.root, step.Folder), 0o777))
		var last *bus.Seen
		write := func(data contracts.EntryData) {
			b.t.Helper()
			var err error
			last, err = b.bus.Append(b.t.Context(), id, last, data)
			b.must(err)
		}
		task := &contracts.Task{Version: 1, Name: contracts.TaskDockerRun, Docker: &contracts.DockerRun{Image: "img"}}
		write(&contracts.Submitted{Task: task})
		write(&contracts.Queued{Lane: contracts.LaneNormal})
		write(&contracts.Claimed{Node: b.node, Executor: "x"})
		b.ask(step)
		b.until("not held", func() bool { return b.result(step) != nil })
		steps = append(steps, step)
		ends = append(ends, func() { write(&contracts.Failed{Kind: contracts.FailureTask, Message: "m"}) })
	}
	b.through() // a message that is under way looks at the life as well
	for i, step := range steps {
		ends[i]()
		path := filepath.Join(b.root, "transfer", "steps", string(step.Job)+".1.hold")
		b.until("still held", func() bool {
			_, err := os.Stat(path)
			return os.IsNotExist(err)
		})
	}
}

// said are the warnings of a service that has stopped which name an installation.
func (b *bench) said() []string {
	var lines []string
	for line := range strings.Lines(b.log.String()) {
		if strings.Contains(line, `"level":"warn"`) && strings.Contains(line, "right NATS?") {
			lines = append(lines, line)
		}
	}
	return lines
}

// TestStepsOfAnotherInstallationAreLeftAlone starts a transfer with a NATS that
// knows nothing of what the one before began, and then with the right one again.
func TestStepsOfAnotherInstallationAreLeftAlone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.own("attempts/a1")
	release := b.holdChunks()
	stop := b.serve()
	hold := b.hold("progress")
	b.do(hold)
	b.write("r", []byte("result"))
	out, spooled := b.stageOut("out-0", "r"), b.fromPipe("from", b.toItem("spooled"))
	b.ready(spooled)
	b.must(b.container("echo content > from").wait())
	b.do(b.stepFinish(nil))
	b.ask(out)
	b.awaitUpload(out)
	b.awaitUpload(spooled)
	stop()
	before := b.journalText()
	if len(before) != 4 || b.sim.OpenUploads() != 2 {
		t.Fatalf("%d uploads, in the journal: %v", b.sim.OpenUploads(), before)
	}
	results := b.files(filepath.Join(b.root, "attempts/a1/steps"))

	other := b.elsewhere()
	stop = other.serve()
	other.swept()
	other.lookedAtLives()
	if n := b.held("progress"); n != 1 {
		t.Errorf("held %d times", n)
	}
	stop()
	if diff := cmp.Diff(before, b.journalText()); diff != "" {
		t.Errorf("in the journal: %s", diff)
	}
	if diff := cmp.Diff(results, b.files(filepath.Join(b.root, "attempts/a1/steps"))); diff != "" {
		t.Errorf("in the attempt's folder: %s", diff)
	}
	ours, err := b.bus.Installation(t.Context())
	b.must(err)
	if said := other.said(); len(said) != 1 || !strings.Contains(said[0], ours) {
		t.Errorf("said %d times: %s", len(said), said)
	}

	release()
	b.serve()
	b.until("no result", func() bool { return b.result(out) != nil && b.result(spooled) != nil })
	if b.uploaded("r") != "result" || b.uploaded("spooled") != "content\n" || b.sim.OpenUploads() != 0 || b.asked("POST", "/file") != 2 {
		t.Errorf("%+v, %+v, %d uploads are left", b.result(out), b.result(spooled), b.sim.OpenUploads())
	}
	if n := b.held("progress"); n != 1 {
		t.Errorf("held %d times", n)
	}
}

// TestPipesOfAnotherInstallationAreLetGoWithTheirFolder, which is removed, or is
// another attempt's by now.
func TestPipesOfAnotherInstallationAreLetGoWithTheirFolder(t *testing.T) {
	t.Parallel()
	for _, taken := range []bool{false, true} {
		t.Run(fmt.Sprint("taken ", taken), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.own("attempts/a1")
			stop := b.serve()
			b.do(b.hold("progress"))
			stop()
			other := b.elsewhere()
			other.serve()
			other.lookedAtLives()
			if n := b.held("progress"); n != 1 {
				t.Errorf("held %d times", n)
			}
			if taken {
				other.own("attempts/a1")
			} else {
				b.removeAttempts()
			}
			b.awaitHeld(0, "progress")
			b.until("the journal has the hold", func() bool { return b.holdsNoted() == 0 })
		})
	}
}

// TestAJobOfTheSameIDElsewhere is another job: nothing that is known of the one is
// true of it.
func TestAJobOfTheSameIDElsewhere(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.own("attempts/a1")
	release := b.holdChunks()
	stop := b.serve()
	hold := b.hold("progress")
	b.do(hold)
	b.write("r", []byte("result"))
	out := b.stageOut("out-0", "r")
	b.ask(out)
	b.awaitUpload(out)
	stop()
	before, results := b.journalText(), b.files(filepath.Join(b.root, "attempts/a1/steps"))

	other := b.elsewhere()
	other.claim()
	other.own("attempts/b1")
	stop = other.serve()
	in := b.stageIn("in-0", b.file("in.tif", "pixels"))
	other.ask(in) // as no executor does: the folder is the first one's
	other.until("not told", func() bool {
		select {
		case note := <-other.notes:
			return note.isOf(in) && strings.Contains(note.Waiting, "another installation")
		default:
			return false
		}
	})
	other.through()
	if _, fetched := b.files(b.volume)["in/in-0"]; fetched || b.result(in) != nil {
		t.Errorf("%+v, %v", b.result(in), b.files(b.volume))
	}
	for _, step := range []contracts.Step{*out, *hold} {
		step.Folder = "attempts/b1"
		for range 2 { // also when it is asked for again
			other.ask(&step)
			other.await(&step)
			other.through()
		}
		entry := filepath.Join(b.root, "transfer", "steps", "job-1.1."+step.Step)
		if result := b.result(&step); result.Outcome != contracts.StepInfrastructure || !strings.Contains(result.Message, entry) {
			t.Errorf("%+v", result)
		}
	}
	if n := b.held("progress"); n != 1 {
		t.Errorf("held %d times", n)
	}
	release()
	other.append(&contracts.Claimed{Node: b.node, Executor: "x"})
	other.own("attempts/b2")
	other.volume = filepath.Join(b.root, "attempts/b2/volume")
	other.write("r", []byte("of the other"))
	later := other.stageOut("out-0", "r")
	later.Folder, later.Attempt, later.Name = "attempts/b2", 2, "other"
	if result := other.do(later); result.Outcome != contracts.StepDone {
		t.Errorf("%+v", result)
	}
	other.drainedBut(before)
	stop()
	if said := other.said(); len(said) != 2 { // of the journal, and of the folder
		t.Errorf("said %d times: %s", len(said), said)
	}
	if diff := cmp.Diff(results, b.files(filepath.Join(b.root, "attempts/a1/steps"))); diff != "" {
		t.Errorf("in the attempt's folder: %s", diff)
	}

	b.serve()
	b.await(out)
	if b.uploaded("r") != "result" || b.uploaded("other") != "of the other" || b.sim.OpenUploads() != 0 {
		t.Errorf("%+v, %+v", b.result(out), b.sim.Files(b.item.ID))
	}
}

// drainedBut waits until the journal has nothing but some entries, as they were.
func (b *bench) drainedBut(entries map[string]string) {
	b.t.Helper()
	b.until("the journal has other steps", func() bool { return maps.Equal(entries, b.journalText()) })
}
