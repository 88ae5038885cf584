package local_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/contracts/client/leaktest"
	"github.com/gantry-worker/gantry/tools/gantry/internal/datadir"
	"github.com/gantry-worker/gantry/tools/gantry/internal/imageimport/enginetest"
	"github.com/gantry-worker/gantry/tools/gantry/internal/local"
	"github.com/gantry-worker/gantry/tools/gantry/internal/natsserver"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func config(t *testing.T) local.Config {
	data := t.TempDir()
	return local.Config{
		Data: data, Work: filepath.Join(data, "work"), Slots: 1, Queues: []string{"default", "gpu"},
		Log: zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel),
	}
}

func TestEverythingRunsAndStops(t *testing.T) {
	t.Parallel()
	enginetest.Need(t)
	cfg := config(t)
	cfg.SimAddr = "127.0.0.1:0"
	ready := make(chan local.Running, 1)
	cfg.Ready = func(r local.Running) { ready <- r }
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- local.Run(ctx, cfg) }()
	var running local.Running
	select {
	case running = <-ready:
	case err := <-ended:
		t.Fatal(err)
	}

	if err := local.Run(ctx, cfg); !errors.Is(err, datadir.ErrInUse) {
		t.Errorf("second run in the folder: %v", err)
	}
	found, err := datadir.Find(cfg.Data)
	if err != nil || found.URL != running.NATS.URL || found.Token != running.NATS.Token {
		t.Errorf("the folder names %s, %v; the server is at %s", found.URL, err, running.NATS.URL)
	}
	found.Patience = patience
	c, err := client.Connect(ctx, found)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	awaitServices(t, c, "dispatcher", "docker-executor", "transfer", "job-tracker")
	if running.Sim == nil || running.Seed.DataToken == "" {
		t.Errorf("girder-sim: %+v", running.Seed)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("after the end of the context: %v", err)
	}
}

// patience is how long one thing may take on a slow machine.
const patience = 5 * time.Minute

// awaitServices returns when one of each is known to run, and no other: they are
// ready a moment before everybody knows of them.
func awaitServices(t *testing.T, c *client.Client, want ...string) {
	t.Helper()
	slices.Sort(want)
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(patience); ; <-ticker.C {
		workers, err := c.Workers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, worker := range workers {
			got = append(got, worker.Service)
		}
		if slices.Sort(got); slices.Equal(got, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q run, want %q", got, want)
		}
	}
}

func TestAServiceThatFailsEndsEverything(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Work = filepath.Join(cfg.Data, "file")
	if err := os.WriteFile(cfg.Work, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := local.Run(t.Context(), cfg)
	if err == nil || !strings.Contains(err.Error(), cfg.Work) {
		t.Errorf("got %v", err)
	}
}

func TestWrongSettingsAreNamed(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Slots = 0
	if err := local.Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "--slots: must be 1 or more, is 0") {
		t.Errorf("got %v", err)
	}
}

func TestWhatTasksMayUseReachesTheExecutor(t *testing.T) {
	t.Parallel()
	options, bind, images := config(t), config(t), config(t)
	options.AllowOptions = []string{"network_mode=host", "priviledged"}
	bind.AllowBind = []string{"/srv", "relative"}
	images.AllowImages = []string{"my/*", " "}
	for want, cfg := range map[string]local.Config{"priviledged": options, "relative": bind, "empty pattern": images} {
		if err := local.Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
}

// TestVariables: those of the services, once each, without what has a flag.
func TestVariables(t *testing.T) {
	t.Parallel()
	all, err := local.Variables()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]local.Variable{}
	for _, v := range all {
		if v.Help == "" || known[v.Name].Name != "" {
			t.Errorf("%+v", v)
		}
		known[v.Name] = v
	}
	for name, services := range map[string]string{
		"GANTRY_CACHE_SIZE": "[transfer]", "GANTRY_SESSION_FILES": "[transfer job-tracker]", "GANTRY_TAKEOVER_AFTER": "[docker-executor]",
		"GANTRY_MAX_QUEUED": "[dispatcher]", "GANTRY_SLOTS": "[]", "GANTRY_NATS_URL": "[]", "GANTRY_LOG_LEVEL": "[]",
	} {
		if got := fmt.Sprint(known[name].Services); got != services {
			t.Errorf("%s is of %s, want %s", name, got, services)
		}
	}
}

// TestVariablesReachTheServices: what has no flag of `gantry up` is taken from them,
// and told by their names.
func TestVariablesReachTheServices(t *testing.T) {
	for _, variable := range []string{"GANTRY_CACHE_SIZE", "GANTRY_RATE_LIMIT", "GANTRY_SESSION_FILES"} {
		t.Run(variable, func(t *testing.T) {
			t.Setenv(variable, "plenty")
			if err := local.Run(t.Context(), config(t)); err == nil || !strings.Contains(err.Error(), variable+": must be ") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestJoinedServerIsAnnounced(t *testing.T) {
	t.Parallel()
	server, err := natsserver.Start(natsserver.Options{Dir: t.TempDir(), Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	cfg := config(t)
	cfg.Join = &client.Config{URL: server.URL(), Wait: true}
	cfg.Slots = 0 // it comes no further than the server
	if err := local.Run(t.Context(), cfg); err == nil {
		t.Error("no error")
	}
	found, err := datadir.Find(cfg.Data)
	if err != nil || found.URL != server.URL() {
		t.Errorf("the folder names %s, %v", found.URL, err)
	}
}
