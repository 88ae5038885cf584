package imageimport_test

import (
	"archive/tar"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/tools/gantry/internal/imageimport"
	"github.com/gantry-worker/gantry/tools/gantry/internal/imageimport/enginetest"
)

// fakeEngine serves on a socket what the handler answers.
func fakeEngine(t *testing.T, handler http.HandlerFunc) *imageimport.Engine {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "engine") // a socket's path is short, however long TMPDIR is
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	listener, err := net.Listen("unix", filepath.Join(dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(handler)
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	engine, err := imageimport.New("unix://" + filepath.Join(dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	return engine
}

func TestImportSendsTheProgram(t *testing.T) {
	t.Parallel()
	engine := fakeEngine(t, func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		if r.Method != http.MethodPost || r.URL.Path != "/images/create" || query.Get("fromSrc") != "-" ||
			query.Get("repo") != "demo" || query.Get("tag") != "1" || query.Get("changes") != `ENTRYPOINT ["/program"]` {
			t.Errorf("request %s %s", r.Method, r.URL)
		}
		files := tar.NewReader(r.Body)
		header, err := files.Next()
		if err != nil || header.Name != "program" || header.Mode != 0o755 {
			t.Errorf("layer starts with %+v, %v", header, err)
		}
		if data, err := io.ReadAll(files); err != nil || string(data) != "ELF" {
			t.Errorf("program is %q, %v", data, err)
		}
		fmt.Fprintln(w, `{"status":"sha256:1"}`)
	})
	if err := engine.Import(t.Context(), "demo:1", []byte("ELF")); err != nil {
		t.Error(err)
	}
}

func TestErrorsOfTheEngine(t *testing.T) {
	t.Parallel()
	engine := fakeEngine(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodPost: // an import fails in the middle of its answer
			fmt.Fprint(w, `{"status":"…"}`+"\n"+`{"error":"no space left"}`)
		case http.MethodDelete:
			w.WriteHeader(http.StatusNotFound)
		default:
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprint(w, `{"message":"broken"}`)
		}
	})
	if err := engine.Import(t.Context(), "demo:1", nil); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("import: %v", err)
	}
	if err := engine.Remove(t.Context(), "demo:1"); err != nil {
		t.Errorf("remove what is not there: %v", err)
	}
	if _, err := engine.Version(t.Context()); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("version: %v", err)
	}
}

func TestNoEngine(t *testing.T) {
	t.Parallel()
	engine, err := imageimport.New("unix://" + filepath.Join(t.TempDir(), "nobody"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := engine.Version(t.Context()); !errors.Is(err, imageimport.ErrNoEngine) {
		t.Errorf("got %v", err)
	}
	if _, err := imageimport.New("ssh://somewhere"); err == nil {
		t.Error("ssh:// was taken")
	}
}

// TestRealEngine runs where an engine answers.
func TestRealEngine(t *testing.T) {
	t.Parallel()
	engine := enginetest.Need(t)
	ref := "gantry-imageimport-test:" + strings.ToLower(rand.Text())                 // nobody else's on this engine
	t.Cleanup(func() { _ = engine.Remove(context.WithoutCancel(t.Context()), ref) }) // where the test broke off
	if err := engine.Import(t.Context(), ref, []byte("not run")); err != nil {
		t.Fatal(err)
	}
	if err := engine.Remove(t.Context(), ref); err != nil {
		t.Error(err)
	}
}
