package conformance

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
)

// registry is an image registry of the loopback interface, which engines trust
// without TLS. Below lab/ it has one image, under any name and tag.
type registry struct {
	host string
	// tag is one that no other registry's images have: the engine may still know
	// those of one at the same address that ended before its test could.
	tag string
	// digest is that of the image's manifest.
	digest string

	// slow is told of questions below slow/, which are never answered.
	slow chan struct{}

	mu    sync.Mutex
	pulls map[string]int // questions for the manifest, by repository
}

func digestOf(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

// newRegistry serves an image whose only program prints the word.
func newRegistry(t *testing.T, e *setup.Engine, word string) *registry {
	t.Helper()
	image(t, e) // builds the program
	tag := contracts.NewToken()[:8]
	// The image is no other registry's either: whoever removes its last name removes it.
	layer, err := setup.RootFilesystem(map[string][]byte{"bin/program": program.binary, "word": []byte(word), "tag": []byte(tag)})
	if err != nil {
		t.Fatal(err)
	}
	tarball, err := io.ReadAll(layer)
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	gz := gzip.NewWriter(&packed)
	if _, err := gz.Write(tarball); err != nil {
		t.Fatal(err)
	}
	if err := gz.Close(); err != nil {
		t.Fatal(err)
	}
	encode := func(v any) []byte {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	config := encode(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": map[string]any{"Entrypoint": []string{"/bin/program", "cat"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digestOf(tarball)}},
	})
	const manifests = "application/vnd.docker.distribution.manifest.v2+json"
	manifest := encode(map[string]any{
		"schemaVersion": 2, "mediaType": manifests,
		"config": map[string]any{"mediaType": "application/vnd.docker.container.image.v1+json", "size": len(config), "digest": digestOf(config)},
		"layers": []any{map[string]any{
			"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": packed.Len(), "digest": digestOf(packed.Bytes()),
		}},
	})
	blobs := map[string][]byte{digestOf(config): config, digestOf(packed.Bytes()): packed.Bytes()}
	r := &registry{tag: tag, digest: digestOf(manifest), pulls: map[string]int{}, slow: make(chan struct{}, 1)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		path, ok := strings.CutPrefix(q.URL.Path, "/v2/lab/")
		name, rest, _ := strings.Cut(path, "/")
		kind, ref, _ := strings.Cut(rest, "/")
		switch {
		case q.URL.Path == "/v2/":
		case strings.HasPrefix(q.URL.Path, "/v2/slow/"):
			select {
			case r.slow <- struct{}{}:
			default:
			}
			<-q.Context().Done() // the engine went away
		case strings.HasPrefix(q.URL.Path, "/v2/private/"):
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"errors": [{"code": "DENIED", "message": "requested access to the resource is denied"}]}`) //nolint:errcheck // the engine may be gone
		case ok && kind == "manifests":
			w.Header().Set("Content-Type", manifests)
			w.Header().Set("Docker-Content-Digest", r.digest)
			r.asked(name)
			w.Write(manifest) //nolint:errcheck // the engine may be gone
		case ok && kind == "blobs" && blobs[ref] != nil:
			w.Write(blobs[ref]) //nolint:errcheck // the engine may be gone
		default:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}`) //nolint:errcheck // the engine may be gone
		}
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	r.host = strings.TrimPrefix(server.URL, "http://")
	return r
}

// ref names an image of the registry.
func (r *registry) ref(name string) string { return r.host + "/" + name + ":" + r.tag }

func (r *registry) asked(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pulls[name]++
}

func (r *registry) pullsOf(name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pulls[name]
}

// awaitSlow waits until the engine waits for an answer.
func (r *registry) awaitSlow(s *stage) {
	s.t.Helper()
	select {
	case <-r.slow:
	case <-s.Context().Done():
		s.t.Fatal("the registry was not asked")
	}
}
