package executor

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts/client/leaktest"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/attempt"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// ready calls awaitReady and returns what it logged.
func ready(t *testing.T, e *Executor) (messages []string) {
	t.Helper()
	var log bytes.Buffer
	if !e.awaitReady(zerolog.New(&log).WithContext(t.Context())) {
		t.Error("not ready")
	}
	if err := e.NotReady(); err != nil {
		t.Errorf("ready, and not ready: %v", err)
	}
	lines := json.NewDecoder(&log)
	for lines.More() {
		var line struct{ Level, Message string }
		if err := lines.Decode(&line); err != nil {
			t.Fatal(err)
		}
		messages = append(messages, line.Level+": "+line.Message)
	}
	return messages
}

func TestAnOutageIsLoggedWhenItsReasonChanges(t *testing.T) {
	t.Parallel()
	eng := fake.New()
	t.Cleanup(eng.Close)
	e := New(Settings{Tools: &attempt.Tools{Engine: eng}, WorkRoot: t.TempDir()})
	if got := ready(t, e); len(got) != 0 {
		t.Errorf("without an outage it logs %q", got)
	}
	eng.Fail(fake.CallPing, &engine.Error{Op: "reach", Subject: "the engine", Kind: engine.ErrUnavailable}, 3)
	eng.Fail(fake.CallPing, &engine.Error{Op: "reach", Subject: "the engine", Kind: engine.ErrFailed}, 2)
	const outage = "warn: no task can run here, not claiming"
	if got, want := ready(t, e), []string{outage, outage, "info: tasks can run here again"}; !slices.Equal(got, want) {
		t.Errorf("it logs %q, want %q", got, want)
	}
}
