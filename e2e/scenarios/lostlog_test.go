package scenarios

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
)

// TestServerLosesAcknowledgedLog puts back an older state of the stream of logs,
// as a crash of the server may: the owner ships again what is missing, or the
// one that adopts the task does. Girder has no line twice.
func TestServerLosesAcknowledgedLog(t *testing.T) {
	t.Parallel()
	for _, adopted := range []bool{false, true} {
		name := "the owner lives"
		if adopted {
			name = "the owner dies as well"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			g := setup.Start(t, setup.Config{Env: map[string]string{"GANTRY_ALLOW_BIND": folder}})
			starts := g.Engine.WatchStarts(g.Label())
			// Nobody could ship again what a task wrote that has ended.
			task := newHeld(g, "its log gets lost", folder, 60)
			g.MustSubmit(task.Task)
			live := filepath.Join(setup.NATSFolder(g.Dir, natsServer), "jetstream", "$G", "streams", contracts.StreamLive)
			older := filepath.Join(g.Dir, "older")

			g.AwaitLog(task.ID, "tick 5.")
			g.NATS.Stop()
			replace(t, older, live)
			g.NATS.Start()
			g.AwaitLog(task.ID, "tick 30.")
			if adopted {
				g.Services[setup.Executor].Kill()
			}
			g.NATS.Stop()
			replace(t, live, older)
			g.NATS.Start()
			if adopted {
				g.Services[setup.Executor].Start()
			}
			task.release(t)
			task.check(t, g, starts)
		})
	}
}

// replace makes a folder a copy of another one.
func replace(t *testing.T, to, from string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}
