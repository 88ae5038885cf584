// Package fake is an engine.Engine in memory. Its containers carry out a script
// that stands in their arguments (script.go lists the steps), the same that the
// image of package enginetest runs on a Docker engine. Mounts are real folders
// of the host, so files and pipes work as they do with a real container.
//
// Every call can be told to fail or to hang, which real engines do on their own
// time only.
package fake

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/removetree"
)

// ScriptImage is the image that every fake engine has from the start.
const ScriptImage = "gantry-fake:script"

// Engine is a container engine in memory.
type Engine struct {
	id string

	mu         sync.Mutex
	images     map[string]engine.Image // present, by reference
	registry   map[string]engine.Image // can be pulled, by reference
	containers map[string]*container   // by ID
	faults     map[Call][]*fault
	locked     chan struct{} // closed when it works again, nil while it does
	pulls      []string
	runtimes   map[string]bool
	devices    map[string]bool // by capability
	run        run
	self       *engine.Self
	trees      []Tree
}

var _ engine.Engine = (*Engine)(nil)

// New returns an engine with one image, ScriptImage, and no containers.
func New() *Engine {
	e := &Engine{
		id:         "fake-" + rand.Text(),
		images:     map[string]engine.Image{},
		registry:   map[string]engine.Image{},
		containers: map[string]*container{},
		faults:     map[Call][]*fault{},
		runtimes:   map[string]bool{"": true, "runc": true},
		devices:    map[string]bool{},
		run:        newRun(false),
	}
	e.AddImage(ScriptImage, map[string]string{"gantry.test.image": "yes"})
	return e
}

// Close kills all containers and waits until they have ended.
func (e *Engine) Close() {
	e.mu.Lock()
	all := e.containers
	e.containers = map[string]*container{}
	e.mu.Unlock()
	for _, c := range all {
		c.destroy()
	}
}

// AddImage makes an image present.
func (e *Engine) AddImage(ref string, labels map[string]string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.images[ref] = engine.Image{ID: "sha256:" + rand.Text(), Labels: labels}
}

// AddRemote puts an image into the registry that Pull pulls from.
func (e *Engine) AddRemote(ref string, labels map[string]string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.registry[ref] = engine.Image{ID: "sha256:" + rand.Text(), Digest: "sha256:" + rand.Text(), Labels: labels}
}

// Pulls returns the references that were pulled so far, in order, the failed
// ones too.
func (e *Engine) Pulls() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.pulls...)
}

// Image returns a present image.
func (e *Engine) Image(ctx context.Context, ref string) (engine.Image, error) {
	if err := e.enter(ctx, CallImage); err != nil {
		return engine.Image{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if img, ok := e.imageLocked(ref); ok {
		return img, nil
	}
	return engine.Image{}, &engine.Error{Op: "find", Subject: "image " + ref, Kind: engine.ErrImageNotFound}
}

func (e *Engine) imageLocked(ref string) (engine.Image, bool) {
	for name, img := range e.images {
		if name == ref || img.ID == ref {
			return img, true
		}
	}
	return engine.Image{}, false
}

// Pull copies an image from the registry, in two layers of 1000 bytes.
func (e *Engine) Pull(ctx context.Context, ref string, progress func(engine.PullProgress)) error {
	e.mu.Lock()
	e.pulls = append(e.pulls, ref)
	e.mu.Unlock()
	progress(engine.PullProgress{Total: 2000, Status: "Pulling"})
	if err := e.enter(ctx, CallPull); err != nil {
		return err
	}
	e.mu.Lock()
	img, ok := e.registry[ref]
	if ok {
		e.images[ref] = img
	}
	e.mu.Unlock()
	if !ok {
		return &engine.Error{Op: "pull", Subject: "image " + ref, Kind: engine.ErrImageNotFound, Detail: "the registry does not have it"}
	}
	for i, layer := range []string{"base", "top"} {
		progress(engine.PullProgress{Done: int64(i+1) * 1000, Total: 2000, Layer: layer, Status: "Downloading"})
	}
	return nil
}

// Create makes a container.
func (e *Engine) Create(ctx context.Context, spec engine.Spec) (string, error) {
	if err := e.enter(ctx, CallCreate); err != nil {
		return "", err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	fail := func(kind error, detail string) (string, error) {
		return "", &engine.Error{Op: "create", Subject: "container " + spec.Name + " from image " + spec.Image, Kind: kind, Detail: detail}
	}
	if _, ok := e.imageLocked(spec.Image); !ok {
		return fail(engine.ErrImageNotFound, "")
	}
	if !e.runtimes[spec.Options.Runtime] {
		return fail(engine.ErrNoDriver, "Unknown runtime specified "+spec.Options.Runtime)
	}
	for _, c := range e.containers {
		if spec.Name != "" && c.spec.Name == spec.Name {
			return fail(engine.ErrNameConflict, "container "+c.id+" has it")
		}
	}
	for _, m := range spec.Mounts {
		if _, err := os.Stat(m.HostPath); err != nil {
			return fail(engine.ErrRefused, err.Error())
		}
	}
	if spec.Name == "" {
		spec.Name = "fake_" + rand.Text()
	}
	c := newContainer(rand.Text()+rand.Text(), spec)
	e.containers[c.id] = c
	return c.id, nil
}

// Start starts a created container.
func (e *Engine) Start(ctx context.Context, id string) error {
	if err := e.enter(ctx, CallStart); err != nil {
		return err
	}
	c, err := e.find("start", id)
	if err != nil {
		return err
	}
	if err := e.giveDevices(c); err != nil {
		return err
	}
	return c.start()
}

// Logs hands out a container's log.
func (e *Engine) Logs(ctx context.Context, id string, streams engine.Streams, since engine.Position, emit func(engine.Frame) error) (engine.Position, error) {
	if err := e.enter(ctx, CallLogs); err != nil {
		return since, err
	}
	c, err := e.find("read the log of", id)
	if err != nil {
		return since, err
	}
	resume, pos := engine.NewResume(since), since
	for i := 0; ; i++ {
		f, more, err := c.record(ctx, i)
		if err != nil || !more {
			return pos, err
		}
		if !streams.Has(f.Stream) || !resume.New(f) {
			continue
		}
		if err := emit(f); err != nil {
			return pos, err
		}
		pos.Advance(f)
	}
}

// Wait returns how a container ended.
func (e *Engine) Wait(ctx context.Context, id string, began engine.Run) (engine.Exit, error) {
	if err := e.enter(ctx, CallWait); err != nil {
		return engine.Exit{}, err
	}
	c, err := e.find("wait for", id)
	if err != nil {
		return engine.Exit{}, err
	}
	exit, err := c.wait(ctx)
	if err == nil {
		exit.EngineLost = e.endedWith(began, c, exit.FinishedAt)
	}
	return exit, err
}

// Signal sends a signal to a container.
func (e *Engine) Signal(ctx context.Context, id, signal string) error {
	if err := e.enter(ctx, CallSignal); err != nil {
		return err
	}
	c, err := e.find("send "+signal+" to", id)
	if err != nil {
		return err
	}
	c.signal(signal)
	return nil
}

// Remove kills and removes a container.
func (e *Engine) Remove(ctx context.Context, id string) error {
	if err := e.enter(ctx, CallRemove); err != nil {
		return err
	}
	e.mu.Lock()
	c := e.containers[id]
	delete(e.containers, id)
	e.mu.Unlock()
	if c != nil {
		c.destroy()
	}
	return nil
}

// List returns the containers with these labels.
func (e *Engine) List(ctx context.Context, labels map[string]string) ([]engine.Container, error) {
	if err := e.enter(ctx, CallList); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []engine.Container
	for _, c := range e.containers {
		if has(c.spec.Labels, labels) {
			list = append(list, engine.Container{
				ID: c.id, Name: c.spec.Name, Image: c.spec.Image, State: c.currentState(), Labels: c.spec.Labels,
			})
		}
	}
	return list, nil
}

func has(labels, wanted map[string]string) bool {
	for name, value := range wanted {
		if got, ok := labels[name]; !ok || got != value {
			return false
		}
	}
	return true
}

// Ping answers.
func (e *Engine) Ping(ctx context.Context) error { return e.enter(ctx, CallPing) }

// ID returns the engine's own id.
func (e *Engine) ID(ctx context.Context) (string, error) { return e.id, e.enter(ctx, CallID) }

// RemoveTree removes what is in a folder, as far as this process may.
func (e *Engine) RemoveTree(ctx context.Context, hostPath string, id removetree.ID, labels map[string]string) error {
	if err := e.enter(ctx, CallTree); err != nil {
		return err
	}
	e.mu.Lock()
	e.trees = append(e.trees, Tree{hostPath, labels})
	e.mu.Unlock()
	if err := removetree.Contents(hostPath, id); err != nil {
		return fmt.Errorf("remove what is in %s as root: %w", hostPath, err)
	}
	return nil
}

// Tree is one call of RemoveTree.
type Tree struct {
	HostPath string
	Labels   map[string]string
}

// Trees returns the trees that were removed so far, in order.
func (e *Engine) Trees() []Tree {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.trees)
}

// SetSelf says in which container the engine's caller runs; it runs in none from
// the start.
func (e *Engine) SetSelf(self *engine.Self) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.self = self
}

// Self returns the caller's own container.
func (e *Engine) Self(ctx context.Context) (*engine.Self, error) {
	if err := e.enter(ctx, CallSelf); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.self, nil
}

func (e *Engine) find(op, id string) (*container, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c := e.containers[id]; c != nil {
		return c, nil
	}
	return nil, &engine.Error{Op: op, Subject: fmt.Sprintf("container %.12s", id), Kind: engine.ErrNotFound}
}
