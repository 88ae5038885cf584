package docker_test

import (
	"crypto/rand"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/docker"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/enginetest"
)

func TestStopSignalOfAnImage(t *testing.T) {
	t.Parallel()
	e := newEngine(t, docker.Config{})
	plain := enginetest.BuildImage(t, "")
	if found, err := e.Image(t.Context(), plain); err != nil || found.StopSignal != "" {
		t.Errorf("%+v, %v, want no stop signal", found, err)
	}
	id, err := e.Create(t.Context(), engine.Spec{
		Image: plain, Labels: map[string]string{"gantry.test": "enginetest"}, Options: contracts.DockerOptions{StopSignal: "SIGUSR1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	removed(t, e, id)
	api, err := client.NewClientWithOpts(client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() })
	ref := "gantry-enginetest-stop:" + strings.ToLower(rand.Text())
	if _, err := api.ContainerCommit(t.Context(), id, container.CommitOptions{Reference: ref}); err != nil {
		t.Fatal(err)
	}
	forget(t, ref)
	if found, err := e.Image(t.Context(), ref); err != nil || found.StopSignal != "SIGUSR1" {
		t.Errorf("%+v, %v, want SIGUSR1", found, err)
	}
}
