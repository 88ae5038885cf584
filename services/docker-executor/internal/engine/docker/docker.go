// Package docker is an engine.Engine on a Docker engine, from 20.10 (API 1.41)
// on. It is the only package that knows Docker's client.
//
// Four things it does its own way, each for a reason:
//
//   - Containers get the "local" log driver, whatever the engine's default is:
//     it keeps every byte, where json-file replaces what is not UTF-8.
//   - The log is followed through the log interface and never by attaching: an
//     attached stream starts too late, and is lost with its reader.
//   - Work that needs root on the host (RemoveTree) is done by this very program
//     in a container, from an image that is imported, never pulled.
//   - What has to end with the container (Wait, Logs) has no time limit of its
//     own and outlives a broken connection; every other call is bounded.
package docker

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/docker/docker/client"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// Config says which engine, and how patient to be with it. The zero value is
// the engine of Docker's own variables (DOCKER_HOST, DOCKER_CERT_PATH, …), else
// the one behind the host's standard socket.
type Config struct {
	Host      string // "unix:///run/docker.sock", "tcp://…"; empty: what DOCKER_HOST names, else Docker's default
	ConfigDir string // folder of the Docker config with the registries' credentials; empty: none

	CallTimeout      time.Duration // of one bounded call; 0: 2 min
	UnavailableLimit time.Duration // how long Wait and Logs put up with an engine that does not answer; 0: 2 min
	ProbeInterval    time.Duration // between looks at a container while its stream is silent; 0: 15 s
	Program          string        // a static program that calls removetree.Main, for RemoveTree; empty: this process' own
	LogMaxSize       string        // of one container, as the log driver reads it; empty: "100g"
}

func (c Config) withDefaults() Config {
	if c.CallTimeout <= 0 {
		c.CallTimeout = 2 * time.Minute
	}
	if c.UnavailableLimit <= 0 {
		c.UnavailableLimit = 2 * time.Minute
	}
	if c.ProbeInterval <= 0 {
		c.ProbeInterval = 15 * time.Second
	}
	if c.LogMaxSize == "" {
		c.LogMaxSize = "100g"
	}
	return c
}

// Engine is a connection to one Docker engine.
type Engine struct {
	client atomic.Pointer[client.Client] // see renew
	creds  credentials
	cfg    Config
	manner atomic.Pointer[manner] // as it was last asked for
	fresh  fresh
	killed sync.Map // by container: it was sent SIGKILL
	// disagrees: it said that it does not speak the client's version of its API, and
	// has answered no Ping since.
	disagrees atomic.Bool
	helper    helper
}

var _ engine.Engine = (*Engine)(nil)

// New returns an Engine. It does not connect: Ping does.
func New(cfg Config) (*Engine, error) {
	cfg = cfg.withDefaults()
	api, err := connect(cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to docker engine %s: %w", cfg.Host, err)
	}
	e := &Engine{creds: credentials{dir: cfg.ConfigDir}, cfg: cfg}
	e.client.Store(api)
	return e, nil
}

// connect returns a client with connections of its own.
func connect(cfg Config) (*client.Client, error) {
	opts := []client.Opt{client.FromEnv, client.WithAPIVersionNegotiation()}
	if cfg.Host != "" {
		opts = append(opts, client.WithHost(cfg.Host))
	}
	return client.NewClientWithOpts(opts...)
}

func (e *Engine) api() *client.Client { return e.client.Load() }

// renew agrees with the engine anew upon the version of its API, where err says
// that it was exchanged for one that does not speak the former one: a client
// agrees only once.
func (e *Engine) renew(ctx context.Context, err error) {
	if !saysOtherVersion(err) {
		return
	}
	e.disagrees.Store(true)
	fresh, err := connect(e.cfg)
	if err != nil {
		return
	}
	call, cancel := e.bounded(ctx)
	defer cancel()
	answer, err := fresh.Ping(call)
	if err != nil { // the next error has it tried again
		_ = fresh.Close()
		return
	}
	fresh.NegotiateAPIVersionPing(answer)
	_ = e.client.Swap(fresh).Close() // only its idle connections are closed
}

// Close drops the connections that are idle.
func (e *Engine) Close() error { return e.api().Close() }

// Ping reports whether the engine answers, in a version of its API that the
// client speaks as well.
func (e *Engine) Ping(ctx context.Context) error {
	call, cancel := e.bounded(ctx)
	defer cancel()
	_, err := e.api().Ping(call)
	if err == nil && e.disagrees.Load() { // a ping is of no version
		if _, _, err = identify(call, e.api()); err == nil {
			e.disagrees.Store(false)
		}
	}
	return e.wrap(ctx, "ping", "docker engine "+e.api().DaemonHost(), err)
}

// ID returns the engine's own id.
func (e *Engine) ID(ctx context.Context) (string, error) {
	call, cancel := e.bounded(ctx)
	defer cancel()
	info, err := e.api().Info(call)
	if err != nil {
		return "", e.wrap(ctx, "identify", "docker engine "+e.api().DaemonHost(), err)
	}
	return info.ID, nil
}

func (e *Engine) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, e.cfg.CallTimeout)
}
