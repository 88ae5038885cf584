package setup

import (
	"context"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// Config says what a test needs; the zero value is the usual.
type Config struct {
	// Slots is how many tasks run at once; 2 if 0.
	Slots int
	// Env are further variables of all services.
	Env map[string]string
	// Hold are services that the test starts itself.
	Hold []string
	// DockerHost is the executor's engine; that of the environment if empty.
	DockerHost string
	// Up runs everything as `gantry up`, in one process.
	Up bool
}

// Gantry is a running Gantry with all that it needs.
type Gantry struct {
	*client.Client
	T      testing.TB
	Engine *Engine
	Girder *Girder
	// NATS and the services by name; with Config.Up only the one process.
	NATS     *Process
	Services map[string]*Process
	Up       *Process

	// Dir has everything of this Gantry, WorkRoot its tasks' data.
	Dir, WorkRoot string
	// URL and Token are the NATS server's.
	URL, Token string

	ctx context.Context
	cli []string // arguments and environment of the command line
	env []string
}

// patience bounds everything that a test waits for: it is no measurement.
const patience = 4 * time.Minute

// Start starts Gantry and returns when all services have announced themselves,
// but for those that are on hold.
func Start(t testing.TB, cfg Config) *Gantry {
	t.Helper()
	g := &Gantry{T: t, Engine: OpenEngine(t, cfg.DockerHost), Girder: startGirder(t), Dir: t.TempDir(), Services: map[string]*Process{}}
	var cancel context.CancelFunc
	g.ctx, cancel = context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	t.Cleanup(cancel)
	if cfg.Slots == 0 {
		cfg.Slots = 2
	}
	if cfg.Up {
		g.startUp(cfg)
	} else {
		g.startServices(cfg)
	}
	t.Cleanup(g.checkNothingIsLeft)
	return g
}

func (g *Gantry) startServices(cfg Config) {
	g.T.Helper()
	g.WorkRoot = filepath.Join(g.Dir, "work")
	g.NATS, g.URL, g.Token = startNATS(g.T, g.Dir)
	g.env = []string{"GANTRY_NATS_URL=" + g.URL, "GANTRY_NATS_TOKEN=" + g.Token}
	g.connect(client.Config{URL: g.URL, Token: g.Token})
	// So that a test may submit before the dispatcher, which does it too.
	if err := g.ApplyTopology(g.ctx, 1); err != nil {
		g.T.Fatalf("apply topology: %v", err)
	}
	env := map[string]string{
		"GANTRY_NATS_URL": g.URL, "GANTRY_NATS_TOKEN": g.Token, "GANTRY_LOG_LEVEL": "debug",
		"GANTRY_WORK_ROOT": g.WorkRoot, "GANTRY_SLOTS": fmt.Sprint(cfg.Slots),
	}
	if cfg.DockerHost != "" {
		env["DOCKER_HOST"] = cfg.DockerHost
	}
	maps.Copy(env, cfg.Env)
	var started []string
	for _, name := range []string{Dispatcher, Tracker, Transfer, Executor} {
		g.Services[name] = newProcess(g.T, g.Dir, name, program(name), environment(env))
		if !slices.Contains(cfg.Hold, name) {
			g.Services[name].Start()
			started = append(started, name)
		}
	}
	for _, name := range started {
		g.AwaitService(name)
	}
}

func (g *Gantry) startUp(cfg Config) {
	g.T.Helper()
	data := filepath.Join(g.Dir, "data")
	g.WorkRoot = filepath.Join(data, "work")
	g.cli = []string{"--data", data}
	env := map[string]string{"GANTRY_LOG_LEVEL": "debug", "GANTRY_NATS_PORT": fmt.Sprint(freePort(g.T)), "GANTRY_SLOTS": fmt.Sprint(cfg.Slots)}
	maps.Copy(env, cfg.Env)
	g.Up = newProcess(g.T, g.Dir, "gantry-up", program(gantry), environment(env), "--data", data, "up")
	g.Up.Start()
	g.AwaitUp()
}

// AwaitUp waits until `gantry up` is ready, and connects.
func (g *Gantry) AwaitUp() {
	g.T.Helper()
	g.Up.AwaitOutput("Gantry is ready.")
	g.connect(readServer(g.T, g.cli[1]))
}

func (g *Gantry) connect(cfg client.Config) {
	g.T.Helper()
	cfg.Wait, cfg.Name = true, "e2e"
	c, err := client.Connect(g.ctx, cfg)
	if err != nil {
		g.T.Fatalf("connect: %v", err)
	}
	if g.Client != nil {
		g.Client.Close()
	}
	g.Client = c
}

// Context ends when the test has waited for too long.
func (g *Gantry) Context() context.Context { return g.ctx }

// Background starts a command line that goes on; its log has both outputs.
func (g *Gantry) Background(args ...string) *Process {
	g.T.Helper()
	p := newProcess(g.T, g.Dir, "gantry-"+args[0], program(gantry), g.env, append(slices.Clone(g.cli), args...)...)
	p.Start()
	return p
}

// Command is the end of a command line.
type Command struct {
	Stdout, Stderr string
	Code           int
}

// Gantry runs the command line.
func (g *Gantry) Gantry(args ...string) Command {
	g.T.Helper()
	var stdout, stderr strings.Builder
	command := exec.CommandContext(g.ctx, program(gantry), append(slices.Clone(g.cli), args...)...)
	command.Env = append([]string{"HOME=" + g.Dir}, g.env...)
	command.Stdout, command.Stderr = &stdout, &stderr
	err := command.Run()
	if err != nil && command.ProcessState == nil {
		g.T.Fatalf("gantry %v: %v", args, err)
	}
	return Command{Stdout: stdout.String(), Stderr: stderr.String(), Code: command.ProcessState.ExitCode()}
}

// MustGantry runs the command line, which has to succeed, and returns what it
// printed to its standard output.
func (g *Gantry) MustGantry(args ...string) string {
	g.T.Helper()
	end := g.Gantry(args...)
	if end.Code != 0 {
		g.T.Fatalf("gantry %v: exit code %d\n%s%s", args, end.Code, end.Stdout, end.Stderr)
	}
	return end.Stdout
}

// Shell returns a task that runs a script of the test image's shell. $1 and so
// on are the arguments.
func (g *Gantry) Shell(script string, args ...contracts.Transform) *contracts.Task {
	docker := &contracts.DockerRun{
		Image: g.Engine.Image, Pull: contracts.PullNever, Entrypoint: contracts.Command{"/bin/sh", "-c"},
		Args:    []contracts.Arg{{Text: script}, {Text: "sh"}},
		Options: contracts.DockerOptions{NetworkMode: "none"},
	}
	for _, arg := range args {
		docker.Args = append(docker.Args, contracts.Arg{Transform: arg})
	}
	return &contracts.Task{Name: contracts.TaskDockerRun, Docker: docker}
}

// UploadTo is the output that puts a file of the default volume into an item.
func UploadTo(item girdersim.Item, path string) contracts.Output {
	return contracts.Output{OutputSpec: &contracts.GirderUploadItem{
		Path: contracts.OutputPath{VolumePath: contracts.VolumePath{Path: path}}, ItemID: item.ID,
	}}
}
