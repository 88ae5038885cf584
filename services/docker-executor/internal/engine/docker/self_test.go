package docker_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"
	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/docker"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/enginetest"
)

// build makes a static program and returns its path.
func build(t *testing.T, pkg string, flags ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), filepath.Base(pkg))
	args := append([]string{"build", "-buildvcs=false", "-o", out}, flags...)
	cmd := exec.CommandContext(t.Context(), "go", append(args, pkg)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, text)
	}
	return out
}

// ran is a container that has ended.
type ran struct {
	id, stdout, stderr string
	code               int
}

func run(t *testing.T, e *docker.Engine, spec engine.Spec) ran {
	t.Helper()
	spec.Labels = map[string]string{"gantry.test": "enginetest"}
	id, err := e.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	removed(t, e, id)
	if err := e.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	r := ran{id: id}
	_, err = e.Logs(t.Context(), id, engine.Both, engine.Position{}, func(f engine.Frame) error {
		if f.Stream == engine.Stderr {
			r.stderr += string(f.Data)
			return nil
		}
		r.stdout += string(f.Data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	exit, err := e.Wait(t.Context(), id, engine.Run{})
	if err != nil {
		t.Fatal(err)
	}
	r.code = exit.Code
	return r
}

// removed has a container removed at the end of the test.
func removed(t *testing.T, e *docker.Engine, id string) {
	t.Helper()
	t.Cleanup(func() {
		if err := e.Remove(context.WithoutCancel(t.Context()), id); err != nil {
			t.Error(err)
		}
	})
}

// newNetwork makes a network that nothing leaves.
func newNetwork(t *testing.T) string {
	t.Helper()
	api, err := client.NewClientWithOpts(client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	name := "gantry-enginetest-" + rand.Text()
	if _, err := api.NetworkCreate(t.Context(), name, network.CreateOptions{Internal: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := api.NetworkRemove(context.WithoutCancel(t.Context()), name)
		if err := errors.Join(err, api.Close()); err != nil {
			t.Error(err)
		}
	})
	return name
}

func TestSelf(t *testing.T) {
	t.Parallel()
	e := newEngine(t, docker.Config{})
	if self, err := e.Self(t.Context()); err != nil || self != nil && self.ID == "" {
		t.Errorf("of the test itself: %+v, %v", self, err)
	}
	program := build(t, "./testdata/whereami")
	socket, work, named := "/var/run/docker.sock", t.TempDir(), newNetwork(t)
	spec := func(networkMode string) engine.Spec {
		noInit := false
		return engine.Spec{
			Image: enginetest.BuildImage(t, ""), Entrypoint: []string{"/program/whereami"},
			Mounts: []engine.Mount{
				{HostPath: filepath.Dir(program), ContainerPath: "/program", ReadOnly: true},
				{HostPath: socket, ContainerPath: "/var/run/docker.sock"},
				{HostPath: work, ContainerPath: "/srv/a b/work"},
			},
			Options: contracts.DockerOptions{NetworkMode: networkMode, Init: &noInit, Tmpfs: map[string]string{"/srv/a b/work/own": ""}},
		}
	}
	check := func(t *testing.T, got ran, networks ...string) {
		t.Helper()
		var self *engine.Self
		if err := json.Unmarshal([]byte(got.stdout), &self); err != nil || self == nil {
			t.Fatalf("exit code %d, output %q, %q: %v", got.code, got.stdout, got.stderr, err)
		}
		if self.ID != got.id || cmp.Diff(networks, self.Networks) != "" {
			t.Errorf("container %s in %q, want %s in %q", self.ID, self.Networks, got.id, networks)
		}
		for local, want := range map[string]string{"/srv/a b/work/x/y": work + "/x/y", "/srv/a b/work": work, "/program/whereami": program} {
			if host, ok := self.HostPath(local); !ok || host != want {
				t.Errorf("%s is %q (%t) on the host, want %s", local, host, ok, want)
			}
		}
		for _, local := range []string{"/srv/a b", "/srv/a b/work/own/x", "/tmp"} {
			if host, ok := self.HostPath(local); ok {
				t.Errorf("%s is %q on the host, want nothing", local, host)
			}
		}
	}
	t.Run("no network", func(t *testing.T) { t.Parallel(); check(t, run(t, e, spec("none"))) })
	t.Run("default network", func(t *testing.T) { t.Parallel(); check(t, run(t, e, spec(""))) })
	t.Run("named network", func(t *testing.T) { check(t, run(t, e, spec(named)), named) })
	t.Run("another hostname", func(t *testing.T) {
		t.Parallel()
		other := spec("none")
		other.Options.Hostname = "elsewhere"
		check(t, run(t, e, other))
	})
	t.Run("network of another container", func(t *testing.T) {
		host := spec(named)
		host.Entrypoint, host.Args = nil, []string{"hang"}
		id, err := e.Create(t.Context(), host)
		if err != nil {
			t.Fatal(err)
		}
		removed(t, e, id)
		if err := e.Start(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		check(t, run(t, e, spec("container:"+id)), named)
		// With other mounts than ours it cannot be us, whatever the groups say.
		alone := spec("container:" + id)
		alone.Mounts = alone.Mounts[:2]
		alone.Options.Tmpfs = nil
		if got := run(t, e, alone); !strings.Contains(got.stdout, got.id) {
			t.Errorf("output %q, %q, want container %s", got.stdout, got.stderr, got.id)
		}
	})
	t.Run("no engine", func(t *testing.T) {
		t.Parallel()
		blind := spec("none")
		blind.Mounts = blind.Mounts[:1]
		if got := run(t, e, blind); got.code != 1 || !strings.Contains(got.stderr, "find own container: container engine unavailable") {
			t.Errorf("exit code %d, output %q, %q", got.code, got.stdout, got.stderr)
		}
	})
}
