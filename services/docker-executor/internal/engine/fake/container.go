package fake

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// container is one container: its process is a goroutine that carries out the
// script.
type container struct {
	id      string
	spec    engine.Spec
	signals chan string
	kill    context.CancelFunc
	killed  context.Context
	process sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed and made anew at every change of what follows
	state   engine.State
	removed bool
	ended   bool // by the engine, as that stopped
	log     []engine.Frame
	exit    engine.Exit
}

func newContainer(id string, spec engine.Spec) *container {
	killed, kill := context.WithCancel(context.Background())
	return &container{
		id: id, spec: spec, state: engine.Created,
		signals: make(chan string, 16), killed: killed, kill: kill, changed: make(chan struct{}),
	}
}

// change runs f under the lock and wakes all who wait.
func (c *container) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *container) currentState() engine.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

func (c *container) subject() string { return "container " + c.id[:12] }

// start begins the process, once.
func (c *container) start() error {
	if c.currentState() != engine.Created {
		return nil
	}
	program, why := c.program()
	notRun := ""
	if why != 0 {
		notRun = c.spec.Entrypoint[0]
	}
	if why != 0 && !c.spec.Options.InitOrDefault() {
		return &engine.Error{
			Op: "start", Subject: c.subject(), Kind: engine.ErrCannotStart,
			Detail: "exec " + notRun + " failed. " + engine.NotRun(notRun, c.spec.Image, why),
		}
	}
	c.change(func() { c.state = engine.Running })
	c.process.Go(func() {
		p := newProcess(c)
		code := why
		if why != 0 {
			p.write(engine.Stderr, []byte("init: exec "+notRun+" failed\n"))
		} else {
			code = p.run(program)
		}
		p.stdout.flush()
		p.stderr.flush()
		c.change(func() {
			c.state = engine.Exited
			c.exit = engine.Exit{Code: code, Signal: engine.SignalOf(code), OOMKilled: p.oom, FinishedAt: time.Now(), NotRun: notRun}
		})
	})
	return nil
}

// program returns the steps, or the exit code that says why an entrypoint cannot
// be run: the image has /bin/sh with /bin/script, and /etc/passwd, which is no
// program.
func (c *container) program() (steps []string, cannot int) {
	ep := c.spec.Entrypoint
	switch {
	case len(ep) == 0:
		return c.spec.Args, 0
	case ep[0] == "/etc/passwd":
		return nil, 126
	case len(ep) < 2 || ep[0] != "/bin/sh" || ep[1] != "/bin/script":
		return nil, 127
	}
	return append(append([]string(nil), ep[2:]...), c.spec.Args...), 0
}

// record returns the i-th record of the log, when it is there; more is false
// when the container has ended without one.
func (c *container) record(ctx context.Context, i int) (f engine.Frame, more bool, err error) {
	for {
		c.mu.Lock()
		changed := c.changed
		switch {
		case i < len(c.log):
			f = c.log[i]
			c.mu.Unlock()
			return f, true, nil
		case c.removed && c.state == engine.Running:
			c.mu.Unlock()
			return f, false, &engine.Error{Op: "read the log of", Subject: c.subject(), Kind: engine.ErrNotFound}
		case c.state != engine.Running:
			c.mu.Unlock()
			return f, false, nil
		}
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return f, false, context.Cause(ctx)
		}
	}
}

func (c *container) wait(ctx context.Context) (engine.Exit, error) {
	for {
		c.mu.Lock()
		changed, state, exit := c.changed, c.state, c.exit
		c.mu.Unlock()
		switch state {
		case engine.Exited:
			return exit, nil
		case engine.Created:
			return exit, &engine.Error{Op: "wait for", Subject: c.subject(), Kind: engine.ErrFailed, Detail: "it was never started"}
		case engine.Running, engine.Removing:
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return exit, context.Cause(ctx)
		}
	}
}

// signal delivers a signal. Like a kernel's, a signal that finds too many others
// waiting is dropped.
func (c *container) signal(name string) {
	if name == "SIGKILL" {
		c.kill()
		return
	}
	select {
	case c.signals <- name:
	default:
	}
}

// destroy kills the process and waits for its end.
func (c *container) destroy() {
	c.change(func() { c.removed = true })
	c.kill()
	c.process.Wait()
}

// lineWriter cuts a stream into records as an engine does: lines, parts of at
// most 16 KiB of a longer line, which share one time, and what is left at the
// end.
type lineWriter struct {
	c       *container
	stream  engine.Stream
	pending []byte
	since   time.Time // of the long line that is being written; zero: none
}

const maxRecord = 16 << 10

func (w *lineWriter) write(data []byte) {
	w.pending = append(w.pending, data...)
	for {
		end := bytes.IndexByte(w.pending, '\n')
		switch {
		case end >= 0 && end < maxRecord:
			w.record(end+1, true)
		case len(w.pending) >= maxRecord:
			w.record(maxRecord, false)
		default:
			return
		}
	}
}

func (w *lineWriter) flush() {
	if len(w.pending) > 0 {
		w.record(len(w.pending), true)
	}
}

// record moves n bytes of what is pending into the log.
func (w *lineWriter) record(n int, last bool) {
	at := w.since
	if at.IsZero() {
		at = time.Now()
	}
	w.since = at
	if last {
		w.since = time.Time{}
	}
	f := engine.Frame{Stream: w.stream, Time: at, Data: append([]byte(nil), w.pending[:n]...)}
	w.pending = w.pending[n:]
	w.c.change(func() { w.c.log = append(w.c.log, f) })
}
