package docker_test

import (
	"bytes"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/docker"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/enginetest"
)

// inspected passes requests on, and hands the answers about a container to edit.
func inspected(t *testing.T, p *proxy, edit func([]byte) []byte) {
	t.Helper()
	p.intercept = func(w http.ResponseWriter, r *http.Request) bool {
		if filepath.Base(r.URL.Path) != "json" || !strings.Contains(r.URL.Path, "/containers/") || strings.HasSuffix(r.URL.Path, "/containers/json") {
			return false
		}
		out := r.Clone(r.Context())
		out.URL.Scheme, out.URL.Host, out.RequestURI = "http", "docker", ""
		res, err := p.engine.Transport.RoundTrip(out)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer res.Body.Close() //nolint:errcheck // only read from
		body, err := io.ReadAll(res.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(res.StatusCode)
		_, _ = w.Write(edit(body))
		return true
	}
}

func limited(t *testing.T, e *docker.Engine, steps ...string) string {
	t.Helper()
	direct := newEngine(t, docker.Config{})
	id, err := e.Create(t.Context(), engine.Spec{
		Image: enginetest.BuildImage(t, ""), Args: steps, Labels: map[string]string{"gantry.test": "enginetest"},
		Options: contracts.DockerOptions{NetworkMode: "none", MemLimit: 16 << 20},
	})
	if err != nil {
		t.Fatal(err)
	}
	removed(t, direct, id)
	if err := e.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return id
}

// TestOutOfMemoryToldLate: what the engine says of a container that was killed
// before the engine knew why.
func TestOutOfMemoryToldLate(t *testing.T) {
	t.Parallel()
	newEngine(t, docker.Config{}) // skips where there is none
	p := newProxy(t)
	inspected(t, p, func(body []byte) []byte {
		return bytes.Replace(body, []byte(`"OOMKilled":true`), []byte(`"OOMKilled":false`), 1)
	})
	e := newEngine(t, docker.Config{Host: p.host()})
	const tries = 8 // a kernel may forget to tell, as in the suite
	for range tries {
		exit, err := e.Wait(t.Context(), limited(t, e, "alloc:64"), engine.Run{})
		if err != nil || exit.Code != 137 {
			t.Fatalf("exit %+v, %v", exit, err)
		}
		if exit.OOMKilled {
			return
		}
	}
	t.Errorf("%d containers ran out of memory, and nothing is heard of it", tries)
}

// TestKilledByItsExecutor is not looked at for other reasons.
func TestKilledByItsExecutor(t *testing.T) {
	t.Parallel()
	newEngine(t, docker.Config{}) // skips where there is none
	p := newProxy(t)
	var ended atomic.Int32
	inspected(t, p, func(body []byte) []byte {
		if bytes.Contains(body, []byte(`"Status":"exited"`)) {
			ended.Add(1)
		}
		return body
	})
	e := newEngine(t, docker.Config{Host: p.host()})
	id := limited(t, e, "hang")
	if err := e.Signal(t.Context(), id, "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	exit, err := e.Wait(t.Context(), id, engine.Run{})
	if err != nil || exit.Code != 137 || exit.OOMKilled || ended.Load() != 1 {
		t.Errorf("exit %+v, %v, looked at %d times, want once", exit, err, ended.Load())
	}
}
