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
	"sync"
	"testing"
	"testing/synctest"
	"time"

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
	e := New(Settings{Tools: &attempt.Tools{Engine: &engine.Watched{Engine: eng}}, WorkRoot: t.TempDir()})
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

// While the engine is silent nothing is taken, and folders are left alone.
func TestASilentEngineHasEverythingWait(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	left, err := folder.Create(root, folder.About{Job: "job", Attempt: 1, Installation: "ours"})
	if err != nil {
		t.Fatal(err)
	}
	if err := left.Close(); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		eng := fake.New()
		defer eng.Close()
		watched := &engine.Watched{Engine: eng}
		ctx, stop := context.WithCancel(t.Context())
		var watching sync.WaitGroup
		watching.Go(func() { _ = watched.Watch(ctx) })
		e := New(Settings{Tools: &attempt.Tools{Engine: watched, Installation: "ours"}, WorkRoot: root, Slots: 1})
		unlock := eng.LockUp()
		if err := watched.Start(ctx, "x"); !errors.Is(err, engine.ErrLockedUp) {
			t.Fatalf("start ended with %v", err)
		}
		if err := e.NotReady(); !errors.Is(err, engine.ErrLockedUp) {
			t.Errorf("not ready: %v", err)
		}
		e.adoptFree(ctx, ctx, func(func()) { t.Error("its attempt is gone on with") })
		was := time.Now()
		time.AfterFunc(10*time.Second, unlock)
		if got := ready(t, e); time.Since(was) < 10*time.Second || len(got) != 2 {
			t.Errorf("ready after %s, it logs %q", time.Since(was), got)
		}
		adopted := 0
		e.adoptFree(ctx, ctx, func(func()) { adopted++ })
		if adopted != 1 {
			t.Errorf("%d attempts are gone on with", adopted)
		}
		stop()
		watching.Wait()
	})
}

func TestFoldersThatCannotBeListedAreToldWhenTheReasonChanges(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	attempts := filepath.Join(root, "attempts")
	if err := os.WriteFile(attempts, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e := New(Settings{Tools: &attempt.Tools{Engine: &engine.Watched{}}, WorkRoot: root})
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
	e := New(Settings{Tools: &attempt.Tools{Engine: &engine.Watched{}, Installation: "ours"}, WorkRoot: root})
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

// A folder that is never removed would else be known to nobody.
func TestWhatFailsAgainIsToldOnce(t *testing.T) {
	t.Parallel()
	var r repeats
	busy, full := errors.New("device or resource busy"), errors.New("disk full")
	for _, test := range []struct {
		err  error
		want string // the level
	}{
		{busy, "debug"}, {full, "debug"}, {full, "warn"}, {full, "debug"}, {nil, ""}, {full, "debug"}, {full, "warn"},
	} {
		got := logged(t, func(ctx context.Context) {
			r.tell(ctx, "folder", test.err, "not removed")
			r.tell(ctx, "another", nil, "not removed")
		})
		want := []string{test.want + ": not removed"}
		if test.want == "" {
			want = nil
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v: it logs %q, want %q", test.err, got, want)
		}
	}
}

func TestAFolderThatStaysIsTold(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	gone, err := folder.Create(root, folder.About{Job: "job", Attempt: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	// As long as its containers are not known, it stays.
	eng := fake.New()
	t.Cleanup(eng.Close)
	eng.Fail(fake.CallList, &engine.Error{Op: "list", Subject: "containers", Kind: engine.ErrFailed}, 3)
	e := New(Settings{Tools: &attempt.Tools{Engine: &engine.Watched{Engine: eng}}, WorkRoot: root})
	got := logged(t, func(ctx context.Context) {
		for range 3 {
			f, err := folder.Take(root, "job", 1)
			if err != nil {
				t.Fatal(err)
			}
			e.clean(ctx, f)
		}
	})
	const stays = "what an attempt left is not removed yet, trying again"
	if want := []string{"debug: " + stays, "warn: " + stays, "debug: " + stays}; !slices.Equal(got, want) {
		t.Errorf("it logs %q, want %q", got, want)
	}
}
