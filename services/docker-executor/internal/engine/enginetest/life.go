package enginetest

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

func exitCode(b *bench) {
	for _, code := range []string{"0", "1", "3", "125"} {
		b.Run(code, func(t *testing.T) {
			b := &bench{T: t, Subject: b.Subject}
			_, exit := b.finish(b.spec("exit:" + code))
			if got := strconv.Itoa(exit.Code); got != code || exit.Signal != "" || exit.OOMKilled || exit.EngineLost {
				t.Errorf("exit %+v, want code %s and nothing else", exit, code)
			}
			if exit.FinishedAt.IsZero() {
				t.Error("no time of the end")
			}
		})
	}
}

func exitAtOnce(b *bench) {
	out, exit := b.finish(b.spec("out:only line\\n"))
	if exit.Code != 0 || string(out.stdout) != "only line\n" {
		b.Errorf("exit %+v, output %q", exit, out.stdout)
	}
}

func exitBySignal(b *bench) {
	spec := b.spec("out:dying\\n", "die:KILL")
	spec.Options.Init = nil
	_, exit := b.finish(spec)
	if exit.Code != 137 || exit.Signal != "SIGKILL" || exit.OOMKilled {
		b.Errorf("exit %+v, want 137, SIGKILL, not out of memory", exit)
	}
}

func outOfMemory(b *bench) {
	if b.NoMemoryLimit != "" {
		b.Skip(b.NoMemoryLimit)
	}
	// An engine's kernel may forget to tell of it when nothing is left in the
	// container, so it is enough that this is told once.
	const tries = 8
	for range tries {
		spec := b.spec("alloc:64", "out:survived\\n")
		spec.Options.MemLimit = 16 << 20
		out, exit := b.finish(spec)
		if exit.Code != 137 || len(out.stdout) != 0 {
			b.Fatalf("exit %+v, output %q, want a kill", exit, out.stdout)
		}
		if exit.OOMKilled {
			return
		}
	}
	b.Errorf("%d containers ran out of memory, and the engine tells it of none", tries)
}

func stopHandled(b *bench) {
	id := b.start(b.spec("trap:TERM:7", "out:ready\\n", "hang"))
	log := b.follow(id, engine.Position{})
	b.expect(log, "ready\n")
	if err := b.Engine.Signal(b.Context(), id, "SIGTERM"); err != nil {
		b.Fatal(err)
	}
	if exit := b.wait(id); exit.Code != 7 || exit.Signal != "" {
		b.Errorf("exit %+v, want the program's own 7", exit)
	}
}

func stopIgnored(b *bench) {
	id := b.start(b.spec("out:ready\\n", "hang"))
	log := b.follow(id, engine.Position{})
	b.expect(log, "ready\n")
	for _, signal := range []string{"SIGTERM", "SIGKILL"} { // the first process ignores what it has no handler for
		if err := b.Engine.Signal(b.Context(), id, signal); err != nil {
			b.Fatal(err)
		}
	}
	if exit := b.wait(id); exit.Code != 137 || exit.Signal != "SIGKILL" {
		b.Errorf("exit %+v, want 137 by SIGKILL", exit)
	}
}

func stopUnderInit(b *bench) {
	spec := b.spec("out:ready\\n", "hang")
	spec.Options.Init = nil
	id := b.start(spec)
	log := b.follow(id, engine.Position{})
	b.expect(log, "ready\n")
	if err := b.Engine.Signal(b.Context(), id, "SIGTERM"); err != nil {
		b.Fatal(err)
	}
	if exit := b.wait(id); exit.Code != 143 || exit.Signal != "SIGTERM" {
		b.Errorf("exit %+v, want 143 by SIGTERM", exit)
	}
}

func signalAfterEnd(b *bench) {
	id := b.start(b.spec("exit:0"))
	b.wait(id)
	if err := b.Engine.Signal(b.Context(), id, "SIGTERM"); err != nil {
		b.Errorf("signal to a container that has ended: %v", err)
	}
}

func waitAfterEnd(b *bench) {
	id := b.start(b.spec("exit:9"))
	first, again := b.wait(id), b.wait(id)
	if first.Code != 9 || again != first {
		b.Errorf("exits %+v and %+v, want the same one with code 9", first, again)
	}
}

func waitCanceled(b *bench) {
	id := b.start(b.spec("hang"))
	why := errors.New("revoked")
	ctx, cancel := context.WithCancelCause(b.Context())
	cancel(why)
	if _, err := b.Engine.Wait(ctx, id, engine.Run{}); !errors.Is(err, why) {
		b.Errorf("wait on a canceled context: %v, want its cause", err)
	}
}

func removeTwice(b *bench) {
	id := b.start(b.spec("exit:0"))
	b.wait(id)
	for range 2 {
		if err := b.Engine.Remove(b.Context(), id); err != nil {
			b.Errorf("remove: %v", err)
		}
	}
	if err := b.Engine.Remove(b.Context(), "gantry-enginetest-never-made"); err != nil {
		b.Errorf("remove of a container that never was: %v", err)
	}
}

func removeWhileRunning(b *bench) {
	id := b.start(b.spec("out:ready\\n", "hang"))
	log := b.follow(id, engine.Position{})
	b.expect(log, "ready\n")
	if err := b.Engine.Remove(b.Context(), id); err != nil {
		b.Fatal(err)
	}
	if _, err := b.Engine.Wait(b.Context(), id, engine.Run{}); !errors.Is(err, engine.ErrNotFound) || !engine.IsInfrastructure(err) {
		b.Errorf("wait for a removed container: %v, want ErrNotFound", err)
	}
	for range log.frames { //nolint:revive // only its end counts
	}
}

func startTwice(b *bench) {
	id := b.start(b.spec("out:once\\n", "hang"))
	log := b.follow(id, engine.Position{})
	b.expect(log, "once\n")
	if err := b.Engine.Start(b.Context(), id); err != nil {
		b.Errorf("start while it runs: %v", err)
	}
	if err := b.Engine.Signal(b.Context(), id, "SIGKILL"); err != nil {
		b.Fatal(err)
	}
	ended := b.wait(id)
	if err := b.Engine.Start(b.Context(), id); err != nil {
		b.Errorf("start after it ended: %v", err)
	}
	if again := b.wait(id); !again.FinishedAt.Equal(ended.FinishedAt) {
		b.Errorf("it ended at %s, and again at %s", ended.FinishedAt, again.FinishedAt)
	}
	for range log.frames { //nolint:revive // only its end counts
	}
	if out, _ := b.logs(id, engine.Position{}); string(out.stdout) != "once\n" {
		b.Errorf("it wrote %q", out.stdout)
	}
}

func useAfterRemove(b *bench) {
	id := b.create(b.spec("exit:0"))
	if err := b.Engine.Remove(b.Context(), id); err != nil {
		b.Fatal(err)
	}
	if err := b.Engine.Start(b.Context(), id); !errors.Is(err, engine.ErrNotFound) {
		b.Errorf("start: %v", err)
	}
	if err := b.Engine.Signal(b.Context(), id, "SIGTERM"); !errors.Is(err, engine.ErrNotFound) {
		b.Errorf("signal: %v", err)
	}
	none := func(engine.Frame) error { return nil }
	if _, err := b.Engine.Logs(b.Context(), id, engine.Both, engine.Position{}, none); !errors.Is(err, engine.ErrNotFound) {
		b.Errorf("logs: %v", err)
	}
}

func imageFound(b *bench) {
	img, err := b.Engine.Image(b.Context(), b.Image)
	if err != nil {
		b.Fatal(err)
	}
	if img.ID == "" || img.Labels[TestLabel] != "yes" {
		b.Errorf("image %+v, want an ID and label %s", img, TestLabel)
	}
	byID, err := b.Engine.Image(b.Context(), img.ID)
	if err != nil || byID.ID != img.ID {
		b.Errorf("image by ID: %+v, %v", byID, err)
	}
	if _, err := b.Engine.Image(b.Context(), b.Absent); !errors.Is(err, engine.ErrImageNotFound) || engine.IsInfrastructure(err) {
		b.Errorf("absent image: %v", err)
	}
}

func createWithoutImage(b *bench) {
	spec := b.spec("exit:0")
	spec.Image = b.Absent
	id, err := b.Engine.Create(b.Context(), spec)
	if !errors.Is(err, engine.ErrImageNotFound) || engine.IsInfrastructure(err) || id != "" {
		b.Errorf("create: id %q, %v", id, err)
	}
}

func nameConflict(b *bench) {
	spec := b.spec("exit:0")
	first := b.create(spec)
	_, err := b.Engine.Create(b.Context(), spec)
	if !errors.Is(err, engine.ErrNameConflict) {
		b.Fatalf("second create: %v, want ErrNameConflict", err)
	}
	if err := b.Engine.Remove(b.Context(), first); err != nil {
		b.Fatal(err)
	}
	b.create(spec) // the name is free again
}

func programMissing(b *bench) {
	spec := b.spec()
	spec.Entrypoint = []string{"/no/such/program"}
	id := b.create(spec)
	err := b.Engine.Start(b.Context(), id)
	if !errors.Is(err, engine.ErrCannotStart) || engine.IsInfrastructure(err) {
		b.Errorf("start: %v, want ErrCannotStart, the task's own fault", err)
	}
	if says := `The program "/no/such/program" is not in image ` + b.Image; err == nil || !strings.Contains(err.Error(), says) {
		b.Errorf("start: %v, want it to say %q", err, says)
	}
	if err := b.Engine.Remove(b.Context(), id); err != nil {
		b.Fatal(err)
	}
	if list := b.list(spec.Labels, spec.Name); len(list) != 0 {
		b.Errorf("left after remove: %+v", list)
	}
}

func programMissingUnderInit(b *bench) {
	spec := b.spec()
	spec.Entrypoint, spec.Options.Init = []string{"/no/such/program"}, nil
	out, exit := b.finish(spec)
	if exit.Code != 127 || len(out.stderr) == 0 || exit.NotRun != "/no/such/program" {
		b.Errorf("exit %+v, stderr %q, want 127 and a reason", exit, out.stderr)
	}
}

func programNotExecutable(b *bench) {
	spec := b.spec()
	spec.Entrypoint = []string{"/etc/passwd"}
	err := b.Engine.Start(b.Context(), b.create(spec))
	if says := `The program "/etc/passwd" of image ` + b.Image + " may not be executed"; !errors.Is(err, engine.ErrCannotStart) || !strings.Contains(err.Error(), says) {
		b.Errorf("start: %v, want ErrCannotStart that says %q", err, says)
	}
	spec.Name, spec.Options.Init = b.spec().Name, nil
	if out, exit := b.finish(spec); exit.Code != 126 || len(out.stderr) == 0 || exit.NotRun != "/etc/passwd" {
		b.Errorf("exit %+v, stderr %q, want 126 and a reason", exit, out.stderr)
	}
}

// codesOfItsOwn: a program that runs may end with the codes that say of others
// that they do not.
func codesOfItsOwn(b *bench) {
	for _, steps := range [][]string{{"exit:127"}, {"err:sh: tool: not found\\n", "exit:127"}, {"out:a\\n", "out:b\\n", "exit:126"}} {
		spec := b.spec(steps...)
		spec.Options.Init = nil
		if _, exit := b.finish(spec); exit.NotRun != "" || exit.Code != 127 && exit.Code != 126 {
			b.Errorf("%q: exit %+v", steps, exit)
		}
	}
}

func noSuchRuntime(b *bench) {
	spec := b.spec("exit:0")
	spec.Options.Runtime = "gantry-test-none"
	_, err := b.Engine.Create(b.Context(), spec)
	if !errors.Is(err, engine.ErrNoDriver) || engine.IsInfrastructure(err) {
		b.Fatalf("create: %v, want ErrNoDriver", err)
	}
	if list := b.list(spec.Labels, spec.Name); len(list) != 0 {
		b.Errorf("left behind: %+v", list)
	}
	spec.Options.Runtime = ""
	if _, exit := b.finish(spec); exit.Code != 0 { // the name is free
		b.Errorf("exit %+v with the engine's own runtime", exit)
	}
}

func noSuchDevice(b *bench) {
	spec := b.spec("out:ran\\n")
	spec.Options.DeviceRequests = []contracts.DeviceRequest{{Count: -1, Capabilities: [][]string{{"gantry-test-none"}}}}
	id := b.create(spec)
	for range 2 { // it stays startable, and is refused again
		if err := b.Engine.Start(b.Context(), id); !errors.Is(err, engine.ErrNoDriver) || engine.IsInfrastructure(err) {
			b.Fatalf("start: %v, want ErrNoDriver", err)
		}
	}
	if err := b.Engine.Remove(b.Context(), id); err != nil {
		b.Fatal(err)
	}
	spec.Options.DeviceRequests = nil
	if out, exit := b.finish(spec); exit.Code != 0 || string(out.stdout) != "ran\n" {
		b.Errorf("exit %+v, output %q without the request", exit, out.stdout)
	}
}

func listByLabels(b *bench) {
	mark := map[string]string{"gantry.test.list": b.spec().Name, "gantry.test": "enginetest"}
	waiting, running := b.spec("exit:0"), b.spec("hang")
	waiting.Labels, running.Labels = mark, mark
	created, started := b.create(waiting), b.start(running)
	b.create(b.spec("exit:0")) // carries one of the two labels only

	list, err := b.Engine.List(b.Context(), mark)
	if err != nil {
		b.Fatal(err)
	}
	states := map[string]engine.State{}
	for _, c := range list {
		states[c.ID] = c.State
		if c.Labels["gantry.test.list"] != mark["gantry.test.list"] || c.Image != b.Image || c.Name == "" {
			b.Errorf("listed %+v", c)
		}
	}
	if len(list) != 2 || states[created] != engine.Created || states[started] != engine.Running {
		b.Errorf("listed %+v, want one created and one running", list)
	}
	if err := b.Engine.Signal(b.Context(), started, "SIGKILL"); err != nil {
		b.Fatal(err)
	}
	b.wait(started)
	if list := b.list(mark, running.Name); len(list) != 1 || list[0].State != engine.Exited {
		b.Errorf("listed %+v, want it as exited", list)
	}
}

// list returns the containers with these labels and this name.
func (b *bench) list(labels map[string]string, name string) []engine.Container {
	b.Helper()
	list, err := b.Engine.List(b.Context(), labels)
	if err != nil {
		b.Fatal(err)
	}
	var named []engine.Container
	for _, c := range list {
		if c.Name == name {
			named = append(named, c)
		}
	}
	return named
}

func pingAndID(b *bench) {
	if err := b.Engine.Ping(b.Context()); err != nil {
		b.Error(err)
	}
	first, err := b.Engine.ID(b.Context())
	again, err2 := b.Engine.ID(b.Context())
	if err != nil || err2 != nil || first == "" || first != again {
		b.Errorf("ids %q and %q, errors %v and %v", first, again, err, err2)
	}
}
