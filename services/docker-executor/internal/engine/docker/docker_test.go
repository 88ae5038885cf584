package docker_test

import (
	"testing"

	"github.com/gantry-worker/gantry/contracts/client/leaktest"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/docker"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/enginetest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func newEngine(t *testing.T, cfg docker.Config) *docker.Engine {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a Docker engine")
	}
	e, err := docker.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	if err := e.Ping(t.Context()); err != nil {
		enginetest.Unavailable(t, "no Docker engine: %v", err)
	}
	return e
}

func TestConformance(t *testing.T) {
	newEngine(t, docker.Config{}) // skips where there is none
	program := buildHelper(t)
	helperImages(t, program)
	enginetest.Run(t, func(t *testing.T) enginetest.Subject {
		e := newEngine(t, docker.Config{Program: program})
		return enginetest.Subject{Engine: e, Image: enginetest.BuildImage(t, ""), Absent: "gantry-enginetest:absent"}
	})
}
