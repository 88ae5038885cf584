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
	"github.com/gantry-worker/gantry/contracts/client/testport"
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
	// Nodes are what runs tasks; one node with DockerHost if empty.
	Nodes []NodeConfig
	// Servers is how many NATS servers there are, each stream on all of them: 1
	// if 0, or 3.
	Servers int
	// Health gives every service an address to be asked whether it is ready.
	Health bool
	// Patience bounds everything that the test waits for; ten minutes if 0.
	Patience time.Duration
	// NodeUser is whom the executors and transfers belong to; the test's own user
	// if nil. It has to be one that the engine listens to.
	NodeUser *User
	// Up runs everything as `gantry up`, in one process.
	Up bool
	// Gate puts a gate between the transfers and Girder.
	Gate bool
	// Girder says what the simulated Girder is like.
	Girder girdersim.Options
}

// Gantry is a running Gantry with all that it needs.
type Gantry struct {
	*client.Client
	T      testing.TB
	Engine *Engine
	Girder *Girder
	// Gate is between the transfers and Girder, if there was to be one.
	Gate *Gate
	// NATS and the services by name; with Config.Up only the one process. The
	// first node's executor and transfer are among the services.
	NATS     *Process
	Services map[string]*Process
	Up       *Process
	// Servers are all NATS servers, Nodes all nodes.
	Servers []*Process
	Nodes   []*Node

	// Dir has everything of this Gantry, WorkRoot the data of its first node's
	// tasks.
	Dir, WorkRoot string
	// URL and Token are the NATS server's.
	URL, Token string

	ctx context.Context
	// mayLose is how many uploads may be left, operator the token to list them.
	mayLose  int
	operator string
	cli      []string // arguments and environment of the command line
	env      []string
}

// patience bounds everything that a test waits for: it is no measurement, and
// the machine may have much else to do.
const patience = 10 * time.Minute

// answerTime is how long NATS may take for one answer. One that was lost with
// its connection never comes.
const answerTime = time.Minute

// persist does something that NATS answers until that works, or the test has
// waited for too long: a cluster may have no leader just now.
func (g *Gantry) persist(what string, do func(context.Context) error) {
	g.T.Helper()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		ctx, cancel := context.WithTimeout(g.ctx, answerTime)
		err := do(ctx)
		cancel()
		if err == nil {
			return
		}
		select {
		case <-again.C:
		case <-g.ctx.Done():
			g.T.Fatalf("%s: %v", what, err)
		}
	}
}

// Start starts Gantry and returns when all services have announced themselves,
// but for those that are on hold.
func Start(t testing.TB, cfg Config) *Gantry {
	t.Helper()
	g := &Gantry{T: t, Girder: startGirder(t, cfg.Girder), Dir: t.TempDir(), Services: map[string]*Process{}}
	var cancel context.CancelFunc
	if cfg.Patience == 0 {
		cfg.Patience = patience
	}
	g.ctx, cancel = context.WithTimeout(context.WithoutCancel(t.Context()), cfg.Patience)
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
	cfg.Servers = max(cfg.Servers, 1)
	g.Servers, g.URL, g.Token = startNATS(g.T, g.Dir, cfg.Servers)
	g.NATS = g.Servers[0]
	g.env = []string{"GANTRY_NATS_URL=" + g.URL, "GANTRY_NATS_TOKEN=" + g.Token}
	g.connect(client.Config{URL: g.URL, Token: g.Token})
	g.applyTopology(cfg.Servers)
	env := map[string]string{
		"GANTRY_NATS_URL": g.URL, "GANTRY_NATS_TOKEN": g.Token, "GANTRY_LOG_LEVEL": "debug", "GANTRY_SLOTS": fmt.Sprint(cfg.Slots),
	}
	maps.Copy(env, cfg.Env)
	if cfg.Gate {
		g.Gate = startGate(g.T, g.Girder.APIURL())
	}
	g.Services[Tracker] = newProcess(g.T, g.Dir, Tracker, program(Tracker), environment(env))
	if len(cfg.Nodes) == 0 {
		cfg.Nodes = []NodeConfig{{DockerHost: cfg.DockerHost}}
	}
	for _, node := range cfg.Nodes {
		g.addNode(node, env).belongTo(cfg.NodeUser)
	}
	first := g.Nodes[0]
	g.WorkRoot, g.Engine = first.WorkRoot, first.Engine
	g.Services[Executor], g.Services[Transfer] = first.Executor, first.Transfer
	env["GANTRY_REPLICAS"] = fmt.Sprint(cfg.Servers)
	g.Services[Dispatcher] = newProcess(g.T, g.Dir, Dispatcher, program(Dispatcher), environment(env))
	g.startAll(cfg)
}

// startAll starts the services that are not on hold and waits for all of them.
func (g *Gantry) startAll(cfg Config) {
	g.T.Helper()
	type started struct {
		service string
		process *Process
		node    *Node
	}
	all := []started{{Dispatcher, g.Services[Dispatcher], nil}, {Tracker, g.Services[Tracker], nil}}
	for _, node := range g.Nodes {
		all = append(all, started{Transfer, node.Transfer, node}, started{Executor, node.Executor, node})
	}
	all = slices.DeleteFunc(all, func(s started) bool { return slices.Contains(cfg.Hold, s.service) })
	for _, s := range all {
		if cfg.Health {
			s.process.answerHealth()
		}
		s.process.Start()
	}
	for _, s := range all {
		g.await(s.service, s.process, s.node)
	}
}

// applyTopology does what the dispatcher does too, so that a test may submit
// before there is one. A new cluster needs a moment to elect its leaders.
func (g *Gantry) applyTopology(servers int) {
	g.T.Helper()
	g.persist("apply topology", func(ctx context.Context) error { return g.ApplyTopology(ctx, servers) })
}

func (g *Gantry) startUp(cfg Config) {
	g.T.Helper()
	g.Engine = OpenEngine(g.T, cfg.DockerHost)
	data := filepath.Join(g.Dir, "data")
	g.WorkRoot = filepath.Join(data, "work")
	g.cli = []string{"--data", data}
	env := map[string]string{"GANTRY_LOG_LEVEL": "debug", "GANTRY_NATS_PORT": fmt.Sprint(testport.Reserve(g.T)), "GANTRY_SLOTS": fmt.Sprint(cfg.Slots)}
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
	cfg.Wait, cfg.Name, cfg.Patience = true, "e2e", answerTime
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

// Background starts a command line and lets it go on; its log has both outputs.
func (g *Gantry) Background(args ...string) *Process {
	g.T.Helper()
	p := newProcess(g.T, g.Dir, "gantry-"+args[0], program(gantry), g.env, append(slices.Clone(g.cli), args...)...)
	p.ends = true
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
