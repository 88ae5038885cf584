package executor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts/client/leaktest"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/attempt"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/folder"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// ready calls awaitReady and returns what it logged.
func ready(t *testing.T, e *Executor) []string {
	t.Helper()
	return logged(t, func(ctx context.Context) {
		if !e.awaitReady(ctx) {
			t.Error("not ready")
		}
		if err := e.NotReady(); err != nil {
			t.Errorf("ready, and not ready: %v", err)
		}
	})
}

// logged returns what do logs.
func logged(t *testing.T, do func(ctx context.Context)) (messages []string) {
	t.Helper()
	var log bytes.Buffer
	do(zerolog.New(&log).WithContext(t.Context()))
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

func TestFoldersThatCannotBeListedAreToldWhenTheReasonChanges(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	attempts := filepath.Join(root, "attempts")
	if err := os.WriteFile(attempts, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e := New(Settings{Tools: &attempt.Tools{}, WorkRoot: root})
	looks := func(n int) []string {
		return logged(t, func(ctx context.Context) {
			for range n {
				e.adoptFree(ctx, ctx, nil)
			}
		})
	}
	const told = "error: not every attempt folder is readable"
	if got := looks(3); !slices.Equal(got, []string{told}) {
		t.Errorf("a file in the way: it logs %q", got)
	}
	if err := errors.Join(os.Remove(attempts), os.MkdirAll(filepath.Join(attempts, "a.2", "attempt.json"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if got := looks(3); !slices.Equal(got, []string{told}) {
		t.Errorf("a folder that cannot be read: it logs %q", got)
	}
	if err := os.RemoveAll(attempts); err != nil {
		t.Fatal(err)
	}
	if got := looks(2); len(got) != 0 {
		t.Errorf("without a fault it logs %q", got)
	}
	if err := os.WriteFile(attempts, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := looks(2); !slices.Equal(got, []string{told}) {
		t.Errorf("the fault is back: it logs %q", got)
	}
}

func TestAnotherInstallationsFolderIsToldOnce(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	theirs, err := folder.Create(root, folder.About{Job: "job", Attempt: 1, Installation: "theirs"})
	if err != nil {
		t.Fatal(err)
	}
	if err := theirs.Close(); err != nil {
		t.Fatal(err)
	}
	e := New(Settings{Tools: &attempt.Tools{Installation: "ours"}, WorkRoot: root})
	got := logged(t, func(ctx context.Context) {
		for range 3 {
			e.adoptFree(ctx, ctx, func(func()) { t.Error("its attempt is gone on with") })
		}
	})
	if len(got) != 1 || !strings.HasPrefix(got[0], "warn: folder of another installation's attempt left alone") {
		t.Errorf("it logs %q", got)
	}
	if again, err := folder.Take(root, "job", 1); err != nil {
		t.Errorf("whose it is cannot take it: %v", err)
	} else if err := again.Close(); err != nil {
		t.Error(err)
	}
}
