package docker_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/docker/docker/api/types/versions"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/docker"
)

// speaks are the oldest and the newest version of an engine's API.
type speaks struct{ oldest, newest string }

var versioned = regexp.MustCompile(`^/v([0-9.]+)/`)

// exchangeable is an engine without containers, which can be exchanged for one
// that speaks other versions.
type exchangeable struct{ present atomic.Pointer[speaks] }

func (e *exchangeable) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	present := e.present.Load()
	w.Header().Set("Api-Version", present.newest)
	asked := versioned.FindStringSubmatch(r.URL.Path)
	switch {
	case asked == nil: // a ping
	case versions.GreaterThan(asked[1], present.newest):
		refuse(w, fmt.Sprintf("client version %s is too new. Maximum supported API version is %s", asked[1], present.newest))
	case versions.LessThan(asked[1], present.oldest):
		refuse(w, fmt.Sprintf("client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", asked[1], present.oldest))
	case strings.HasSuffix(r.URL.Path, "/x/json"):
		_, _ = fmt.Fprint(w, `{"Id":"x","State":{"Status":"exited","ExitCode":5}}`)
	case strings.HasSuffix(r.URL.Path, "/wait"):
		_, _ = fmt.Fprint(w, `{"StatusCode":5}`)
	default:
		_, _ = fmt.Fprint(w, `[]`)
	}
}

func refuse(w http.ResponseWriter, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	_, _ = fmt.Fprintf(w, `{"message":%q}`, why)
}

var (
	older  = &speaks{"1.12", "1.41"}
	newer  = &speaks{"1.44", "1.51"}
	future = &speaks{"1.900", "1.999"}
)

// exchanged is an engine that was exchanged for another one since it was last
// asked for something.
func exchanged(t *testing.T, from, to *speaks) (*docker.Engine, *exchangeable) {
	t.Helper()
	behind := &exchangeable{}
	behind.present.Store(from)
	server := httptest.NewServer(behind)
	t.Cleanup(server.Close)
	e, err := docker.New(docker.Config{Host: "tcp://" + server.Listener.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := e.List(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	behind.present.Store(to)
	return e, behind
}

// TestAnEngineThatIsExchanged is talked to in a version that the new one speaks.
func TestAnEngineThatIsExchanged(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ from, to *speaks }{"for a newer one": {older, newer}, "for an older one": {newer, older}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, _ := exchanged(t, test.from, test.to)
			if _, err := e.List(t.Context(), nil); !errors.Is(err, engine.ErrUnavailable) {
				t.Errorf("the first call: %v", err)
			}
			if _, err := e.List(t.Context(), nil); err != nil {
				t.Errorf("the next one: %v", err)
			}
			if err := e.Ping(t.Context()); err != nil {
				t.Error(err)
			}
		})
		t.Run(name+", under a container", func(t *testing.T) {
			t.Parallel()
			e, _ := exchanged(t, test.from, test.to)
			if exit, err := e.Wait(t.Context(), "x", engine.Run{}); err != nil || exit.Code != 5 {
				t.Errorf("exit %+v, %v, want code 5", exit, err)
			}
		})
	}
}

// TestAnEngineThatSpeaksNoVersionOfOurs is not well, though it answers pings: no
// task is claimed for it.
func TestAnEngineThatSpeaksNoVersionOfOurs(t *testing.T) {
	t.Parallel()
	e, behind := exchanged(t, newer, future)
	for range 2 {
		if _, err := e.List(t.Context(), nil); !errors.Is(err, engine.ErrUnavailable) {
			t.Errorf("a call: %v", err)
		}
		if err := e.Ping(t.Context()); !errors.Is(err, engine.ErrOtherVersion) || !strings.Contains(err.Error(), "is too old") {
			t.Errorf("a ping: %v", err)
		}
	}
	behind.present.Store(older)
	if err := e.Ping(t.Context()); !errors.Is(err, engine.ErrOtherVersion) {
		t.Errorf("the first ping to another one: %v", err)
	}
	if err := e.Ping(t.Context()); err != nil {
		t.Errorf("the next one: %v", err)
	}
	if _, err := e.List(t.Context(), nil); err != nil {
		t.Error(err)
	}
}
