package local

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/gantry-worker/gantry/contracts/client"
	dispatcher "github.com/gantry-worker/gantry/services/dispatcher/service"
	executor "github.com/gantry-worker/gantry/services/docker-executor/service"
	tracker "github.com/gantry-worker/gantry/services/job-tracker/service"
	transfer "github.com/gantry-worker/gantry/services/transfer/service"
)

// service is one of the services, configured.
type service struct {
	name string
	// run blocks until the context ends; it calls ready when it takes work.
	run func(ctx context.Context, ready func()) error
}

// services configures the four services. What this package does not set comes
// from the environment, as for a service of its own, or from its defaults.
func (cfg *Config) services(nats client.Config) ([]service, error) {
	queues := "--queues=" + strings.Join(cfg.Queues, ",")
	work := "--work-root=" + cfg.Work
	girder := "--girder-api-url=" + cfg.GirderAPIURL

	var d dispatcher.Config
	if err := configure("dispatcher", &d, queues); err != nil {
		return nil, err
	}
	d.NATS, d.HealthAddress = nats, ""

	var e executor.Config
	args := []string{queues, work, girder, "--slots=" + strconv.Itoa(cfg.Slots)}
	for flag, values := range map[string][]string{
		"--allow-bind=": cfg.AllowBind, "--allow-images=": cfg.AllowImages, "--allow-options=": cfg.AllowOptions,
	} {
		for _, allowed := range values {
			args = append(args, flag+allowed)
		}
	}
	if err := configure("docker-executor", &e, args...); err != nil {
		return nil, err
	}
	e.NATS, e.HealthAddress = nats, ""

	var t transfer.Config
	if err := configure("transfer", &t, work, girder); err != nil {
		return nil, err
	}
	t.NATS, t.HealthAddress = nats, ""

	var j tracker.Config
	if err := configure("job-tracker", &j, girder); err != nil {
		return nil, err
	}
	j.NATS, j.HealthAddress = nats, ""

	return []service{
		{"dispatcher", func(ctx context.Context, ready func()) error {
			d.OnReady = ready
			return dispatcher.Run(ctx, d)
		}},
		{"docker-executor", func(ctx context.Context, ready func()) error {
			e.OnReady = ready
			return executor.Run(ctx, e)
		}},
		{"transfer", func(ctx context.Context, ready func()) error {
			t.OnReady = ready
			return transfer.Run(ctx, t)
		}},
		{"job-tracker", func(ctx context.Context, ready func()) error {
			j.OnReady = ready
			return tracker.Run(ctx, j)
		}},
	}, nil
}

// configure fills a service's configuration from arguments, which win, the
// environment, and the defaults of its tags.
func configure(name string, cfg any, args ...string) error {
	parser, err := newParser(name, cfg)
	if err != nil {
		return err
	}
	if _, err := parser.Parse(args); err != nil { // calls Validate, too
		return fmt.Errorf("configure %s: %s", name, byVariable(err.Error(), args))
	}
	return nil
}

// byVariable names options that are not among the arguments by the variables
// that they were taken from, in problems of the form "--option: text", one a line.
func byVariable(problems string, args []string) string {
	lines := strings.Split(problems, "\n")
	for i, line := range lines {
		option, text, ok := strings.Cut(line, ": ")
		given := func(arg string) bool { return strings.HasPrefix(arg, option+"=") }
		if name, is := strings.CutPrefix(option, "--"); ok && is && !slices.ContainsFunc(args, given) {
			lines[i] = variable(name) + ": " + text
		}
	}
	return strings.Join(lines, "\n")
}
