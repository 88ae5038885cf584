// Package service is the docker-executor as a value: Config and Run.
package service

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	"github.com/docker/go-units"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/attempt"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/docker"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/executor"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/policy"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/reconcile"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/internal/config"
	"github.com/gantry-worker/gantry/services/internal/node"
	"github.com/gantry-worker/gantry/services/internal/telemetry"
)

// Config is the docker-executor's configuration.
type Config struct {
	telemetry.Settings
	NATS client.Config `embed:"" prefix:"nats-"`

	WorkRoot string            `help:"Work folder of the node, shared with its transfer, at the same path for the container engine." default:"/var/lib/gantry"`
	Slots    int               `help:"How many tasks run at once." default:"2"`
	Queues   []contracts.Queue `help:"Queues to take tasks from." default:"default"`

	AllowBind    []string `help:"Host folders that tasks may mount: /path for reading, /path:rw for writing too."`
	AllowImages  []string `help:"Patterns of images that tasks may use; all if empty."`
	AllowOptions []string `help:"Container options that tasks may use besides the harmless ones, such as network_mode=host, cap_add or devices; all for every one of them."`
	Policy       Policy   `help:"What tasks may do that the settings allow-... do not name: strict, nothing more; girder-worker, all that Girder Worker allowed." enum:"strict,girder-worker" default:"strict"`
	RunOptions   string   `name:"docker-run-options" help:"Options for every container, as a JSON object with the names of docker.options, and volumes; a task's own win."`

	MaxTime   time.Duration `help:"Longest time limit of a task, and the one of tasks without; 0 for none." default:"0s"`
	MaxMemory string        `help:"Most memory that a task may ask for, such as 8g, and what one gets that does not ask; none if empty."`
	MaxCPUs   float64       `name:"max-cpus" help:"Most processors that a task may ask for, such as 1.5, and what one gets that does not ask; 0 for no limit." default:"0"`

	TaskNetwork  string `help:"Network of tasks that name none: auto, that of the executor's own container; none, the engine's choice; or a name." default:"auto"`
	GirderAPIURL string `name:"girder-api-url" help:"What girder_api_url in a task's arguments becomes, instead of the API URL that the task names." placeholder:"URL"`

	DockerConfig string `help:"Folder of the Docker config with the credentials for registries." type:"path" default:"~/.docker"`

	MaxGrace      time.Duration `help:"Longest time between a task's stop signal and SIGKILL." default:"60s"`
	TakeoverAfter time.Duration `help:"How long another executor has not been seen before its silence counts and its tasks are taken over." default:"60s"`
	OnLostLease   LostLease     `help:"What happens to running containers when the executor is without NATS for two thirds of takeover-after: keep them, or stop them before another executor takes over." enum:"keep,stop" default:"keep"`
	OrphanGrace   time.Duration `help:"How long a container of this installation has belonged to no running attempt before it is removed." default:"2m"`
	DrainTimeout  time.Duration `help:"How long running tasks may come to their end when the executor is stopped, before they are left running to be adopted by its next start." default:"0s"`
	LogLimit      string        `help:"How much of a task's log is kept, half from its beginning and half from its end." default:"64m"`
	PullIdle      time.Duration `help:"Give up an image pull that makes no progress for that long." default:"5m"`
	PullTimeout   time.Duration `help:"Give up an image pull that takes longer; 0: never." default:"0"`

	// OnReady is called once, when the service takes work.
	OnReady func() `kong:"-"`
	// Engine replaces the Docker engine, in tests.
	Engine engine.Engine `kong:"-"`
	// EngineSuspicion and EnginePatience replace, in tests, those of an
	// engine.Watched.
	EngineSuspicion, EnginePatience time.Duration `kong:"-"`
	// GatePatience and HoldPatience replace, in tests, for how long the gate, and
	// transfer asked to hold progress pipes, may be silent before a task goes on
	// without them.
	GatePatience, HoldPatience time.Duration `kong:"-"`
}

// Policy is what tasks may do without a setting that allows it.
type Policy string

// The policies; an empty one is StrictPolicy.
const (
	StrictPolicy       Policy = "strict"
	GirderWorkerPolicy Policy = "girder-worker"
)

// LostLease is what happens to the containers of an executor without NATS.
type LostLease string

// The answers to a lost lease; an empty one is KeepContainers.
const (
	KeepContainers LostLease = "keep"
	StopContainers LostLease = "stop"
)

// Validate checks what flags cannot.
func (c *Config) Validate() error {
	var errs []error
	if c.Slots < 1 {
		errs = append(errs, config.Invalid("slots", "must be 1 or more, is %d", c.Slots))
	}
	if c.OrphanGrace < time.Second {
		errs = append(errs, config.Invalid("orphan-grace", "must be 1s or longer, is %s", c.OrphanGrace))
	}
	if u, err := url.Parse(c.GirderAPIURL); c.GirderAPIURL != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		errs = append(errs, config.Invalid("girder-api-url", "must be an http or https URL such as http://girder:8080/api/v1"))
	}
	for option, d := range map[string]time.Duration{
		"max-time": c.MaxTime, "max-grace": c.MaxGrace, "takeover-after": c.TakeoverAfter, "drain-timeout": c.DrainTimeout, "pull-idle": c.PullIdle,
	} {
		if d < 0 {
			errs = append(errs, config.Invalid(option, "must not be negative, is %s", d))
		}
	}
	if !filepath.IsAbs(c.WorkRoot) {
		errs = append(errs, config.Invalid("work-root", "must be an absolute path, is %q", c.WorkRoot))
	}
	for _, queue := range c.Queues {
		if _, err := contracts.ParseName[contracts.Queue](string(queue)); err != nil {
			errs = append(errs, config.Invalid("queues", "%v", err))
		}
	}
	if _, err := units.RAMInBytes(c.LogLimit); err != nil {
		errs = append(errs, config.Invalid("log-limit", "must be a size such as 64m, is %q", c.LogLimit))
	}
	rules, err := c.policy()
	errs = append(errs, err)
	_, err = policy.New(rules)
	errs = append(errs, err)
	return errors.Join(errs...)
}

func (c *Config) policy() (policy.Config, error) {
	var rules policy.Config
	if c.Policy == GirderWorkerPolicy {
		rules = policy.GirderWorker()
	}
	rules.AllowBind = append(rules.AllowBind, c.AllowBind...)
	rules.AllowOptions = append(rules.AllowOptions, c.AllowOptions...)
	rules.AllowImages = c.AllowImages
	rules.Caps = policy.Caps{Time: c.MaxTime, CPUs: c.MaxCPUs}
	var errs []error
	var err error
	if rules.RunOptions, rules.Volumes, err = policy.ReadRunOptions(c.RunOptions); err != nil {
		errs = append(errs, config.Invalid("docker-run-options", "%v", err))
	}
	if c.MaxMemory != "" {
		if rules.Caps.Memory, err = units.RAMInBytes(c.MaxMemory); err != nil {
			errs = append(errs, config.Invalid("max-memory", "must be a size such as 8g, is %q", c.MaxMemory))
		}
	}
	return rules, errors.Join(errs...)
}

// Run is the docker-executor. It returns when the context ends and everything
// that it started has ended, but for containers that run: they are left to the
// next start.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	nodeID, err := node.Open(cfg.WorkRoot)
	if err != nil {
		return err
	}
	if cfg.WorkRoot, err = filepath.EvalSymlinks(cfg.WorkRoot); err != nil { // later no link is followed
		return fmt.Errorf("work folder: %w", err)
	}
	id := contracts.ExecutorID("ex-" + contracts.NewToken()[:8])
	// The connection has to last through the drain.
	b, err := bus.Open(ctx, cfg.NATS, "docker-executor", string(id))
	if err != nil {
		return err
	}
	defer b.Close()
	if err := b.AwaitTopology(ctx); err != nil {
		return err
	}
	if cfg.Engine == nil {
		eng, err := docker.New(docker.Config{ConfigDir: cfg.DockerConfig})
		if err != nil {
			return err
		}
		defer eng.Close() //nolint:errcheck // drops idle connections
		cfg.Engine = eng
	}
	x, err := build(ctx, cfg, b, nodeID, id)
	if err != nil {
		return err
	}
	return run(ctx, cfg, b, x)
}

func build(ctx context.Context, cfg Config, b *bus.Bus, nodeID contracts.NodeID, id contracts.ExecutorID) (*executor.Executor, error) {
	installation, err := b.Installation(ctx)
	if err != nil {
		return nil, err
	}
	rules, err := cfg.policy()
	if err != nil {
		return nil, err
	}
	allowed, err := policy.New(rules)
	if err != nil {
		return nil, err
	}
	limit, err := units.RAMInBytes(cfg.LogLimit)
	if err != nil {
		return nil, fmt.Errorf("log_limit: %w", err)
	}
	watched := &engine.Watched{Engine: cfg.Engine, Suspicion: cfg.EngineSuspicion, Patience: cfg.EnginePatience}
	tools := &attempt.Tools{
		Bus: b, Engine: watched, Images: engine.NewImages(watched, engine.PullLimits{Idle: cfg.PullIdle, Total: cfg.PullTimeout}), Policy: allowed,
		Node: nodeID, Executor: id, Installation: installation,
		Draining: ctx.Done(), MaxGrace: cfg.MaxGrace, LogLimit: limit, GirderAPIURL: cfg.GirderAPIURL,
		GatePatience: cfg.GatePatience, HoldPatience: cfg.HoldPatience,
	}
	return executor.New(executor.Settings{
		Tools: tools, WorkRoot: cfg.WorkRoot, Queues: cfg.Queues, Slots: cfg.Slots, Presence: bus.NewPresence(b),
		TakeoverAfter: cfg.TakeoverAfter, DrainTimeout: cfg.DrainTimeout, StopOnLostLease: cfg.OnLostLease == StopContainers,
	}), nil
}

func run(ctx context.Context, cfg Config, b *bus.Bus, x *executor.Executor) error {
	tools := x.Tools
	health := telemetry.NewHealth()
	health.Register("nats", b.Ready)
	health.Register("engine", func(context.Context) error { return x.NotReady() })

	stopOwns, err := bus.Answer(b, contracts.OwnsSubject(tools.Executor), x.Owns)
	if err != nil {
		return err
	}
	defer stopOwns()

	// Revokes and the announcement go on while running attempts come to their end.
	outer, finish := context.WithCancel(context.WithoutCancel(ctx))
	defer finish()
	group, outer := errgroup.WithContext(outer)
	inner, stop := context.WithCancelCause(ctx)
	context.AfterFunc(outer, func() { stop(context.Cause(outer)) })

	listening := make(chan struct{})
	group.Go(func() error { return ended(outer, health.Serve(outer, cfg.HealthAddress)) })
	group.Go(func() error {
		return ended(outer, b.Announce(outer, func() contracts.Instance { return describe(cfg, x) }))
	})
	group.Go(func() error {
		return ended(outer, b.ListenRevokes(outer, func() { close(listening) }, x.Revoke))
	})
	group.Go(func() error { return ended(outer, x.Presence.Run(outer)) })
	group.Go(func() error { return ended(outer, tools.Engine.Watch(outer)) })
	orphans := &reconcile.Reconciler{Engine: tools.Engine, Lives: b, Installation: tools.Installation, Grace: cfg.OrphanGrace}
	group.Go(func() error { return ended(outer, orphans.Run(outer)) })
	group.Go(func() error {
		defer finish()
		select {
		case <-inner.Done():
			return context.Cause(ctx)
		case <-listening:
		}
		if err := x.Locate(inner, cfg.TaskNetwork); err != nil {
			if inner.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
		zerolog.Ctx(ctx).Info().Str("executor", string(tools.Executor)).Str("node", string(tools.Node)).Int("slots", cfg.Slots).Msg("taking tasks")
		if cfg.OnReady != nil {
			cfg.OnReady()
		}
		return x.Run(inner)
	})
	return group.Wait()
}

// ended hides the error of a part that was told to end.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

var started = time.Now().UTC()

func describe(cfg Config, x *executor.Executor) contracts.Instance {
	instance := contracts.Instance{
		Service: "docker-executor", ID: string(x.Tools.Executor), Node: x.Tools.Node, Version: config.Version(), Started: started,
		Queues: cfg.Queues, Kinds: []contracts.Kind{contracts.KindDocker}, Slots: cfg.Slots, Running: x.Running(),
	}
	if err := x.NotReady(); err != nil {
		instance.NotReady = err.Error()
	}
	return instance
}
