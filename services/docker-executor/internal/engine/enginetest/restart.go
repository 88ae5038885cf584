package enginetest

import (
	"testing"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// Restartable is an engine of the test's own, which it may restart.
type Restartable struct {
	Subject
	// Restart stops the engine in good order and starts it again; Kill gives it no
	// chance to do anything at its end. Nil: the engine has no such way.
	Restart, Kill func()
}

// RunRestarts runs what an engine has to do when it is restarted, on one engine
// that ends its containers with itself.
func RunRestarts(t *testing.T, subject Restartable) {
	for name, restart := range map[string]func(){"restarted": subject.Restart, "killed": subject.Kill} {
		if restart == nil {
			continue
		}
		t.Run(name, func(t *testing.T) {
			for name, test := range map[string]func(*bench, func()){
				"runs differ":        runsDiffer,
				"ended unseen":       endedUnseen,
				"ended while waited": endedWhileWaited,
				"ended before":       endedBefore,
				"began after":        beganAfter,
			} {
				t.Run(name, func(t *testing.T) { test(&bench{T: t, Subject: subject.Subject}, restart) })
			}
		})
	}
}

// RunKeeping runs what an engine has to do when it is restarted, on one whose
// containers live on.
func RunKeeping(t *testing.T, subject Restartable) {
	for name, restart := range map[string]func(){"restarted": subject.Restart, "killed": subject.Kill} {
		if restart == nil {
			continue
		}
		t.Run(name, func(t *testing.T) {
			for name, test := range map[string]func(*bench, func()){
				"lives on":         livesOn,
				"ended meanwhile":  keptBefore,
				"followed through": followedThrough,
			} {
				t.Run(name, func(t *testing.T) { test(&bench{T: t, Subject: subject.Subject}, restart) })
			}
		})
	}
}

func (b *bench) run() engine.Run {
	b.Helper()
	run, err := b.Engine.Run(b.Context())
	if err != nil {
		b.Fatalf("run: %v", err)
	}
	return run
}

func (b *bench) waitSince(id string, began engine.Run) engine.Exit {
	b.Helper()
	exit, err := b.Engine.Wait(b.Context(), id, began)
	if err != nil {
		b.Errorf("wait: %v", err)
	}
	return exit
}

func runsDiffer(b *bench, restart func()) {
	first, again := b.run(), b.run()
	if first.ID == "" || first.ID != again.ID || first.Host != again.Host || again.Seen.Before(first.Seen) || first.Seen.IsZero() {
		b.Errorf("one run is %+v and %+v", first, again)
	}
	restart()
	next := b.run()
	if next.ID == first.ID || next.ID == "" || next.Host != first.Host || !next.Seen.After(again.Seen) {
		b.Errorf("the next run is %+v after %+v", next, again)
	}
}

// endedUnseen: a program that handles the stop signal may end with any code.
func endedUnseen(b *bench, restart func()) {
	began := b.run()
	id := b.start(b.spec("trap:TERM:0", "out:ready\\n", "hang"))
	b.expect(b.follow(id, engine.Position{}), "ready\n")
	restart()
	if exit := b.waitSince(id, began); !exit.EngineLost {
		b.Errorf("exit %+v, want the engine lost", exit)
	}
	if out, _ := b.logs(id, engine.Position{}); string(out.stdout) != "ready\n" {
		b.Errorf("log %q", out.stdout)
	}
}

func endedWhileWaited(b *bench, restart func()) {
	began := b.run()
	id := b.start(b.spec("trap:TERM:0", "out:ready\\n", "hang"))
	b.expect(b.follow(id, engine.Position{}), "ready\n")
	ended := make(chan engine.Exit, 1)
	go func() { ended <- b.waitSince(id, began) }()
	restart()
	if exit := <-ended; !exit.EngineLost {
		b.Errorf("exit %+v, want the engine lost", exit)
	}
}

func endedBefore(b *bench, restart func()) {
	began := b.run()
	id := b.start(b.spec("exit:3"))
	b.wait(id)
	later := b.run()
	if exit := b.waitSince(id, began); exit.EngineLost || exit.Code != 3 {
		b.Errorf("exit %+v before the restart, want an ordinary one", exit)
	}
	restart()
	if exit := b.waitSince(id, began); !exit.EngineLost {
		b.Errorf("exit %+v, which nobody can tell from the engine's doing", exit)
	}
	if exit := b.waitSince(id, later); exit.EngineLost || exit.Code != 3 {
		b.Errorf("exit %+v, which came before the engine was last seen", exit)
	}
}

func beganAfter(b *bench, restart func()) {
	stale := b.run()
	restart()
	id := b.start(b.spec("exit:4"))
	for _, began := range []engine.Run{b.run(), {}} {
		if exit := b.waitSince(id, began); exit.EngineLost || exit.Code != 4 {
			b.Errorf("exit %+v, want an ordinary one", exit)
		}
	}
	if exit := b.waitSince(id, stale); exit.Code != 4 {
		b.Errorf("exit %+v, want code 4", exit)
	}
}

func livesOn(b *bench, restart func()) {
	dir := b.TempDir()
	began := b.run()
	spec := b.spec("out:one\\n", "await:/mnt/go", "out:two\\n", "exit:5")
	spec.Mounts = []engine.Mount{{HostPath: dir, ContainerPath: "/mnt"}}
	id := b.start(spec)
	b.expect(b.follow(id, engine.Position{}), "one\n")
	restart()
	b.touch(dir, "go")
	if exit := b.waitSince(id, began); exit.EngineLost || exit.Code != 5 {
		b.Errorf("exit %+v, want its own 5", exit)
	}
	if out, _ := b.logs(id, engine.Position{}); string(out.stdout) != "one\ntwo\n" {
		b.Errorf("log %q", out.stdout)
	}
}

func keptBefore(b *bench, restart func()) {
	began := b.run()
	id := b.start(b.spec("exit:3"))
	b.wait(id)
	restart()
	if exit := b.waitSince(id, began); exit.EngineLost || exit.Code != 3 {
		b.Errorf("exit %+v, want its own 3", exit)
	}
}

// followedThrough: Wait and Logs of one who lives through the restart.
func followedThrough(b *bench, restart func()) {
	dir := b.TempDir()
	spec := b.spec("out:one\\n", "err:uno\\n", "await:/mnt/go", "lines:2000:20", "exit:6")
	spec.Mounts = []engine.Mount{{HostPath: dir, ContainerPath: "/mnt"}}
	began := b.run()
	id := b.start(spec)
	log := b.follow(id, engine.Position{})
	var out output
	out.add(<-log.frames)
	out.add(<-log.frames)
	ended := make(chan engine.Exit, 1)
	go func() { ended <- b.waitSince(id, began) }()
	restart()
	b.touch(dir, "go")
	for f := range log.frames {
		out.add(f)
	}
	log.group.Wait()
	if log.err != nil || string(out.stderr) != "uno\n" || len(out.stdout) < 4 || string(out.stdout[:4]) != "one\n" {
		b.Fatalf("stderr %q, %d bytes of stdout, error %v", out.stderr, len(out.stdout), log.err)
	}
	checkLines(b, out.stdout[4:], 0, 2000, 20)
	if exit := <-ended; exit.EngineLost || exit.Code != 6 {
		b.Errorf("exit %+v, want its own 6", exit)
	}
}
