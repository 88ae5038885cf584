// Package enginetest holds the suite that every engine.Engine has to pass, and
// the image that it runs.
//
// An engine's test gives Run a function that returns a Subject:
//
//	enginetest.Run(t, func(t *testing.T) enginetest.Subject {
//		return enginetest.Subject{Engine: fake.New(), Image: fake.ScriptImage}
//	})
//
// The containers of the suite run a script of steps, one per argument, such as
// "out:hello\n" and "exit:3". In the Docker image a shell script carries them
// out, in the fake engine a few lines of Go; script.sh lists them all. So both
// see the same task, and tests of other packages can use the same words with
// either engine.
package enginetest

import (
	"context"
	"crypto/rand"
	"sync"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// Subject is an engine under test.
type Subject struct {
	Engine engine.Engine
	Image  string // present, runs the script
	Absent string // an image name that the engine does not have

	// NoMemoryLimit says why memory limits cannot be tested here; empty: they can.
	NoMemoryLimit string
}

// Run runs the suite, each test with a Subject of its own.
func Run(t *testing.T, setup func(t *testing.T) Subject) {
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(&bench{T: t, Subject: setup(t)})
		})
	}
}

var tests = map[string]func(*bench){
	"exit code":                      exitCode,
	"exit at once":                   exitAtOnce,
	"exit by signal":                 exitBySignal,
	"out of memory":                  outOfMemory,
	"stop that the program handles":  stopHandled,
	"stop that the program ignores":  stopIgnored,
	"stop under init":                stopUnderInit,
	"signal after the end":           signalAfterEnd,
	"wait after the end":             waitAfterEnd,
	"wait canceled":                  waitCanceled,
	"remove twice":                   removeTwice,
	"remove while running":           removeWhileRunning,
	"use after remove":               useAfterRemove,
	"start twice":                    startTwice,
	"image":                          imageFound,
	"create without image":           createWithoutImage,
	"name conflict":                  nameConflict,
	"program missing":                programMissing,
	"program missing under init":     programMissingUnderInit,
	"program not executable":         programNotExecutable,
	"codes of its own":               codesOfItsOwn,
	"no such runtime":                noSuchRuntime,
	"no such device":                 noSuchDevice,
	"list by labels":                 listByLabels,
	"ping and id":                    pingAndID,
	"output of both streams":         outputBothStreams,
	"output exact bytes":             outputExactBytes,
	"output long line":               outputLongLine,
	"output without newline":         outputWithoutNewline,
	"output of many lines":           outputManyLines,
	"output while running":           outputWhileRunning,
	"output resumed":                 outputResumed,
	"output resumed inside a line":   outputResumedInsideLine,
	"output resumed while running":   outputResumedWhileRunning,
	"output canceled":                outputCanceled,
	"output of one stream":           outputOfOneStream,
	"output of a slow reader":        outputOfSlowReader,
	"remove a tree":                  removeTree,
	"self":                           self,
	"mount read-write and read-only": mounts,
	"mount of a missing path":        mountMissing,
	"user":                           user,
	"working directory":              workingDir,
	"environment":                    environment,
	"memory limit":                   memoryLimit,
	"no network":                     noNetwork,
	"entrypoint of its own":          entrypoint,
}

// bench is one test's engine and what it needs to use it briefly.
type bench struct {
	*testing.T
	Subject
}

// spec returns a container that runs these steps.
func (b *bench) spec(steps ...string) engine.Spec {
	noInit := false
	return engine.Spec{
		Name: "gantry-enginetest-" + rand.Text(), Image: b.Image, Args: steps,
		Labels:  map[string]string{"gantry.test": "enginetest"},
		Options: contracts.DockerOptions{NetworkMode: "none", Init: &noInit},
	}
}

// create makes a container and has it removed at the end of the test.
func (b *bench) create(spec engine.Spec) string {
	b.Helper()
	id, err := b.Engine.Create(b.Context(), spec)
	if err != nil {
		b.Fatalf("create: %v", err)
	}
	b.Cleanup(func() {
		if err := b.Engine.Remove(context.WithoutCancel(b.Context()), id); err != nil {
			b.Errorf("remove at the end: %v", err)
		}
	})
	return id
}

func (b *bench) start(spec engine.Spec) string {
	b.Helper()
	id := b.create(spec)
	if err := b.Engine.Start(b.Context(), id); err != nil {
		b.Fatalf("start: %v", err)
	}
	return id
}

func (b *bench) wait(id string) engine.Exit {
	b.Helper()
	exit, err := b.Engine.Wait(b.Context(), id, engine.Run{})
	if err != nil {
		b.Fatalf("wait: %v", err)
	}
	return exit
}

// finish runs a container to its end and returns all that it wrote.
func (b *bench) finish(spec engine.Spec) (output, engine.Exit) {
	b.Helper()
	id := b.start(spec)
	out, _ := b.logs(id, engine.Position{})
	return out, b.wait(id)
}

// output is what a container wrote.
type output struct {
	stdout, stderr []byte
	frames         int
}

func (o *output) add(f engine.Frame) {
	o.frames++
	if f.Stream == engine.Stderr {
		o.stderr = append(o.stderr, f.Data...)
		return
	}
	o.stdout = append(o.stdout, f.Data...)
}

// logs reads a log to its end.
func (b *bench) logs(id string, since engine.Position) (output, engine.Position) {
	b.Helper()
	var out output
	pos, err := b.Engine.Logs(b.Context(), id, engine.Both, since, func(f engine.Frame) error {
		out.add(f)
		return nil
	})
	if err != nil {
		b.Fatalf("logs: %v", err)
	}
	return out, pos
}

// follower reads a log in the background.
type follower struct {
	frames chan engine.Frame // closed at the end
	stop   context.CancelFunc
	group  sync.WaitGroup
	pos    engine.Position // after the end
	err    error
}

// follow reads a log in the background until it ends, stop is called, or the
// test is over.
func (b *bench) follow(id string, since engine.Position) *follower {
	return b.followStreams(id, engine.Both, since)
}

func (b *bench) followStreams(id string, streams engine.Streams, since engine.Position) *follower {
	ctx, cancel := context.WithCancel(b.Context())
	f := &follower{frames: make(chan engine.Frame), stop: cancel}
	f.group.Go(func() {
		defer close(f.frames)
		f.pos, f.err = b.Engine.Logs(ctx, id, streams, since, func(fr engine.Frame) error {
			fr.Data = append([]byte(nil), fr.Data...)
			select {
			case f.frames <- fr:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	b.Cleanup(func() {
		cancel()
		f.group.Wait()
	})
	return f
}

// expect waits for a frame with this text.
func (b *bench) expect(f *follower, text string) {
	b.Helper()
	frame, open := <-f.frames
	if !open {
		f.group.Wait()
		b.Fatalf("log ended (%v), want %q", f.err, text)
	}
	if string(frame.Data) != text {
		b.Fatalf("got %q, want %q", frame.Data, text)
	}
}
