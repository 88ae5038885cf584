package local

import (
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	dispatcher "github.com/gantry-worker/gantry/services/dispatcher/service"
	executor "github.com/gantry-worker/gantry/services/docker-executor/service"
	tracker "github.com/gantry-worker/gantry/services/job-tracker/service"
	transfer "github.com/gantry-worker/gantry/services/transfer/service"
)

// Variable is an option of services that is taken from the environment.
type Variable struct {
	Name     string   // GANTRY_CACHE_SIZE
	Services []string // whose option it is
	Help     string
	Default  string
}

// ours are the options that Config sets, or that do not matter in one process.
var ours = []string{
	"queues", "work-root", "girder-api-url", "slots", "allow-bind", "allow-images", "allow-options",
	"log-level", "log-format", "health-address",
}

// Variables are the services' options that Config does not set, in the order of
// the services.
func Variables() ([]Variable, error) {
	var all []Variable
	for _, s := range []struct {
		name string
		cfg  any
	}{
		{"dispatcher", new(dispatcher.Config)},
		{"docker-executor", new(executor.Config)},
		{"transfer", new(transfer.Config)},
		{"job-tracker", new(tracker.Config)},
	} {
		parser, err := newParser(s.name, s.cfg)
		if err != nil {
			return nil, err
		}
		for _, flag := range parser.Model.Flags {
			if !slices.Contains(ours, flag.Name) && !strings.HasPrefix(flag.Name, "nats-") {
				all = with(all, s.name, flag)
			}
		}
	}
	return all, nil
}

// with adds a service's option, which another service may have too.
func with(all []Variable, service string, flag *kong.Flag) []Variable {
	name := variable(flag.Name)
	if at := slices.IndexFunc(all, func(v Variable) bool { return v.Name == name }); at >= 0 {
		all[at].Services = append(all[at].Services, service)
		return all
	}
	return append(all, Variable{Name: name, Services: []string{service}, Help: flag.Help, Default: flag.Default})
}

// newParser fills a configuration from arguments and variables.
func newParser(name string, cfg any) (*kong.Kong, error) {
	parser, err := kong.New(cfg, kong.Name(name), kong.NoDefaultHelp(), kong.DefaultEnvars("GANTRY"))
	if err != nil {
		return nil, fmt.Errorf("configure %s: %w", name, err)
	}
	return parser, nil
}

// variable is the variable of an option.
func variable(option string) string {
	return "GANTRY_" + strings.ToUpper(strings.ReplaceAll(option, "-", "_"))
}
