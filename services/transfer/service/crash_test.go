package service

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/bus/bustest"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// scenario is one step whose transfer is killed.
type scenario struct {
	*bench
	step *contracts.Step
	// check looks at what the step did, in the end.
	check func()
	// outputs are made again by a later attempt; uploads is how many they are.
	outputs func(b *bench, volume string)
	uploads int
}

var crashed = bytes.Repeat([]byte("0123456789abcdef"), 1<<16)

func crashingIn(b *bench) *scenario {
	step := b.stageIn("in-0", b.file("in.tif", string(crashed)))
	return &scenario{bench: b, step: step, check: func() {
		want := map[string]int{"in/in-0": len(crashed)}
		if diff := cmp.Diff(want, b.files(b.volume)); diff != "" {
			b.t.Error(diff)
		}
		got, err := os.ReadFile(filepath.Join(b.volume, "in/in-0"))
		if err != nil || !bytes.Equal(got, crashed) {
			b.t.Errorf("other bytes: %v", err)
		}
	}}
}

func crashingOut(b *bench) *scenario {
	b.file("old", "from before")
	writeOutputs(b, b.volume)
	return &scenario{bench: b, step: b.stageOut("out-0", "out"), outputs: writeOutputs, uploads: 2, check: func() {
		if len(b.sim.Files(b.item.ID)) != 2 || b.uploaded("new") != string(crashed) || b.uploaded("old") != "from now" {
			b.t.Errorf("in girder: %+v", b.sim.Files(b.item.ID))
		}
	}}
}

func writeOutputs(b *bench, volume string) {
	b.t.Helper()
	out := filepath.Join(volume, "out")
	if err := os.MkdirAll(out, 0o777); err != nil {
		b.t.Fatal(err)
	}
	for name, content := range map[string]string{"new": string(crashed), "old": "from now"} {
		if err := os.WriteFile(filepath.Join(out, name), []byte(content), 0o600); err != nil {
			b.t.Fatal(err)
		}
	}
}

func crashingHold(b *bench) *scenario {
	step := b.hold("progress")
	return &scenario{bench: b, step: step, check: func() { b.awaitHeld(1, "progress") }}
}

// hold is a step for pipes that it makes.
func (b *bench) hold(names ...string) *contracts.Step {
	b.t.Helper()
	step := &contracts.Step{Version: 1, Job: job, Attempt: 1, Step: "hold", Kind: contracts.StepHold, Folder: "attempts/a1"}
	for _, name := range names {
		if err := syscall.Mkfifo(filepath.Join(b.volume, name), 0o666); err != nil {
			b.t.Fatal(err)
		}
		step.Pipes = append(step.Pipes, contracts.Pipe{Volume: b.volume, Name: name, End: contracts.PipeRead})
	}
	return step
}

// held counts this process's descriptors of a pipe.
func (b *bench) held(name string) int {
	b.t.Helper()
	descriptors, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		b.t.Fatal(err)
	}
	n := 0
	for _, descriptor := range descriptors {
		target, err := os.Readlink(descriptor)
		if err == nil && strings.TrimSuffix(target, " (deleted)") == filepath.Join(b.volume, name) {
			n++
		}
	}
	return n
}

func (b *bench) awaitHeld(times int, name string) {
	b.t.Helper()
	b.until(fmt.Sprintf("%s is not held %d times", name, times), func() bool { return b.held(name) == times })
}

// files lists what is below a folder, and how long it is.
func (b *bench) files(folder string) map[string]int {
	b.t.Helper()
	found := map[string]int{}
	err := filepath.WalkDir(folder, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		found[strings.TrimPrefix(path, folder+"/")] = int(info.Size())
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return found
}

// next is what happens between a transfer's death and the next one's start.
// It returns the step that is to be done then.
type next func(s *scenario) *contracts.Step

func restart(s *scenario) *contracts.Step { return s.step }

func adopted(s *scenario) *contracts.Step {
	s.append(&contracts.Adopted{Node: s.node, Executor: "y"})
	return s.step
}

// laterAttempt makes the same files in another attempt.
func laterAttempt(s *scenario) *contracts.Step {
	if result := s.result(s.step); result != nil { // the executor has seen it
		s.append(&contracts.Started{Container: "c"})
		s.append(&contracts.Pushing{})
		s.append(&contracts.Pushed{Files: result.Files})
	}
	s.append(&contracts.Claimed{Node: s.node, Executor: "y"})
	step := *s.step
	step.Attempt, step.Folder = 2, "attempts/a2"
	s.volume = filepath.Join(s.root, step.Folder, "volume")
	step.Volume = s.volume
	if err := os.MkdirAll(s.volume, 0o777); err != nil {
		s.t.Fatal(err)
	}
	s.outputs(s.bench, s.volume)
	return &step
}

// TestKilledBetweenRequestsToGirder kills the process before, in, and after
// each request to Girder.
func TestKilledBetweenRequestsToGirder(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		of   func(*bench) *scenario
		then next
	}{
		"in, restart":        {crashingIn, restart},
		"in, adopted":        {crashingIn, adopted},
		"out, restart":       {crashingOut, restart},
		"out, adopted":       {crashingOut, adopted},
		"out, later attempt": {crashingOut, laterAttempt},
	} {
		for _, part := range []part{before, during, after} {
			t.Run(fmt.Sprintf("%s, part %d", name, part), func(t *testing.T) {
				t.Parallel()
				for n := 0; killAt(t, test.of, test.then, &moment{part: part, left: n}, false); n++ {
				}
			})
		}
	}
}

// TestKilledBetweenRequestsToNATS kills the process before and after each
// request to NATS.
func TestKilledBetweenRequestsToNATS(t *testing.T) {
	t.Parallel()
	for name, of := range map[string]func(*bench) *scenario{"in": crashingIn, "out": crashingOut, "hold": crashingHold} {
		for _, part := range []part{before, after} {
			t.Run(fmt.Sprintf("%s, part %d", name, part), func(t *testing.T) {
				t.Parallel()
				for n := 0; killAt(t, of, []next{restart, adopted}[n%2], &moment{part: part, left: n}, true); n++ {
				}
			})
		}
	}
}

// killAt kills a transfer at a moment, lets another go on, and looks at what
// they did. It reports whether the moment came.
func killAt(t *testing.T, of func(*bench) *scenario, then next, m *moment, nats bool) (came bool) {
	ok := t.Run(fmt.Sprint("request ", m.left), func(t *testing.T) {
		s := of(setupWith(t, girdersim.Options{Artifacts: true}))
		order := s.order()
		if nats {
			proxy := bustest.Start(t, s.nats.Config())
			proxy.Judge(m.judge)
			order.NATS = proxy.Config().URL
		}
		to := m
		if nats {
			to = new(moment) // which does not come
		}
		girder, settle := to.girder(t, s.sim.APIURL())
		order.Girder = girder
		dead := make(chan struct{})
		var c *child
		m.die = func() { c.kill(); close(dead) }
		m.halfway = s.awaitHalf
		c = s.child(order)
		s.awaitConsumer()
		m.begin()
		s.ask(s.step)
		s.until("neither dead nor done", func() bool {
			select {
			case <-dead:
				return true
			default:
				return s.result(s.step) != nil && s.isDrained()
			}
		})
		m.end()
		came = m.cameAt() != ""
		if came {
			<-dead
		}
		c.kill()
		settle()
		first := s.result(s.step)
		lost := s.lost(to, first)
		step := then(s)
		s.serve()
		s.ask(step) // what the dead process was given comes again after its lease
		s.until("not done", func() bool { return s.result(step) != nil && len(s.begun()) == 0 })
		s.finished(step, first, m, lost)
	})
	return came && ok
}

// awaitConsumer waits until a transfer asks for steps.
func (b *bench) awaitConsumer() {
	b.t.Helper()
	consumer := contracts.TransferConsumer(b.node)
	b.until("nobody asks for steps", func() bool {
		handle, err := b.bus.JetStream().Consumer(b.t.Context(), consumer.Stream, consumer.Durable)
		return err == nil && handle.CachedInfo().NumWaiting > 0
	})
}

// awaitHalf waits until half of a download is on disk, but for what may be in memory.
func (b *bench) awaitHalf() {
	b.until("half of the file is not on disk", func() bool {
		for _, size := range b.files(b.volume) {
			if size >= len(crashed)/4 {
				return true
			}
		}
		return false
	})
}

// finished looks at what is there when all is done. first is the result that
// the process had written that was killed, m when that was, and lost how many
// uploads it had begun and not written down.
func (s *scenario) finished(step *contracts.Step, first *contracts.StepResult, m *moment, lost int) {
	s.t.Helper()
	result := s.result(step)
	if result == nil || result.Outcome != contracts.StepDone {
		s.t.Fatalf("killed at %s: %+v", m.cameAt(), result)
	}
	if first != nil && step == s.step && !result.Ended.Equal(first.Ended) {
		s.t.Errorf("killed at %s: done twice, %+v and %+v", m.cameAt(), first, result)
	}
	s.check()
	found := s.files(filepath.Join(s.root, step.Folder, "steps"))
	if _, ok := found[step.Step+".json"]; !ok || len(found) != 1 {
		s.t.Errorf("killed at %s, in the folder: %v", m.cameAt(), found)
	}
	if step.Kind != contracts.StepStageOut {
		return
	}
	artifact := 0 // its upload begins and ends in one request, and has no id for us
	if m.part == during && strings.HasSuffix(m.cameAt(), "/artifact") {
		artifact = 1
	}
	if n := s.sim.OpenUploads(); n > lost+artifact {
		s.t.Errorf("killed at %s: %d uploads are left, %d were lost", m.cameAt(), n, lost)
	}
	if n := s.asked("POST", "/file") + s.asked("PUT", "/contents"); step == s.step && n > s.uploads+lost {
		s.t.Errorf("killed at %s: %d uploads of %d files, %d were lost", m.cameAt(), n, s.uploads, lost)
	}
}

// lost counts the uploads that a process had begun and not written down when it
// died: the answer that begins one is all that tells its id. first is its result.
func (s *scenario) lost(m *moment, first *contracts.StepResult) int {
	s.t.Helper()
	if first != nil {
		return 0
	}
	var journal strings.Builder
	for _, path := range s.begun() {
		text, err := os.ReadFile(path)
		if err != nil {
			s.t.Fatal(err)
		}
		journal.Write(text)
	}
	lost := m.unnoted(journal.String())
	for _, r := range s.sim.Requests() {
		for _, id := range lost {
			if strings.HasSuffix(r.Path, "/file/chunk") && strings.Contains(r.Query, id) {
				s.t.Errorf("killed at %s: upload %s got bytes before it was written down", m.cameAt(), id)
			}
		}
	}
	return len(lost)
}
