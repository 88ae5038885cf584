// Package local is Gantry in one process: the four services, an embedded NATS
// server unless another one is named, and a girder-sim on request. `gantry up`
// and `gantry demo` are made of it.
//
// Everything lives in one data folder, which a running Gantry has for itself:
// nats/ (JetStream), work/ (the node's work folder), girder-sim/, and nats.json,
// by which the other commands find the server. At the end the services stop
// first, then what they work with.
package local

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/tools/gantry/internal/datadir"
	"github.com/gantry-worker/gantry/tools/gantry/internal/natsserver"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
	"github.com/gantry-worker/gantry/tools/girder-sim/simseed"
)

// ErrSimPortTaken is returned where something else listens at girder-sim's address.
var ErrSimPortTaken = errors.New("the address of girder-sim is taken")

// Config says what to run.
type Config struct {
	// Data is the absolute path of the data folder, Work of the work folder.
	Data, Work string
	// Join is the server to use instead of an embedded one.
	Join *client.Config
	// Port is the embedded server's, 0 for any free one.
	Port int
	// NoSync leaves it to the system when the embedded server's data reaches
	// the disk.
	NoSync bool
	// SimAddr is where a girder-sim listens, empty for none.
	SimAddr string
	// Slots, Queues and what tasks may use are the executor's.
	Slots        int
	Queues       []string
	AllowBind    []string
	AllowImages  []string
	AllowOptions []string
	// GirderAPIURL replaces the base of every Girder URL in a task.
	GirderAPIURL string
	// Log is the logger of all of it.
	Log zerolog.Logger
	// Ready is called once, when every service takes work.
	Ready func(Running)
}

// Running is what runs, for those who want to use it.
type Running struct {
	// NATS says how to connect.
	NATS client.Config
	// Sim is nil where no girder-sim runs; Seed is what it offers.
	Sim  *girdersim.Server
	Seed simseed.Seed
}

// Run runs until the context ends, and returns when everything that it started
// has ended. A service that ends by itself ends all of it, with an error.
func Run(ctx context.Context, cfg Config) (err error) {
	folder, err := datadir.Open(cfg.Data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, folder.Close()) }()
	var running Running
	stopNATS, err := cfg.startNATS(folder, &running)
	if err != nil {
		return err
	}
	defer stopNATS()
	stopSim, err := cfg.startSim(folder, &running)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopSim()) }()
	err = cfg.serve(ctx, running)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (cfg *Config) startNATS(folder *datadir.Folder, running *Running) (func(), error) {
	if cfg.Join != nil {
		running.NATS = *cfg.Join
		return func() {}, folder.Announce(*cfg.Join, false)
	}
	token, err := folder.Token()
	if err != nil {
		return nil, err
	}
	server, err := natsserver.Start(natsserver.Options{
		Dir: folder.Sub("nats"), Port: cfg.Port, Token: token, NoSync: cfg.NoSync,
		Log: cfg.Log.With().Str("service", "nats").Logger(),
	})
	if err != nil {
		return nil, err
	}
	running.NATS = client.Config{URL: server.URL(), Token: token}
	if err := folder.Announce(running.NATS, true); err != nil {
		server.Stop()
		return nil, err
	}
	return server.Stop, nil
}

func (cfg *Config) startSim(folder *datadir.Folder, running *Running) (func() error, error) {
	if cfg.SimAddr == "" {
		return func() error { return nil }, nil
	}
	dir := folder.Sub("girder-sim")
	sim, err := girdersim.Start(girdersim.Options{
		Addr: cfg.SimAddr, Dir: dir, Log: cfg.Log.With().Str("service", "girder-sim").Logger(),
	})
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%w: %w", ErrSimPortTaken, err)
	}
	if err != nil {
		return nil, fmt.Errorf("start girder-sim: %w", err)
	}
	seed, err := simseed.Plant(sim, dir)
	if err != nil {
		return nil, errors.Join(err, sim.Close())
	}
	running.Sim, running.Seed = sim, seed
	return sim.Close, nil
}

// serve runs the services, and says once when all of them are ready.
func (cfg *Config) serve(ctx context.Context, running Running) error {
	services, err := cfg.services(running.NATS)
	if err != nil {
		return err
	}
	ready := make(chan struct{}, len(services))
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range services {
		g.Go(func() error {
			log := cfg.Log.With().Str("service", s.name).Logger()
			err := s.run(log.WithContext(ctx), sync.OnceFunc(func() { ready <- struct{}{} }))
			switch {
			case err != nil:
				return fmt.Errorf("%s: %w", s.name, err)
			case ctx.Err() == nil:
				return fmt.Errorf("%s ended by itself", s.name)
			default:
				return nil
			}
		})
	}
	g.Go(func() error {
		for range services {
			select {
			case <-ready:
			case <-ctx.Done():
				return nil
			}
		}
		if cfg.Ready != nil {
			cfg.Ready(running)
		}
		return nil
	})
	return g.Wait()
}
