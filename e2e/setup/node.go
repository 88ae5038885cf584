package setup

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"syscall"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
)

// NodeConfig says what one node is like.
type NodeConfig struct {
	// DockerHost is the executor's engine; that of the environment if empty.
	DockerHost string
	// Env are further variables of the node's services.
	Env map[string]string
	// Proxied puts a network that can be cut between the executor and NATS.
	Proxied bool
	// Disk gives the work folder a disk of its own with so many bytes, which
	// needs root; that of the test if 0.
	Disk int64
}

// Node is a node: a work folder, with the executor and the transfer that share it.
type Node struct {
	WorkRoot           string
	Engine             *Engine
	Executor, Transfer *Process
	// Network is between the executor and NATS, if the node was to be proxied.
	Network *Network
}

// addNode makes a node; its services are not started.
func (g *Gantry) addNode(cfg NodeConfig, env map[string]string) *Node {
	g.T.Helper()
	suffix := ""
	if n := len(g.Nodes); n > 0 {
		suffix = fmt.Sprintf("-%d", n+1)
	}
	node := &Node{WorkRoot: filepath.Join(g.Dir, "work"+suffix), Engine: g.engine(cfg.DockerHost)}
	if cfg.Disk > 0 {
		mountDisk(g.T, node.WorkRoot, cfg.Disk)
	}
	env = maps.Clone(env)
	env["GANTRY_WORK_ROOT"] = node.WorkRoot
	if cfg.DockerHost != "" {
		env["DOCKER_HOST"] = cfg.DockerHost
	}
	maps.Copy(env, cfg.Env)
	ofTransfer := maps.Clone(env)
	if g.Gate != nil {
		ofTransfer["GANTRY_GIRDER_API_URL"] = g.Gate.URL
	}
	node.Transfer = newProcess(g.T, g.Dir, Transfer+suffix, program(Transfer), environment(ofTransfer))
	if cfg.Proxied {
		node.Network = startNetwork(g.T, g.URL)
		env["GANTRY_NATS_URL"] = node.Network.URL
	}
	node.Executor = newProcess(g.T, g.Dir, Executor+suffix, program(Executor), environment(env))
	g.Nodes = append(g.Nodes, node)
	return node
}

// User is a user of the host, with one group beside its own.
type User struct {
	ID, Group, Also uint32
}

// belongTo gives the node to another user, before its services are started.
func (n *Node) belongTo(user *User) {
	if user == nil {
		return
	}
	t := n.Executor.t
	t.Helper()
	err := os.Mkdir(n.WorkRoot, 0o755)
	if err == nil {
		err = os.Chown(n.WorkRoot, int(user.ID), int(user.Group))
	}
	// The way there is only the test's user's.
	for dir := filepath.Dir(n.WorkRoot); err == nil && dir != filepath.Clean(os.TempDir()) && dir != "/"; dir = filepath.Dir(dir) {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatalf("give the node to user %d: %v", user.ID, err)
	}
	for _, p := range []*Process{n.Executor, n.Transfer} {
		// Programs may be where only the test's user may go.
		program, err := os.ReadFile(p.path)
		p.user, p.path = user, filepath.Join(filepath.Dir(n.WorkRoot), "program-"+p.Name)
		if err == nil {
			// A process that is started meanwhile would have the file open for a
			// moment, and a program that is open for writing does not run.
			syscall.ForkLock.RLock()
			err = os.WriteFile(p.path, program, 0o755)
			syscall.ForkLock.RUnlock()
		}
		if err != nil {
			t.Fatalf("give %s to user %d: %v", p.Name, user.ID, err)
		}
	}
}

// engine returns the engine at a host: nodes may share one.
func (g *Gantry) engine(host string) *Engine {
	g.T.Helper()
	for _, node := range g.Nodes {
		if node.Engine.host == host {
			return node.Engine
		}
	}
	return OpenEngine(g.T, host)
}

// ID is the node's id, which is there when a service of it has started.
func (n *Node) ID() (contracts.NodeID, error) {
	var identity struct {
		Node contracts.NodeID `json:"node"`
	}
	text, err := os.ReadFile(filepath.Join(n.WorkRoot, "node.json"))
	if err == nil {
		err = json.Unmarshal(text, &identity)
	}
	return identity.Node, err
}

// AwaitExecutor waits until the node's executor, as it was started last, has
// announced itself.
func (g *Gantry) AwaitExecutor(n *Node) { g.await(Executor, n.Executor, n) }

// AwaitTransfer is the same for the node's transfer.
func (g *Gantry) AwaitTransfer(n *Node) { g.await(Transfer, n.Transfer, n) }

// await waits until a process of a service has announced itself; on a node
// only one of that node counts.
func (g *Gantry) await(service string, p *Process, n *Node) {
	g.T.Helper()
	since := p.startedAt()
	g.watch(contracts.BucketNodes, contracts.InstanceKey(service, "*"), p.ended(), func(update jetstream.KeyValueEntry) bool {
		var instance contracts.Instance
		if update.Operation() != jetstream.KeyValuePut || json.Unmarshal(update.Value(), &instance) != nil {
			return false
		}
		if n != nil {
			if id, err := n.ID(); err != nil || instance.Node != id {
				return false
			}
		}
		return !instance.Started.Before(since)
	}, func() { g.T.Fatalf("%s does not announce itself", p.Name) })
}

// services are all processes but NATS, in the order in which they are to be
// stopped.
func (g *Gantry) services() []*Process {
	if g.Up != nil {
		return []*Process{g.Up}
	}
	var all []*Process
	for _, node := range g.Nodes {
		all = append(all, node.Executor)
	}
	for _, node := range g.Nodes {
		all = append(all, node.Transfer)
	}
	return append(all, g.Services[Dispatcher], g.Services[Tracker])
}
