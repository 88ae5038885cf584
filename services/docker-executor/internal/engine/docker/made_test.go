package docker_test

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/docker"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/enginetest"
)

// notFound answers the next requests for a container by its id as an engine does
// that is still making it.
func notFound(p *proxy, id string, requests int32) *atomic.Int32 {
	var left atomic.Int32
	left.Store(requests)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.intercept = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/containers/"+id) || left.Add(-1) < 0 {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"message":"No such container: ` + id + `"}`))
		return true
	}
	return &left
}

// TestAContainerThatIsStillBeingMade: the engine lists a container before it
// knows it by its id. Whoever finds it there, because the one that had it made
// has died, starts it, or removes it, all the same.
func TestAContainerThatIsStillBeingMade(t *testing.T) {
	t.Parallel()
	direct := newEngine(t, docker.Config{}) // skips where there is none
	p := newProxy(t)
	finder := newEngine(t, docker.Config{Host: p.host()})
	id, err := direct.Create(t.Context(), engine.Spec{
		Image: enginetest.BuildImage(t, ""), Args: []string{"exit:3"}, Options: contracts.DockerOptions{NetworkMode: "none"},
		Labels: map[string]string{"gantry.test": "enginetest"},
	})
	if err != nil {
		t.Fatal(err)
	}

	left := notFound(p, id, 3)
	if err := finder.Start(t.Context(), id); err != nil {
		t.Errorf("start: %v", err)
	}
	if exit, err := direct.Wait(t.Context(), id, engine.Run{}); err != nil || exit.Code != 3 {
		t.Errorf("ended with %+v, %v; want exit code 3", exit, err)
	}
	if left.Load() > 0 {
		t.Error("its id was not asked for so often")
	}

	notFound(p, id, 3)
	if err := finder.Remove(t.Context(), id); err != nil {
		t.Errorf("remove: %v", err)
	}
	if err := finder.Start(t.Context(), id); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("start of a container that is gone: %v", err)
	}
}
