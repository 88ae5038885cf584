// Package executortest runs docker-executors on a container engine in memory,
// for tests of other modules that are about what becomes of jobs and not about
// Docker. Containers outlive the executors that started them: an executor can
// die at any of its calls to the engine, and another one finds its containers.
package executortest

import (
	"context"
	"strconv"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/attempt"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
	"github.com/gantry-worker/gantry/services/docker-executor/service"
)

// Image is the image that every engine has. A container of it carries out its
// arguments, "verb:rest", among them:
//
//	lines:N:W        write N lines of W bytes
//	trap:SIGNAL:N    from now on end with code N on this signal (USR1, TERM)
//	hang             wait for a signal
//	exit:N           end with code N
const Image = fake.ScriptImage

// Engine is a container engine in memory.
type Engine struct {
	fake *fake.Engine
}

// NewEngine returns an engine without containers.
func NewEngine() *Engine { return &Engine{fake: fake.New()} }

// Close kills all containers and waits for their end.
func (e *Engine) Close() { e.fake.Close() }

// State is where a container is in its life.
type State = engine.State

// The states.
const (
	Created = engine.Created
	Running = engine.Running
	Exited  = engine.Exited
)

// Container is one container of an attempt.
type Container struct {
	ID      string
	Job     contracts.JobID
	Attempt int
	State   State
}

// Containers returns the containers that the engine has now.
func (e *Engine) Containers(ctx context.Context) ([]Container, error) {
	list, err := e.fake.List(ctx, nil)
	if err != nil {
		return nil, err
	}
	containers := make([]Container, len(list))
	for i, c := range list {
		number, _ := strconv.Atoi(c.Labels[attempt.LabelAttempt]) // 0 for a container that is no attempt's
		containers[i] = Container{ID: c.ID, Job: contracts.JobID(c.Labels[attempt.LabelJob]), Attempt: number, State: c.State}
	}
	return containers, nil
}

// Signal sends a signal such as "SIGUSR1" to a container, as its task's own
// doing.
func (e *Engine) Signal(ctx context.Context, id, signal string) error {
	return e.fake.Signal(ctx, id, signal)
}

// Gate is called by an executor around each of its calls to the engine: before
// it, with done false, and after it took effect, with done true. An error before
// it stands for an engine that is not reached. A gate that does not return is
// the death of the executor at this point: the call has no effect, or nobody
// learns of it. Logs are read past the gate piece by piece, with done true.
type Gate func(ctx context.Context, call string, done bool) error

// Run is [service.Run] on this engine, through a gate.
func (e *Engine) Run(ctx context.Context, cfg service.Config, gate Gate) error {
	cfg.Engine = &gated{fake: e.fake, gate: gate}
	return service.Run(ctx, cfg)
}
