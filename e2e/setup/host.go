package setup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// host is what things belong to that outlive one test: a testing.TB of its own,
// which notes what goes wrong and runs its cleanups when it is told to.
type host struct {
	testing.TB // nil: nothing here uses what is not overridden
	name       string

	mu       sync.Mutex // guards what follows
	cleanups []func()
	failed   bool
	skipped  bool
	said     []string
}

func (h *host) Helper()      {}
func (h *host) Name() string { return h.name }

// Context never ends: what has a host ends when it is closed.
func (h *host) Context() context.Context { return context.Background() }

func (h *host) Cleanup(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cleanups = append(h.cleanups, f)
}

func (h *host) TempDir() string {
	dir, err := os.MkdirTemp("", "gantry-e2e-")
	if err != nil {
		h.Fatal(err)
	}
	// Containers of any user see folders below it.
	if err := os.Chmod(dir, 0o755); err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			h.Error(err)
		}
	})
	return dir
}

func (h *host) say(text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.said = append(h.said, strings.TrimSuffix(text, "\n"))
}

func (h *host) fail() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failed = true
}

func (h *host) Failed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failed
}

func (h *host) Skipped() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.skipped
}

// told is everything that was said.
func (h *host) told() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(h.said, "\n")
}

func (h *host) Log(args ...any)                   { h.say(fmt.Sprintln(args...)) }
func (h *host) Logf(format string, args ...any)   { h.say(fmt.Sprintf(format, args...)) }
func (h *host) Error(args ...any)                 { h.fail(); h.Log(args...) }
func (h *host) Errorf(format string, args ...any) { h.fail(); h.Logf(format, args...) }
func (h *host) Fatal(args ...any)                 { h.Error(args...); runtime.Goexit() }
func (h *host) Fatalf(format string, args ...any) { h.Errorf(format, args...); runtime.Goexit() }

func (h *host) Skip(args ...any) { h.Skipf("%s", fmt.Sprint(args...)) }

func (h *host) Skipf(format string, args ...any) {
	h.Logf(format, args...)
	h.mu.Lock()
	h.skipped = true
	h.mu.Unlock()
	runtime.Goexit()
}

// run calls the function, which may end as a test does, and returns when it has
// ended.
func (h *host) run(f func()) {
	var running sync.WaitGroup
	running.Go(f)
	running.Wait()
}

// close runs the cleanups, the last one first.
func (h *host) close() error {
	h.mu.Lock()
	cleanups := h.cleanups
	h.cleanups = nil
	h.mu.Unlock()
	for _, cleanup := range slices.Backward(cleanups) {
		h.run(cleanup)
	}
	if h.Failed() {
		return errors.New(h.told())
	}
	return nil
}
