package docker_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"

	"github.com/gantry-worker/gantry/contracts/client/testport"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/docker"
)

// registry is a small image registry on loopback, which the engine trusts
// without TLS. It has one image under every repository name; what goes wrong
// depends on the name.
type registry struct {
	*httptest.Server
	private  bool              // only for user lab with password pass
	blobs    map[string][]byte // by digest
	manifest []byte
	closing  chan struct{}
	// halfway is closed by a test that has seen half of a layer arrive; the rest
	// waits for that, since an engine tells nothing of a pull that is over at once.
	halfway chan struct{}
	// repaired is closed by a test when the repository "shaky" is to work.
	repaired chan struct{}

	mu       sync.Mutex
	requests map[string]int // manifests asked for, by repository
}

func digest(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

func newRegistry(t *testing.T, private bool) *registry {
	t.Helper()
	r := &registry{private: private, closing: make(chan struct{}), halfway: make(chan struct{}), repaired: make(chan struct{}), blobs: map[string][]byte{}, requests: map[string]int{}}
	var layer, packed bytes.Buffer
	content := make([]byte, 256<<10) // random: no two tests share a layer
	_, _ = rand.Read(content)        // never fails
	w := tar.NewWriter(&layer)
	gz := gzip.NewWriter(&packed)
	_, copyErr := func() (int, error) {
		if err := w.WriteHeader(&tar.Header{Name: "data", Mode: 0o644, Size: int64(len(content))}); err != nil {
			return 0, err
		}
		return w.Write(content)
	}()
	closeErr := w.Close()
	_, packErr := gz.Write(layer.Bytes())
	if err := errors.Join(copyErr, closeErr, packErr, gz.Close()); err != nil {
		t.Fatal(err)
	}
	config := encode(t, map[string]any{
		"architecture": "amd64", "os": "linux",
		"config": map[string]any{"Labels": map[string]string{"from": "registry"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digest(layer.Bytes())}},
	})
	r.blobs[digest(config)], r.blobs[digest(packed.Bytes())] = config, packed.Bytes()
	r.manifest = encode(t, map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
		"config": map[string]any{"mediaType": "application/vnd.docker.container.image.v1+json", "size": len(config), "digest": digest(config)},
		"layers": []any{map[string]any{
			"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": packed.Len(), "digest": digest(packed.Bytes()),
		}},
	})
	r.Server = httptest.NewServer(r)
	t.Cleanup(func() {
		close(r.closing)
		r.Close()
	})
	return r
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (r *registry) ref(repository string) string {
	return strings.TrimPrefix(r.URL, "http://") + "/" + repository + ":1"
}

func (r *registry) asked(repository string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests[repository]
}

func (r *registry) isRepaired() bool {
	select {
	case <-r.repaired:
		return true
	default:
		return false
	}
}

func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	path := strings.TrimPrefix(req.URL.Path, "/v2/")
	repository, rest, _ := strings.Cut(path, "/")
	user, password, _ := req.BasicAuth()
	kind, name, _ := strings.Cut(rest, "/")
	switch {
	case r.private && (user != "lab" || password != "pass"):
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`))
	case path == "":
	case repository == "absent":
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`))
	case repository == "broken", repository == "shaky" && !r.isRepaired():
		w.WriteHeader(http.StatusBadGateway)
	case kind == "manifests":
		r.mu.Lock()
		r.requests[repository]++
		r.mu.Unlock()
		w.Header().Set("Content-Type", "application/vnd.docker.distribution.manifest.v2+json")
		w.Header().Set("Docker-Content-Digest", digest(r.manifest))
		_, _ = w.Write(r.manifest)
	case kind == "blobs":
		data := r.blobs[name]
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		if isLayer := len(data) > 10<<10; isLayer && (repository == "stalled" || repository == "watched") {
			_, _ = w.Write(data[:len(data)/2])
			data = data[len(data)/2:]
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.closing: // the engine holds this connection even after its pull was canceled
				return
			case <-r.halfway:
			}
		}
		_, _ = w.Write(data)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// forget removes an image from the engine at the end of the test.
func forget(t *testing.T, ref string) {
	t.Cleanup(func() {
		api, err := client.NewClientWithOpts(client.WithAPIVersionNegotiation())
		if err != nil {
			t.Fatal(err)
		}
		_, err = api.ImageRemove(context.WithoutCancel(t.Context()), ref, image.RemoveOptions{Force: true})
		if err := errors.Join(err, api.Close()); err != nil {
			t.Error(err)
		}
	})
}

func TestPull(t *testing.T) {
	t.Parallel()
	e := newEngine(t, docker.Config{})
	r := newRegistry(t, false)
	images := engine.NewImages(e, engine.PullLimits{})
	ref := r.ref("watched")
	if _, err := images.Ensure(t.Context(), ref, engine.PullNever, nil); !errors.Is(err, engine.ErrImageNotFound) || !strings.Contains(err.Error(), "never") {
		t.Errorf("never: %v", err)
	}
	var last engine.PullProgress
	seen := sync.OnceFunc(func() { close(r.halfway) })
	img, err := images.Ensure(t.Context(), ref, engine.PullMissing, func(p engine.PullProgress) {
		if last = p; p.Done > 0 {
			seen()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	forget(t, ref)
	if img.ID == "" || img.Digest != digest(r.manifest) || img.Labels["from"] != "registry" {
		t.Errorf("image %+v, want digest %s", img, digest(r.manifest))
	}
	if last.Total == 0 || last.Done != last.Total {
		t.Errorf("last progress %+v", last)
	}
	before := r.asked("watched")
	for _, policy := range []engine.PullPolicy{engine.PullMissing, engine.PullNever} {
		if again, err := images.Ensure(t.Context(), ref, policy, nil); err != nil || again.ID != img.ID {
			t.Errorf("%s: %+v, %v", policy, again, err)
		}
	}
	if r.asked("watched") != before {
		t.Error("a present image was asked for at the registry")
	}
	if _, err := images.Ensure(t.Context(), ref, engine.PullAlways, nil); err != nil || r.asked("watched") == before {
		t.Errorf("always: %v, asked %d times", err, r.asked("watched"))
	}
}

func TestPullErrors(t *testing.T) {
	t.Parallel()
	e := newEngine(t, docker.Config{})
	r, private := newRegistry(t, false), newRegistry(t, true)
	const soon = time.Second // for a registry that brings nothing, however long it is waited for
	for name, test := range map[string]struct {
		ref   string
		idle  time.Duration
		kind  error
		infra bool
	}{
		"absent":      {r.ref("absent"), 0, engine.ErrImageNotFound, false},
		"denied":      {private.ref("tool"), 0, engine.ErrPullDenied, false},
		"broken":      {r.ref("broken"), soon, engine.ErrRegistryUnavailable, true},
		"unreachable": {testport.Address(t) + "/tool:1", soon, engine.ErrRegistryUnavailable, true},
		"stalled":     {r.ref("stalled"), soon, engine.ErrRegistryUnavailable, true},
		"malformed":   {"Not An Image", 0, engine.ErrRefused, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := engine.NewImages(e, engine.PullLimits{Idle: test.idle}).Ensure(t.Context(), test.ref, engine.PullAlways, nil)
			if !errors.Is(err, test.kind) || engine.IsInfrastructure(err) != test.infra || !strings.Contains(err.Error(), test.ref) {
				t.Errorf("%v (infrastructure: %t), want %v (%t)", err, engine.IsInfrastructure(err), test.kind, test.infra)
			}
		})
	}
}

func TestPullWithCredentials(t *testing.T) {
	t.Parallel()
	r := newRegistry(t, true)
	dir := t.TempDir()
	config := encode(t, map[string]any{"auths": map[string]any{
		strings.TrimPrefix(r.URL, "http://"): map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte("lab:pass"))},
	}})
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	e := newEngine(t, docker.Config{ConfigDir: dir})
	ref := r.ref("tool")
	if _, err := engine.NewImages(e, engine.PullLimits{}).Ensure(t.Context(), ref, engine.PullAlways, nil); err != nil {
		t.Fatal(err)
	}
	forget(t, ref)
}

func TestPullWithUnreadableCredentials(t *testing.T) {
	t.Parallel()
	private, public := newRegistry(t, true), newRegistry(t, false)
	dir := t.TempDir()
	config := encode(t, map[string]any{"credsStore": "no-such-helper"})
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	images := engine.NewImages(newEngine(t, docker.Config{ConfigDir: dir}), engine.PullLimits{})
	_, err := images.Ensure(t.Context(), private.ref("tool"), engine.PullAlways, nil)
	if !errors.Is(err, engine.ErrPullDenied) || !strings.Contains(err.Error(), "no-such-helper") {
		t.Errorf("%v, want denied with the helper's name", err)
	}
	if _, err := images.Ensure(t.Context(), public.ref("tool"), engine.PullAlways, nil); err != nil {
		t.Errorf("public image: %v", err)
	}
	forget(t, public.ref("tool"))
}

// TestPullWithCredentialHelpers: a helper for one registry, and one for all.
func TestPullWithCredentialHelpers(t *testing.T) {
	r := newRegistry(t, true)
	server := strings.TrimPrefix(r.URL, "http://")
	bin := t.TempDir()
	helper := `#!/bin/sh
read -r server
[ "$1" = get ] && [ "$server" = "` + server + `" ] || { echo "credentials not found in native keychain"; exit 1; }
printf '{"ServerURL":"%s","Username":"lab","Secret":"pass"}' "$server"
`
	if err := os.WriteFile(filepath.Join(bin, "docker-credential-gantry-test"), []byte(helper), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	for name, config := range map[string]map[string]any{
		"for one": {"credHelpers": map[string]string{server: "gantry-test"}},
		"for all": {"credsStore": "gantry-test"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "config.json"), encode(t, config), 0o600); err != nil {
				t.Fatal(err)
			}
			images := engine.NewImages(newEngine(t, docker.Config{ConfigDir: dir}), engine.PullLimits{})
			if _, err := images.Ensure(t.Context(), r.ref("tool"), engine.PullAlways, nil); err != nil {
				t.Fatal(err)
			}
			forget(t, r.ref("tool"))
			if _, err := images.Ensure(t.Context(), newRegistry(t, true).ref("tool"), engine.PullAlways, nil); !errors.Is(err, engine.ErrPullDenied) {
				t.Errorf("a registry that the helper does not know: %v, want denied", err)
			}
		})
	}
}

// TestPullTriesAgain: a registry that fails for a moment costs no task.
func TestPullTriesAgain(t *testing.T) {
	t.Parallel()
	r := newRegistry(t, false)
	ref := r.ref("shaky")
	store := &repairing{Engine: newEngine(t, docker.Config{}), repair: sync.OnceFunc(func() { close(r.repaired) })}
	img, err := engine.NewImages(store, engine.PullLimits{}).Ensure(t.Context(), ref, engine.PullAlways, nil)
	if err != nil {
		t.Fatal(err)
	}
	forget(t, ref)
	if img.Digest != digest(r.manifest) || store.failed == 0 {
		t.Errorf("image %+v after %d pulls that failed", img, store.failed)
	}
}

// repairing is an engine whose registry is repaired after a pull failed.
type repairing struct {
	*docker.Engine
	repair func()
	failed int
}

func (e *repairing) Pull(ctx context.Context, ref string, progress func(engine.PullProgress)) error {
	err := e.Engine.Pull(ctx, ref, progress)
	if err != nil {
		e.failed++
		e.repair()
	}
	return err
}

// repeating is an engine that says again and again how far a pull is, for those
// who come to it late.
type repeating struct{ *docker.Engine }

func (e repeating) Pull(ctx context.Context, ref string, progress func(engine.PullProgress)) error {
	var mu sync.Mutex
	var last engine.PullProgress
	tell := func(p engine.PullProgress) {
		mu.Lock()
		defer mu.Unlock()
		last = p
		progress(p)
	}
	var again sync.WaitGroup
	defer again.Wait()
	pulled := make(chan struct{})
	defer close(pulled)
	again.Go(func() {
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-pulled:
				return
			case <-ticker.C:
				mu.Lock()
				progress(last)
				mu.Unlock()
			}
		}
	})
	return e.Engine.Pull(ctx, ref, tell)
}

// TestPullsSideBySide: a pull that hangs holds up none of another image, and
// several who want the same image share one pull.
func TestPullsSideBySide(t *testing.T) {
	t.Parallel()
	slow, fast := newRegistry(t, false), newRegistry(t, false)
	images := engine.NewImages(repeating{newEngine(t, docker.Config{})}, engine.PullLimits{})
	var callers, begun sync.WaitGroup
	for range 4 {
		begun.Add(1)
		seen := sync.OnceFunc(begun.Done)
		callers.Go(func() {
			defer seen() // there is nothing to wait for
			if _, err := images.Ensure(t.Context(), slow.ref("watched"), engine.PullAlways, func(p engine.PullProgress) {
				if p.Done > 0 {
					seen()
				}
			}); err != nil {
				t.Error(err)
			}
		})
	}
	begun.Wait() // all of them wait for the layer
	if _, err := images.Ensure(t.Context(), fast.ref("tool"), engine.PullAlways, nil); err != nil {
		t.Error(err)
	}
	close(slow.halfway)
	callers.Wait()
	forget(t, slow.ref("watched"))
	forget(t, fast.ref("tool"))
	if asked := slow.asked("watched"); asked > 2 { // by tag, and by digest
		t.Errorf("the manifest was asked for %d times by 4 callers", asked)
	}
}
