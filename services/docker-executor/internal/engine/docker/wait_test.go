package docker_test

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/docker"
)

// TestAContainerThatIsNotRemoved: one whose removal failed stays "dead". It is
// not looked at without a pause, nor for ever.
func TestAContainerThatIsNotRemoved(t *testing.T) {
	t.Parallel()
	newEngine(t, docker.Config{}) // skips where there is none
	p := newProxy(t)
	var looks atomic.Int32
	const most = 50 // as many as would take far longer than the limit, with pauses
	inspected(t, p, func(body []byte) []byte {
		if bytes.Contains(body, []byte(`"Status":"exited"`)) && looks.Add(1) <= most {
			return bytes.Replace(body, []byte(`"Status":"exited"`), []byte(`"Status":"dead"`), 1)
		}
		return body
	})
	e := newEngine(t, docker.Config{Host: p.host(), UnavailableLimit: 200 * time.Millisecond})
	exit, err := e.Wait(t.Context(), start(t, e, "", "exit:3"), engine.Run{ID: "any"})
	if !errors.Is(err, engine.ErrFailed) || looks.Load() > most {
		t.Errorf("exit %+v, %v, looked at %d times, want ErrFailed", exit, err, looks.Load())
	}
}

// TestAnEngineThatDoesNotSayWhichRunItIs may have locked up: the end of a
// container is not taken for its doing.
func TestAnEngineThatDoesNotSayWhichRunItIs(t *testing.T) {
	t.Parallel()
	id := start(t, newEngine(t, docker.Config{}), "", "exit:0")
	p := newProxy(t)
	p.intercept = func(_ http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/networks") {
			return false
		}
		<-r.Context().Done()
		return true
	}
	e := newEngine(t, docker.Config{Host: p.host(), CallTimeout: 10 * time.Second})
	exit, err := e.Wait(t.Context(), id, engine.Run{ID: "any"})
	if !errors.Is(err, engine.ErrSilent) {
		t.Errorf("exit %+v, %v, want ErrSilent", exit, err)
	}
}
