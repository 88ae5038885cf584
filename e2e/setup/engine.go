package setup

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"

	"github.com/gantry-worker/gantry/contracts"
)

// Engine is a Docker engine as a test looks at it.
type Engine struct {
	t      testing.TB
	client *client.Client
	host   string
	// Image is a small image with busybox.
	Image string
}

// OpenEngine returns the engine at a host such as unix:///run/docker.sock, of
// the environment if empty, with the test image in it. Where none answers, the
// test is skipped, or fails if GANTRY_REQUIRE_DOCKER is 1.
func OpenEngine(t testing.TB, host string) *Engine {
	t.Helper()
	options := []client.Opt{client.FromEnv, client.WithAPIVersionNegotiation()}
	if host != "" {
		options = append(options, client.WithHost(host))
	}
	c, err := client.NewClientWithOpts(options...)
	if err != nil {
		t.Fatalf("connect to Docker: %v", err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close connection to Docker: %v", err)
		}
	})
	if _, err := c.Ping(t.Context()); err != nil {
		if os.Getenv("GANTRY_REQUIRE_DOCKER") == "1" {
			t.Fatalf("GANTRY_REQUIRE_DOCKER is 1, and no engine answers: %v", err)
		}
		t.Skipf("no Docker engine answers: %v", err)
	}
	e := &Engine{t: t, client: c, host: host}
	e.importImage()
	return e
}

// importImage makes the test image, unless the engine has it.
func (e *Engine) importImage() {
	e.t.Helper()
	e.Image = e.Import("gantry-e2e", map[string][]byte{"bin/busybox": e.busybox()})
}

func (e *Engine) busybox() []byte {
	e.t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		e.t.Fatalf("the test image needs busybox-static: %v", err)
	}
	busybox, err := os.ReadFile(path)
	if err != nil {
		e.t.Fatalf("read busybox: %v", err)
	}
	return busybox
}

// ImportWith makes an image of the test image's programs and one more, /bin/program,
// as [Engine.Import] does.
func (e *Engine) ImportWith(name string, program []byte, changes ...string) string {
	e.t.Helper()
	return e.Import(name, map[string][]byte{"bin/busybox": e.busybox(), "bin/program": program}, changes...)
}

var importing sync.Mutex

// Import makes an image of executable files, unless the engine has it: its tag
// is a hash of what is in it. Changes are further lines of a Dockerfile.
func (e *Engine) Import(name string, files map[string][]byte, changes ...string) string {
	e.t.Helper()
	sum := sha256.New()
	for _, path := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(sum, "%s %x\n", path, sha256.Sum256(files[path]))
	}
	fmt.Fprintln(sum, applets, changes)
	ref := name + ":" + hex.EncodeToString(sum.Sum(nil)[:6])
	importing.Lock() // who is first makes it, and the others find it
	defer importing.Unlock()
	if _, err := e.client.ImageInspect(e.t.Context(), ref); err == nil {
		return ref
	}
	layer, err := RootFilesystem(files)
	if err != nil {
		e.t.Fatalf("pack %s: %v", ref, err)
	}
	answer, err := e.client.ImageImport(e.t.Context(), image.ImportSource{Source: layer, SourceName: "-"}, ref,
		image.ImportOptions{Changes: append([]string{"ENV PATH=/bin", `CMD ["sh"]`}, changes...)})
	if err != nil {
		e.t.Fatalf("import %s: %v", ref, err)
	}
	_, err = io.Copy(io.Discard, answer)
	if err := errors.Join(err, answer.Close()); err != nil {
		e.t.Fatalf("import %s: %v", ref, err)
	}
	return ref
}

// RemoveImage removes an image, if it is there.
func (e *Engine) RemoveImage(ref string) {
	e.t.Helper()
	_, err := e.client.ImageRemove(context.Background(), ref, image.RemoveOptions{Force: true})
	if err != nil && !cerrdefs.IsNotFound(err) {
		e.t.Errorf("remove image %s: %v", ref, err)
	}
}

// applets are the programs of the test image; busybox itself knows more.
var applets = []string{
	"sh", "cat", "echo", "sleep", "tr", "touch", "mkdir", "mkfifo", "kill", "ls", "env", "true", "false", "id", "dd", "seq", "ln", "test", "wc",
	"basename", "chmod", "chown", "cp", "cut", "dirname", "find", "grep", "head", "hostname", "mknod", "mv", "nslookup", "pwd", "readlink", "rm",
	"rmdir", "sha256sum", "sort", "stat", "sync", "tail", "tee", "uname", "usleep", "wget", "yes",
}

// RootFilesystem is the only layer of an image with files, and with a busybox
// among them its applets.
func RootFilesystem(files map[string][]byte) (io.Reader, error) {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	add := func(header tar.Header, content []byte) error {
		header.Size = int64(len(content))
		if err := w.WriteHeader(&header); err != nil {
			return err
		}
		_, err := w.Write(content)
		return err
	}
	errs := []error{
		add(tar.Header{Typeflag: tar.TypeDir, Name: "bin/", Mode: 0o755}, nil),
		add(tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}, nil),
	}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		errs = append(errs, add(tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: 0o755}, files[path]))
	}
	if _, ok := files["bin/busybox"]; ok {
		for _, applet := range applets {
			errs = append(errs, add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + applet, Linkname: "busybox", Mode: 0o777}, nil))
		}
	}
	return &layer, errors.Join(append(errs, w.Close())...)
}

// Containers returns the ids of all containers with a label, such as
// "gantry.job=…", whatever their state is.
func (e *Engine) Containers(label string) []string {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	list, err := e.client.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", label))})
	if err != nil {
		e.t.Fatalf("list containers: %v", err)
	}
	ids := make([]string, len(list))
	for i, c := range list {
		ids[i] = c.ID
	}
	return ids
}

// AwaitRemoved waits until a container is gone.
func (e *Engine) AwaitRemoved(ctx context.Context, id string) {
	e.t.Helper()
	removed, errs := e.client.ContainerWait(ctx, id, container.WaitConditionRemoved)
	select {
	case <-removed:
	case err := <-errs:
		if !cerrdefs.IsNotFound(err) {
			e.t.Fatalf("await removal of container %s: %v", id, err)
		}
	}
}

// Starts are the containers that were started, by the job of their label.
type Starts struct {
	mu      sync.Mutex
	ids     map[string][]string
	changed chan struct{} // closed and replaced with each start
}

// WatchStarts notes every start of a container with a label from now on, until
// the test ends.
func (e *Engine) WatchStarts(label string) *Starts {
	e.t.Helper()
	s := &Starts{ids: map[string][]string{}, changed: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	// The engine answers before it listens: it is asked for what was in between,
	// too.
	started, errs := e.client.Events(ctx, events.ListOptions{
		Since:   fmt.Sprint(time.Now().Add(-time.Second).Unix()),
		Filters: filters.NewArgs(filters.Arg("type", "container"), filters.Arg("event", "start"), filters.Arg("label", label)),
	})
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case event := <-started:
				s.add(event.Actor.Attributes["gantry.job"], event.Actor.ID)
			case err := <-errs:
				if ctx.Err() == nil {
					e.t.Errorf("watch starts of containers: %v", err)
				}
				return
			}
		}
	})
	e.t.Cleanup(func() {
		cancel()
		watching.Wait()
	})
	return s
}

func (s *Starts) add(job, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids[job] = append(s.ids[job], id)
	close(s.changed)
	s.changed = make(chan struct{})
}

// Of returns the containers of a job that were started, as soon as the given
// one is among them.
func (s *Starts) Of(ctx context.Context, job, id string) []string {
	for {
		s.mu.Lock()
		ids, changed := slices.Clone(s.ids[job]), s.changed
		s.mu.Unlock()
		if slices.Contains(ids, id) {
			return ids
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ids
		}
	}
}

// Inspect returns all that the engine says about a container.
func (e *Engine) Inspect(id string) string {
	e.t.Helper()
	_, raw, err := e.client.ContainerInspectWithRaw(e.t.Context(), id, false)
	if err != nil {
		e.t.Fatalf("inspect container: %v", err)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, raw, "", " "); err != nil {
		e.t.Fatalf("inspect container: %v", err)
	}
	return pretty.String()
}

// Run starts a container with the labels and returns its id. It runs until it
// is removed.
func (e *Engine) Run(labels map[string]string) string {
	e.t.Helper()
	return e.RunNamed("", labels)
}

// RunNamed is Run of a container with a name.
func (e *Engine) RunNamed(name string, labels map[string]string) string {
	e.t.Helper()
	return e.Start(name, &container.Config{Image: e.Image, Cmd: []string{"sleep", "1000"}, Labels: labels}, &container.HostConfig{NetworkMode: "none"})
}

// Start starts a container and returns its id.
func (e *Engine) Start(name string, config *container.Config, host *container.HostConfig) string {
	e.t.Helper()
	made, err := e.client.ContainerCreate(e.t.Context(), config, host, nil, nil, name)
	if err != nil {
		e.t.Fatalf("run a container: %v", err)
	}
	if err := e.client.ContainerStart(e.t.Context(), made.ID, container.StartOptions{}); err != nil {
		e.Remove(made.ID)
		e.t.Fatalf("run a container: %v", err)
	}
	return made.ID
}

// Network makes a network of containers for the test, and returns its name and
// the host's address on it.
func (e *Engine) Network() (name, gateway string) {
	e.t.Helper()
	name = "gantry-e2e-" + contracts.NewToken()[:8]
	made, err := e.client.NetworkCreate(e.t.Context(), name, network.CreateOptions{Driver: "bridge"})
	if err != nil {
		e.t.Fatalf("make a network: %v", err)
	}
	e.t.Cleanup(func() {
		if err := e.client.NetworkRemove(context.Background(), made.ID); err != nil {
			e.t.Errorf("remove network %s: %v", name, err)
		}
	})
	found, err := e.client.NetworkInspect(e.t.Context(), made.ID, network.InspectOptions{})
	if err != nil || len(found.IPAM.Config) == 0 {
		e.t.Fatalf("find the network's gateway: %v, %+v", err, found.IPAM)
	}
	return name, found.IPAM.Config[0].Gateway
}

// AwaitEnd waits until a container has ended and returns its exit code.
func (e *Engine) AwaitEnd(ctx context.Context, id string) int64 {
	e.t.Helper()
	ended, errs := e.client.ContainerWait(ctx, id, container.WaitConditionNotRunning)
	select {
	case end := <-ended:
		return end.StatusCode
	case err := <-errs:
		e.t.Fatalf("await the end of container %s: %v", id, err)
		return -1
	}
}

// StopContainer ends a container with SIGTERM and returns its exit code.
func (e *Engine) StopContainer(ctx context.Context, id string) int64 {
	e.t.Helper()
	if err := e.client.ContainerKill(ctx, id, "SIGTERM"); err != nil {
		e.t.Fatalf("stop container %s: %v", id, err)
	}
	return e.AwaitEnd(ctx, id)
}

// Logs returns what a container has written, its standard output first.
func (e *Engine) Logs(id string) string {
	e.t.Helper()
	stream, err := e.client.ContainerLogs(context.Background(), id, container.LogsOptions{ShowStdout: true, ShowStderr: true})
	if err != nil {
		e.t.Fatalf("read log of container: %v", err)
	}
	var stdout, stderr bytes.Buffer
	_, err = stdcopy.StdCopy(&stdout, &stderr, stream)
	if err := errors.Join(err, stream.Close()); err != nil {
		e.t.Fatalf("read log of container: %v", err)
	}
	return stdout.String() + stderr.String()
}

// Remove removes a container.
func (e *Engine) Remove(id string) {
	e.t.Helper()
	if err := e.client.ContainerRemove(context.Background(), id, container.RemoveOptions{Force: true}); err != nil {
		e.t.Errorf("remove container: %v", err)
	}
}

// removeAll removes containers that a failed test left, and says how many.
func (e *Engine) removeAll(label string) error {
	left := e.Containers(label)
	var errs []error
	for _, id := range left {
		errs = append(errs, fmt.Errorf("container %s is left", id[:12]))
		err := e.client.ContainerRemove(context.Background(), id, container.RemoveOptions{Force: true})
		if err != nil && !cerrdefs.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
