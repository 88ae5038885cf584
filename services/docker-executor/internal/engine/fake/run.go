package fake

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// run is one run of the engine, from its start to its end.
type run struct {
	id     string
	began  time.Time
	keeps  bool
	ending bool
}

func newRun(keeps bool) run { return run{id: "run-" + rand.Text(), began: time.Now(), keeps: keeps} }

// Keep makes the engine leave its containers running when it is restarted.
func (e *Engine) Keep() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.run.keeps = true
}

// Restart stops the engine and starts it again. Containers that run end with
// it, as by SIGKILL, unless it was told to Keep them.
func (e *Engine) Restart() {
	e.mu.Lock()
	e.run.ending = true
	var running []*container
	for _, c := range e.containers {
		if !e.run.keeps && c.currentState() == engine.Running {
			running = append(running, c)
		}
	}
	e.mu.Unlock()
	for _, c := range running {
		c.change(func() { c.ended = true })
		c.kill()
		c.process.Wait()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.run = newRun(e.run.keeps)
}

// Run returns the engine's present run.
func (e *Engine) Run(ctx context.Context) (engine.Run, error) {
	if err := e.enter(ctx, CallRun); err != nil {
		return engine.Run{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.run.seen(), nil
}

func (r run) seen() engine.Run { return engine.Run{ID: r.id, Seen: time.Now(), Keeps: r.keeps} }

// endedWith reports whether a container may have been ended by the engine.
func (e *Engine) endedWith(began engine.Run, c *container, at time.Time) bool {
	if began.ID == "" {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.ended
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.run.ending:
		return !began.Keeps && !at.Before(began.Seen)
	case !at.Before(e.run.began):
		return false // in the present run
	}
	return began.Ended(e.run.seen(), at)
}
