package docker_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/docker"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/enginetest"
)

// start runs a container through one engine, that is removed through another
// one, whatever happened to the first.
func start(t *testing.T, e *docker.Engine, dir string, steps ...string) string {
	t.Helper()
	direct := newEngine(t, docker.Config{})
	spec := engine.Spec{
		Image: enginetest.BuildImage(t, ""), Args: steps, Options: contracts.DockerOptions{NetworkMode: "none"},
		Labels: map[string]string{"gantry.test": "enginetest"},
	}
	if dir != "" {
		spec.Mounts = []engine.Mount{{HostPath: dir, ContainerPath: "/mnt"}}
	}
	id, err := e.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := direct.Remove(context.WithoutCancel(t.Context()), id); err != nil {
			t.Error(err)
		}
	})
	if err := e.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return id
}

func touch(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestBrokenConnection(t *testing.T) {
	t.Parallel()
	newEngine(t, docker.Config{}) // skips where there is none
	p := newProxy(t)
	e := newEngine(t, docker.Config{Host: p.host()})
	dir := t.TempDir()
	waiting := p.arrival(untilStopped)
	id := start(t, e, dir, "out:one\\n", "await:/mnt/go", "out:two\\n", "exit:5")

	var tasks sync.WaitGroup
	var exit engine.Exit
	var waitErr, logErr error
	lines := make(chan string, 10)
	tasks.Go(func() { exit, waitErr = e.Wait(t.Context(), id, engine.Run{}) })
	tasks.Go(func() {
		defer close(lines)
		_, logErr = e.Logs(t.Context(), id, engine.Both, engine.Position{}, func(f engine.Frame) error {
			lines <- string(f.Data)
			return nil
		})
	})
	<-waiting
	first := <-lines
	p.down()
	touch(t, dir, "go") // it ends while nobody is connected
	p.up()
	tasks.Wait()
	if waitErr != nil || exit.Code != 5 || !exit.EngineLost {
		t.Errorf("exit %+v, %v, want code 5 after the engine was lost", exit, waitErr)
	}
	second := <-lines
	if rest, more := <-lines; logErr != nil || first != "one\n" || second != "two\n" || more {
		t.Errorf("log %q, %q, %q, error %v", first, second, rest, logErr)
	}
}

// A break may be seen long after it happened, when the container has ended too.
func TestABrokenConnectionThatIsSeenLate(t *testing.T) {
	t.Parallel()
	direct := newEngine(t, docker.Config{}) // skips where there is none
	p := newProxy(t)
	ended := make(chan struct{})
	var asked atomic.Bool
	p.intercept = func(_ http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.RequestURI(), untilStopped) || asked.Swap(true) {
			return false
		}
		select {
		case <-ended:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	}
	e := newEngine(t, docker.Config{Host: p.host()})
	dir := t.TempDir()
	waiting := p.arrival(untilStopped)
	id := start(t, e, dir, "await:/mnt/go", "exit:5")
	var tasks sync.WaitGroup
	var exit engine.Exit
	var waitErr error
	tasks.Go(func() { exit, waitErr = e.Wait(t.Context(), id, engine.Run{}) })
	<-waiting
	touch(t, dir, "go")
	if _, err := direct.Wait(t.Context(), id, engine.Run{}); err != nil {
		t.Error(err)
	}
	close(ended)
	tasks.Wait()
	if waitErr != nil || exit.Code != 5 || !exit.EngineLost {
		t.Errorf("exit %+v, %v, want code 5 after the engine was lost", exit, waitErr)
	}
}

// A connection that breaks says nothing about the engine, where its run is
// known to be the same.
func TestBrokenConnectionToTheSameRun(t *testing.T) {
	t.Parallel()
	newEngine(t, docker.Config{}) // skips where there is none
	p := newProxy(t)
	e := newEngine(t, docker.Config{Host: p.host()})
	began, err := e.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	waiting := p.arrival(untilStopped)
	id := start(t, e, dir, "await:/mnt/go", "exit:5")
	var tasks sync.WaitGroup
	var exit engine.Exit
	var waitErr error
	tasks.Go(func() { exit, waitErr = e.Wait(t.Context(), id, began) })
	<-waiting
	p.down()
	touch(t, dir, "go")
	p.up()
	tasks.Wait()
	if waitErr != nil || exit.Code != 5 || exit.EngineLost {
		t.Errorf("exit %+v, %v, want an ordinary one", exit, waitErr)
	}
}

func TestEngineAway(t *testing.T) {
	t.Parallel()
	newEngine(t, docker.Config{}) // skips where there is none
	p := newProxy(t)
	e := newEngine(t, docker.Config{Host: p.host(), UnavailableLimit: 100 * time.Millisecond})
	waiting := p.arrival(untilStopped)
	id := start(t, e, "", "hang")
	waited := make(chan error, 1)
	go func() {
		_, err := e.Wait(t.Context(), id, engine.Run{})
		waited <- err
	}()
	<-waiting
	p.down()
	none := func(engine.Frame) error { return nil }
	_, logErr := e.Logs(t.Context(), id, engine.Both, engine.Position{}, none)
	_, imageErr := e.Image(t.Context(), "any")
	_, createErr := e.Create(t.Context(), engine.Spec{Image: "any"})
	for call, err := range map[string]error{
		"wait": <-waited, "logs": logErr, "ping": e.Ping(t.Context()), "start": e.Start(t.Context(), id), "image": imageErr,
		"create": createErr, "signal": e.Signal(t.Context(), id, "SIGTERM"), "remove": e.Remove(t.Context(), id),
		"pull": e.Pull(t.Context(), "any", func(engine.PullProgress) {}),
	} {
		if !errors.Is(err, engine.ErrUnavailable) || !engine.IsInfrastructure(err) {
			t.Errorf("%s: %v, want ErrUnavailable", call, err)
		}
	}
	p.up()
	if err := e.Ping(t.Context()); err != nil {
		t.Errorf("ping after the engine is back: %v", err)
	}
}

// firstBlock passes the first record of a log stream on and no more.
func firstBlock(w http.ResponseWriter, body io.Reader) error {
	header := make([]byte, 8)
	if _, err := io.ReadFull(body, header); err != nil {
		return err
	}
	block := make([]byte, binary.BigEndian.Uint32(header[4:]))
	if _, err := io.ReadFull(body, block); err != nil {
		return err
	}
	if _, err := w.Write(append(header, block...)); err != nil {
		return err
	}
	return http.NewResponseController(w).Flush()
}

// TestFollowEndsEarly and TestFollowNeverEnds: what old engines do to those who
// follow a log costs neither a record nor the end.
func TestFollowEndsEarly(t *testing.T) {
	t.Parallel()
	testFollow(t, func(http.ResponseWriter, *http.Request) {})
}

func TestFollowNeverEnds(t *testing.T) {
	t.Parallel()
	testFollow(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
}

func testFollow(t *testing.T, afterFirst func(http.ResponseWriter, *http.Request)) {
	newEngine(t, docker.Config{}) // skips where there is none
	p := newProxy(t)
	var follows atomic.Int32
	p.intercept = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("follow") != "1" || follows.Add(1) > 1 {
			return false
		}
		out := r.Clone(r.Context())
		out.URL.Scheme, out.URL.Host, out.RequestURI = "http", "docker", ""
		res, err := p.engine.Transport.RoundTrip(out)
		if err != nil {
			t.Errorf("logs: %v", err)
			return true
		}
		defer res.Body.Close() //nolint:errcheck // only read from
		if err := firstBlock(w, res.Body); err != nil {
			t.Errorf("first record: %v", err)
		}
		afterFirst(w, r)
		return true
	}
	e := newEngine(t, docker.Config{Host: p.host(), ProbeInterval: 20 * time.Millisecond})
	id := start(t, e, "", "out:first\\n", "err:other\\n", "err:more\\n", "lines:1000:20")
	if _, err := e.Wait(t.Context(), id, engine.Run{}); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr []byte
	_, err := e.Logs(t.Context(), id, engine.Both, engine.Position{}, func(f engine.Frame) error {
		if f.Stream == engine.Stderr {
			stderr = append(stderr, f.Data...)
			return nil
		}
		stdout = append(stdout, f.Data...)
		return nil
	})
	want := "first\n"
	for i := range 1000 {
		want += fmt.Sprintf("%019d\n", i)
	}
	if err != nil || string(stdout) != want || string(stderr) != "other\nmore\n" {
		t.Errorf("error %v, %d bytes of stdout, want %d, stderr %q", err, len(stdout), len(want), stderr)
	}
	follows.Store(0)
	stderr = nil
	_, err = e.Logs(t.Context(), id, engine.StderrOnly, engine.Position{}, func(f engine.Frame) error {
		stderr = append(stderr, f.Data...)
		return nil
	})
	if err != nil || string(stderr) != "other\nmore\n" { // long before the last records of both
		t.Errorf("error %v, stderr by itself %q", err, stderr)
	}
}

func TestLogInConstantMemory(t *testing.T) {
	e := newEngine(t, docker.Config{})
	const lines, width = 200_000, 1000 // 200 MB
	id := start(t, e, "", fmt.Sprintf("lines:%d:%d", lines, width))
	var bytes, records int
	var peak uint64
	_, err := e.Logs(t.Context(), id, engine.Both, engine.Position{}, func(f engine.Frame) error {
		bytes += len(f.Data)
		if records++; records%10_000 == 0 {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapAlloc)
		}
		return nil
	})
	if err != nil || records != lines || bytes != lines*width {
		t.Errorf("%d records, %d bytes, error %v", records, bytes, err)
	}
	if peak > 32<<20 {
		t.Errorf("heap grew to %d MiB", peak>>20)
	}
}
