package docker_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/docker"
)

// faulty is an engine that fails at the next few requests of a path that ends in
// part, once it was told to.
func faulty(t *testing.T, part string, fail func(w http.ResponseWriter)) (e *docker.Engine, next *atomic.Int32) {
	newEngine(t, docker.Config{}) // skips where there is none
	p := newProxy(t)
	next = new(atomic.Int32)
	p.intercept = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, part) || next.Load() == 0 {
			return false
		}
		if next.Add(-1) < 0 {
			next.Store(0) // several at once
			return false
		}
		fail(w)
		return true
	}
	return newEngine(t, docker.Config{Host: p.host()}), next
}

// failing is what an engine answers whose authorization plugin is not up yet.
func failing(w http.ResponseWriter) {
	http.Error(w, `{"message":"plugin x failed with error: AuthZPlugin.AuthZReq: connection refused"}`, http.StatusInternalServerError)
}

func broken(http.ResponseWriter) { panic(http.ErrAbortHandler) }

// TestAFaultOfOneLookAtAContainer says nothing of the container.
func TestAFaultOfOneLookAtAContainer(t *testing.T) {
	t.Parallel()
	e, next := faulty(t, "/json", failing)
	id := start(t, e, "", "exit:5")
	next.Store(2)
	exit, err := e.Wait(t.Context(), id, engine.Run{})
	if err != nil || exit.Code != 5 || exit.EngineLost || next.Load() != 0 {
		t.Errorf("exit %+v, %v, %d faults did not happen, want code 5", exit, err, next.Load())
	}
}

// TestAFaultOfReadingALog is like a connection that breaks: it is read on.
func TestAFaultOfReadingALog(t *testing.T) {
	t.Parallel()
	e, next := faulty(t, "/logs", failing)
	id := start(t, e, "", "out:one\\n", "exit:0")
	for _, faults := range []int32{1, 2} { // of following it, and of reading its end
		next.Store(faults)
		log := ""
		_, err := e.Logs(t.Context(), id, engine.Both, engine.Position{}, func(f engine.Frame) error {
			log += string(f.Data)
			return nil
		})
		if err != nil || log != "one\n" || next.Load() != 0 {
			t.Errorf("log %q, %v, %d of %d faults did not happen", log, err, next.Load(), faults)
		}
	}
}

// TestAnEngineThatIsOutOfReachForAMoment, just as a container ends, has not
// ended with it.
func TestAnEngineThatIsOutOfReachForAMoment(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		part string
		fail func(http.ResponseWriter)
		run  bool // its run is known
	}{
		"connections broke":                 {"/networks", broken, true},
		"it failed":                         {"/networks", failing, true},
		"connections broke, of unknown run": {"/_ping", broken, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, next := faulty(t, test.part, test.fail)
			var began engine.Run
			if test.run {
				var err error
				if began, err = e.Run(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			id := start(t, e, "", "exit:0")
			next.Store(4)
			exit, err := e.Wait(t.Context(), id, began)
			if err != nil || exit.Code != 0 || exit.EngineLost || next.Load() != 0 {
				t.Errorf("exit %+v, %v, %d faults did not happen, want an ordinary one", exit, err, next.Load())
			}
		})
	}
}
