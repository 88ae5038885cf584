package engine

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/services/docker-executor/removetree"
)

// Watched is an engine that is watched for having locked up. Such a one answers
// pings and lists, and whoever has it create, start or remove something waits in
// vain. It is suspected when a call has been without an answer for a while. Then
// it is asked for its run, which takes a working engine milliseconds, and which
// one that has locked up does not answer either. What is only slow, such as a
// removal on a busy disk, is not taken for that.
//
// Until it answers, it is silent: the calls that are listed below, those under
// way and later ones, end with the same ErrLockedUp, since each that is not
// answered leaves something behind in the engine. All others pass.
type Watched struct {
	Engine
	// Suspicion is how long a call may be without an answer before the engine is
	// asked for its run, Patience how long that answer may take; 0 means 30 seconds.
	Suspicion, Patience time.Duration

	mu      sync.Mutex
	calls   map[*call]struct{}
	silence error         // nil while the engine answers
	over    chan struct{} // closed when the silence is over
}

// call is one that is under way, or other work that has no use of a silent engine.
type call struct {
	op, subject string // empty for other work: the engine owes no answer
	since       time.Time
	cancel      context.CancelCauseFunc
}

const (
	// defaultPatience is that of a Watched which names none.
	defaultPatience = 30 * time.Second
	// lookAgain is how often it is looked for calls without an answer, and the pause
	// before an engine that went away is asked again.
	lookAgain = time.Second
)

// Silence returns why the engine is silent, nil where it is not.
func (w *Watched) Silence() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.silence
}

// Answers waits until the engine is not silent.
func (w *Watched) Answers(ctx context.Context) error {
	for {
		w.mu.Lock()
		silence, over := w.silence, w.over
		w.mu.Unlock()
		if silence == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-over:
		}
	}
}

// WhileAnswering returns a context that ends when the engine falls silent, with
// why as its cause; at once where it is. It is to be released by its end.
func (w *Watched) WhileAnswering(ctx context.Context) (context.Context, context.CancelFunc) {
	return w.begin(ctx, "", "")
}

func (w *Watched) begin(ctx context.Context, op, subject string) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.silence != nil {
		cancel(w.silence)
		return ctx, func() {}
	}
	if w.calls == nil {
		w.calls = map[*call]struct{}{}
	}
	c := &call{op, subject, time.Now(), cancel}
	w.calls[c] = struct{}{}
	return ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.calls, c)
		cancel(nil)
	}
}

// call makes a call that is to be answered soon.
func (w *Watched) call(ctx context.Context, op, subject string, do func(ctx context.Context) error) error {
	ctx, end := w.begin(ctx, op, subject)
	defer end()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	err := do(ctx)
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, ErrLockedUp) {
		return cause
	}
	return err
}

// Watch watches until ctx ends.
func (w *Watched) Watch(ctx context.Context) error {
	suspicion := cmp.Or(w.Suspicion, defaultPatience)
	for ctx.Err() == nil {
		next := min(lookAgain, suspicion)
		if oldest := w.oldest(); oldest != nil && time.Since(oldest.since) >= suspicion {
			w.settle(ctx, oldest)
			next = suspicion // a call that goes on without an answer is suspected again
		}
		pause(ctx, next)
	}
	return context.Cause(ctx)
}

// oldest returns the call that has waited longest for an answer, or nil.
func (w *Watched) oldest() (oldest *call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.calls {
		if c.op != "" && (oldest == nil || c.since.Before(oldest.since)) {
			oldest = c
		}
	}
	return oldest
}

// settle asks the engine for its run, until it answers where it is silent. It
// mostly answers at once.
func (w *Watched) settle(ctx context.Context, suspected *call) {
	for {
		err := w.ask(ctx, func() { w.fallSilent(ctx, suspected) })
		switch {
		case ctx.Err() != nil:
			return
		case !errors.Is(err, ErrUnavailable):
			w.answer(ctx)
			return
		case w.Silence() == nil: // it is away, which a ping tells
			return
		}
		pause(ctx, lookAgain)
	}
}

// ask returns the engine's answer, however late, and calls silent when it is
// late, or there is none.
func (w *Watched) ask(ctx context.Context, silent func()) error {
	answer := make(chan error, 1)
	go func() {
		_, err := w.Engine.Run(ctx)
		answer <- err
	}()
	select {
	case err := <-answer:
		if errors.Is(err, ErrSilent) && ctx.Err() == nil {
			silent()
		}
		return err
	case <-time.After(cmp.Or(w.Patience, defaultPatience)):
	}
	if len(answer) == 0 { // else it came while this process stood still
		silent()
	}
	return <-answer
}

func (w *Watched) fallSilent(ctx context.Context, suspected *call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.silence != nil {
		return
	}
	w.silence = &Error{
		Op: suspected.op, Subject: suspected.subject, Kind: ErrLockedUp,
		Detail: "asked at " + suspected.since.UTC().Format("2006-01-02 15:04:05 UTC"),
	}
	w.over = make(chan struct{})
	for c := range w.calls {
		c.cancel(w.silence)
	}
	clear(w.calls)
	zerolog.Ctx(ctx).Warn().Err(w.silence).Msg("container engine has fallen silent")
}

func (w *Watched) answer(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.silence == nil {
		return
	}
	w.silence = nil
	close(w.over)
	zerolog.Ctx(ctx).Info().Msg("container engine answers again")
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// The calls that an engine which has locked up does not answer, and Ping, which
// would tell that it is well.

// Ping returns nil when the engine answers, also other calls.
func (w *Watched) Ping(ctx context.Context) error {
	return w.call(ctx, "ping", "the engine", w.Engine.Ping)
}

// Run returns the engine's present run.
func (w *Watched) Run(ctx context.Context) (run Run, err error) {
	err = w.call(ctx, "ask for the run of", "the engine", func(ctx context.Context) error {
		run, err = w.Engine.Run(ctx)
		return err
	})
	return run, err
}

// Create makes a container.
func (w *Watched) Create(ctx context.Context, spec Spec) (id string, err error) {
	err = w.call(ctx, "create", "container "+spec.Name, func(ctx context.Context) error {
		id, err = w.Engine.Create(ctx, spec)
		return err
	})
	return id, err
}

// Start starts a container.
func (w *Watched) Start(ctx context.Context, id string) error {
	return w.call(ctx, "start", subject(id), func(ctx context.Context) error { return w.Engine.Start(ctx, id) })
}

// Signal sends a signal to a container.
func (w *Watched) Signal(ctx context.Context, id, signal string) error {
	return w.call(ctx, "send "+signal+" to", subject(id), func(ctx context.Context) error { return w.Engine.Signal(ctx, id, signal) })
}

// Remove removes a container.
func (w *Watched) Remove(ctx context.Context, id string) error {
	return w.call(ctx, "remove", subject(id), func(ctx context.Context) error { return w.Engine.Remove(ctx, id) })
}

// RemoveTree removes what is in a folder. That may take long.
func (w *Watched) RemoveTree(ctx context.Context, hostPath string, id removetree.ID, labels map[string]string) error {
	return w.call(ctx, "", "", func(ctx context.Context) error { return w.Engine.RemoveTree(ctx, hostPath, id, labels) })
}

func subject(id string) string { return "container " + id[:min(len(id), 12)] }
