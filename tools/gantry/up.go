package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/tools/gantry/internal/cli"
	"github.com/gantry-worker/gantry/tools/gantry/internal/datadir"
	"github.com/gantry-worker/gantry/tools/gantry/internal/imageimport"
	"github.com/gantry-worker/gantry/tools/gantry/internal/local"
	"github.com/gantry-worker/gantry/tools/gantry/internal/natsserver"
	"github.com/gantry-worker/gantry/tools/gantry/internal/show"
	"github.com/gantry-worker/gantry/tools/girder-sim/simseed"
)

// Up is `gantry up`.
type Up struct {
	NATSPort     int        `name:"nats-port" help:"Port of the embedded NATS server on 127.0.0.1; 0: any free one." default:"4222" env:"GANTRY_NATS_PORT"`
	Fsync        bool       `help:"Bring every message to the disk before it counts. --no-fsync and --fsync=false are faster; a power cut then loses up to two minutes of accepted tasks." default:"true" negatable:"" env:"GANTRY_FSYNC"`
	Slots        int        `help:"Tasks that run at the same time." default:"2" env:"GANTRY_SLOTS"`
	Queues       []string   `help:"Queues to serve." default:"default" env:"GANTRY_QUEUES"`
	WorkRoot     string     `help:"Folder for the tasks' data (default: work in the data folder)." placeholder:"DIR" env:"GANTRY_WORK_ROOT"`
	AllowBind    []string   `help:"Host folders that tasks may mount: PATH for reading, PATH:rw for writing too. None by default." placeholder:"PATH" env:"GANTRY_ALLOW_BIND"`
	AllowImages  []string   `help:"Patterns of images that tasks may use; all if empty." placeholder:"PATTERN" env:"GANTRY_ALLOW_IMAGES"`
	AllowOptions []string   `help:"Container options that tasks may use besides the harmless ones, such as network_mode=host, cap_add or devices; all for every one of them." placeholder:"OPTION" env:"GANTRY_ALLOW_OPTIONS"`
	GirderAPIURL string     `name:"girder-api-url" help:"Reach every Girder under this API URL instead of the one that a task names." placeholder:"URL" env:"GANTRY_GIRDER_API_URL"`
	GirderSim    listenFlag `help:"Run a small simulated Girder too, on 127.0.0.1:8989 or at =HOST:PORT." env:"GANTRY_GIRDER_SIM"`
	LogLevel     string     `help:"Least severe level that is logged: ${enum}." enum:"trace,debug,info,warn,error" default:"info" env:"GANTRY_LOG_LEVEL"`
	LogFormat    string     `help:"Log as ${enum}; auto: console on a terminal." enum:"auto,json,console" default:"auto" env:"GANTRY_LOG_FORMAT"`
}

// Help is the long help.
func (*Up) Help() string {
	return `Runs dispatcher, docker-executor, transfer and job-tracker, and unless --nats-url names a server
an embedded NATS server that only this machine reaches, with a token that it keeps in the data
folder. Needs a Docker engine. Ctrl-C stops it and leaves containers running: the next start with
the same data folder goes on with them, and with the tasks that wait. A second Ctrl-C quits at once.

Further options are taken from the environment, as by each service on its own:

` + variables()
}

// variableWidth is that of the text about a variable.
const variableWidth = 68

// variables says what the services take from the environment.
func variables() string {
	all, err := local.Variables()
	if err != nil {
		return "  " + err.Error() + "\n"
	}
	var out strings.Builder
	for _, v := range all {
		about := v.Help
		if v.Default != "" {
			about += " Default: " + v.Default + "."
		}
		fmt.Fprintf(&out, "  %s (%s)\n", v.Name, strings.Join(v.Services, ", "))
		for line := range strings.SplitSeq(text.WrapSoft(about, variableWidth), "\n") {
			fmt.Fprintf(&out, "      %s\n", strings.TrimSpace(line))
		}
	}
	return out.String()
}

// Run runs everything until a signal.
func (u *Up) Run(ctx context.Context, env *cli.Env) error {
	cfg, err := u.config(env)
	if err != nil {
		return &cli.Exit{Code: cli.ExitUsage, Err: err}
	}
	ctx, stop := env.UntilSignal(ctx)
	defer stop()
	if cfg.Join != nil { // services wait for a server for ever, a person does not
		c, err := env.Connect(ctx)
		if err != nil {
			return err
		}
		c.Close()
	}
	var printed error
	ready := make(chan local.Running, 1)
	cfg.Ready = func(running local.Running) {
		_, printed = io.WriteString(env.Stdout, show.Summary(u.summary(ctx, cfg, running), env.OutStyle()))
		ready <- running
	}
	serving, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	quiet := context.AfterFunc(ctx, func() {
		defer end()
		if env.StderrTerminal {
			counting, cancel := context.WithTimeout(serving, countPatience)
			defer cancel()
			fmt.Fprintln(env.Stderr, "gantry: "+show.Stopping(u.instance(cfg), running(counting, cfg, ready)))
		}
	})
	err = local.Run(serving, cfg)
	quiet()
	switch {
	case errors.Is(err, datadir.ErrInUse):
		return fmt.Errorf("another 'gantry up' uses %s: stop it, or choose another folder with --data", cfg.Data)
	case errors.Is(err, natsserver.ErrPortTaken):
		return fmt.Errorf("port %d of 127.0.0.1 is taken, perhaps by another NATS server: choose another with --nats-port (0: any), or join that server with --nats-url", u.NATSPort)
	case errors.Is(err, local.ErrSimPortTaken):
		return fmt.Errorf("%s is taken, perhaps by another girder-sim: choose another with --girder-sim=HOST:PORT", cfg.SimAddr)
	}
	return errors.Join(err, printed)
}

func (u *Up) config(env *cli.Env) (local.Config, error) {
	cfg := local.Config{
		Port: u.NATSPort, NoSync: !u.Fsync, SimAddr: u.GirderSim.Addr, Slots: u.Slots, Queues: u.Queues,
		AllowBind: u.AllowBind, AllowImages: u.AllowImages, AllowOptions: u.AllowOptions, GirderAPIURL: u.GirderAPIURL, Log: newLog(env, u.LogLevel, u.LogFormat),
	}
	var err error
	if cfg.Data, err = datadir.Resolve(env.Globals.Data); err != nil {
		return cfg, err
	}
	cfg.Work = filepath.Join(cfg.Data, "work")
	if u.WorkRoot != "" {
		if cfg.Work, err = filepath.Abs(u.WorkRoot); err != nil {
			return cfg, err
		}
	}
	if env.Globals.Joins() {
		join := env.Globals.NATS
		cfg.Join = &join
	}
	return cfg, nil
}

// instance is what is known before anything runs.
func (u *Up) instance(cfg local.Config) show.Instance {
	known, err := datadir.Default()
	return show.Instance{
		Embedded: cfg.Join == nil, Data: cfg.Data, DefaultData: err == nil && cfg.Data == known,
		Work: cfg.Work, Slots: cfg.Slots, Queues: cfg.Queues, Unsynced: cfg.NoSync && cfg.Join == nil,
	}
}

// countPatience bounds the question for what runs.
const countPatience = time.Second

// running returns how many containers run, negative where that is not known:
// behind another server there may be other nodes.
func running(ctx context.Context, cfg local.Config, ready <-chan local.Running) int {
	select {
	case running := <-ready:
		if cfg.Join != nil {
			return -1
		}
		c, err := client.Connect(ctx, running.NATS)
		if err != nil {
			return -1
		}
		defer c.Close()
		jobs, err := c.Jobs(ctx, contracts.JobFilter{Limit: 1, Statuses: []contracts.Status{contracts.StatusRunning, contracts.StatusCanceling}})
		if err != nil {
			return -1
		}
		return jobs.Total
	default:
		return -1
	}
}

func (u *Up) summary(ctx context.Context, cfg local.Config, running local.Running) show.Instance {
	ctx, cancel := context.WithTimeout(ctx, engineAnswers)
	defer cancel()
	i := u.instance(cfg)
	i.NATS, i.NoEngine = client.WithoutUserInfo(running.NATS.URL), missingEngine(ctx, os.Getenv("DOCKER_HOST"))
	if running.Sim != nil {
		i.Girder = &show.SimulatedGirder{
			URL: running.Sim.URL(), Login: running.Seed.Login, Password: running.Seed.Password,
			Tokens: simseed.Path(filepath.Join(cfg.Data, "girder-sim")),
		}
	}
	return i
}

// engineAnswers bounds the time that the container engine has to answer.
const engineAnswers = 3 * time.Second

// missingEngine returns where a container engine should answer and does not;
// empty if one answers, or if only the executor knows how to reach it.
func missingEngine(ctx context.Context, host string) string {
	engine, err := imageimport.New(host)
	if err != nil {
		return ""
	}
	if err := engine.Ping(ctx); errors.Is(err, imageimport.ErrNoEngine) {
		return engine.Host()
	}
	return ""
}

// newLog returns the logger: for people on a terminal, else for programs.
func newLog(env *cli.Env, level, format string) zerolog.Logger {
	out := env.Stderr
	if format == "console" || format == "auto" && env.StderrTerminal {
		out = zerolog.ConsoleWriter{
			Out: env.Stderr, NoColor: !env.ErrStyle().Color, TimeFormat: "15:04:05",
			PartsOrder:    []string{zerolog.TimestampFieldName, zerolog.LevelFieldName, "service", zerolog.MessageFieldName},
			FieldsExclude: []string{"service"},
		}
	}
	least, err := zerolog.ParseLevel(level)
	if err != nil {
		least = zerolog.InfoLevel
	}
	return zerolog.New(out).Level(least).With().Timestamp().Logger()
}

// defaultSimAddr is where girder-sim listens if nothing else is said.
const defaultSimAddr = "127.0.0.1:8989"

// listenFlag is a flag that may have an address: --girder-sim[=HOST:PORT].
type listenFlag struct {
	Addr string // empty: not given
}

// IsBool lets the flag stand alone.
func (*listenFlag) IsBool() bool { return true }

// Decode reads the address, or a word that says yes or no.
func (f *listenFlag) Decode(ctx *kong.DecodeContext) error {
	f.Addr = defaultSimAddr
	if ctx.Scan.Peek().Type != kong.FlagValueToken {
		return nil
	}
	switch value := fmt.Sprint(ctx.Scan.Pop().Value); value {
	case "true", "1", "yes":
	case "false", "0", "no":
		f.Addr = ""
	default:
		f.Addr = value
	}
	return nil
}
