// Package lifecycle is the main function of every service: configuration,
// logger, signals, exit code.
//
//	func main() {
//		lifecycle.Main("dispatcher", "Routes tasks to executors.", service.Run)
//	}
//
// The service itself is a function that blocks until its context ends and then
// returns when everything that it started has ended; inside, an errgroup is
// enough. The first SIGTERM or SIGINT ends the context, with the signal as its
// cause; a second one ends the process at once.
//
// Called as "<service> healthcheck", the program asks the running service of
// the same configuration whether it is ready, and exits with 0 or 1; as
// "<service> livecheck", whether it is alive. Images without a shell use them
// as their health checks: the second where somebody kills what is unhealthy,
// since an outage of NATS must not end a service.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/services/internal/config"
	"github.com/gantry-worker/gantry/services/internal/telemetry"
)

// Exit codes of a service.
const (
	ExitOK     = 0 // stopped by a signal, or nothing left to do
	ExitFailed = 1 // the service ended with an error, or is not ready
	ExitUsage  = 2 // the configuration is wrong; nothing was started
)

// Configured is a configuration struct that embeds telemetry.Settings.
type Configured interface {
	Telemetry() telemetry.Settings
}

// Main runs a service and exits with its code. The context that run gets
// carries the logger, for zerolog.Ctx.
func Main[C Configured](name, description string, run func(context.Context, C) error) {
	p := program[C]{name: name, description: description, run: run, stdout: os.Stdout, stderr: os.Stderr}
	os.Exit(p.main(os.Args[1:]))
}

// probes are what the program may be asked to find out about a running service.
var probes = map[string]func(ctx context.Context, address string) error{
	"healthcheck": telemetry.Probe,
	"livecheck":   telemetry.ProbeAlive,
}

type program[C Configured] struct {
	name, description string
	run               func(context.Context, C) error
	stdout, stderr    io.Writer
}

func (p program[C]) main(args []string) int {
	ctx, stop := withSignals(os.Exit)
	defer stop()

	var probe func(context.Context, string) error
	if len(args) > 0 {
		probe = probes[args[0]]
	}
	if probe != nil {
		args = args[1:]
	}
	var cfg C
	settings, err := config.Parse(p.name, p.description, &cfg, args, p.stdout)
	if errors.Is(err, config.ErrDone) {
		return ExitOK
	}
	if err != nil {
		fmt.Fprintln(p.stderr, err)
		return ExitUsage
	}
	if probe != nil {
		return p.check(ctx, cfg, probe)
	}
	logger := telemetry.NewLogger(p.stderr, cfg.Telemetry()).With().Str("service", p.name).Logger()
	logger.Info().Str("version", config.Version()).Msg("starting")
	logger.Debug().Fields(settings.Map()).Msg("effective configuration")
	return p.serve(ctx, cfg, logger)
}

func (p program[C]) serve(ctx context.Context, cfg C, logger zerolog.Logger) int {
	err := p.run(logger.WithContext(ctx), cfg)
	if err != nil && !isStop(ctx, err) {
		logger.Error().Err(err).Msg("failed")
		return ExitFailed
	}
	stopped := logger.Info()
	if cause := context.Cause(ctx); cause != nil {
		stopped = stopped.Str("cause", cause.Error())
	}
	stopped.Msg("stopped")
	return ExitOK
}

// isStop reports whether err says no more than that the context has ended.
func isStop(ctx context.Context, err error) bool {
	return ctx.Err() != nil && errors.Is(err, context.Canceled)
}

func (p program[C]) check(ctx context.Context, cfg C, probe func(context.Context, string) error) int {
	address := cfg.Telemetry().HealthAddress
	if address == "" {
		fmt.Fprintln(p.stderr, p.name+": health_address is empty, so there is nobody to ask: set GANTRY_HEALTH_ADDRESS")
		return ExitUsage
	}
	if err := probe(ctx, address); err != nil {
		fmt.Fprintln(p.stderr, err)
		return ExitFailed
	}
	return ExitOK
}
