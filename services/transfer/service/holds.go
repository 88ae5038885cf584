package service

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/fifo"
	"github.com/gantry-worker/gantry/services/internal/volume"
	"github.com/gantry-worker/gantry/services/transfer/internal/journal"
)

// holds has the named pipes that are held beside their executors. The journal
// says which, so that the next process holds them again.
type holds struct {
	workRoot string
	journal  *journal.Journal
	gone     func(*contracts.Step) // is told of steps whose attempt's folder is gone

	mu    sync.Mutex
	steps map[stepKey]*hold
	// foreign are those of other installations. Our NATS knows nothing of their
	// attempts, so only the end of their folder lets go of them.
	foreign map[stepKey]*hold
}

// hold is the pipes of one step. A finish has none; it is held so that it is
// known for as long as its attempt has a folder.
type hold struct {
	step    *contracts.Step
	open    map[contracts.Pipe]io.Closer
	settled bool   // a stream whose result is there
	said    string // why a pipe is not held
	owner   string // the other installation, if it is one's
}

// holdsPipes reports whether steps of a kind are held.
func holdsPipes(kind contracts.StepKind) bool {
	return kind == contracts.StepHold || kind == contracts.StepStream || kind == contracts.StepFinish
}

// pipesOf are the pipes that a step keeps our end of.
func pipesOf(step *contracts.Step) []contracts.Pipe {
	if step.Stream == nil {
		return step.Pipes
	}
	var pipes []contracts.Pipe
	for _, end := range []contracts.RouteEnd{step.Stream.From, step.Stream.To} {
		if end.Pipe != nil {
			pipes = append(pipes, *end.Pipe)
		}
	}
	return pipes
}

func newHolds(workRoot string, journal *journal.Journal, gone func(*contracts.Step)) *holds {
	return &holds{workRoot: workRoot, journal: journal, gone: gone, steps: map[stepKey]*hold{}, foreign: map[stepKey]*hold{}}
}

// take holds all pipes of a step, or none of them. Those that are held already
// stay so.
func (h *holds) take(step *contracts.Step) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.steps[keyOf(step)] != nil {
		return nil
	}
	entry, err := h.journal.Begin(step)
	if err != nil {
		return err
	}
	held := &hold{step: step, open: map[contracts.Pipe]io.Closer{}}
	if err := held.take(); err != nil {
		return errors.Join(err, held.close(), entry.End())
	}
	h.steps[keyOf(step)] = held
	return entry.Close()
}

// again holds what the journal says. A pipe that cannot be held yet is tried
// at each look: that it should be held is known.
func (h *holds) again(ctx context.Context) error {
	steps, err := h.journal.Steps()
	if err != nil {
		return err
	}
	h.mu.Lock()
	for _, step := range steps {
		if holdsPipes(step.Kind) {
			h.steps[keyOf(step)] = &hold{step: step, open: map[contracts.Pipe]io.Closer{}}
		}
	}
	h.mu.Unlock()
	h.look(ctx)
	return nil
}

// leave sets the steps of other installations apart. Their pipes stay held: their
// containers may run, and their executors may be gone.
func (h *holds) leave(others []*journal.Foreign) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, other := range others {
		key := keyOf(other.Step)
		if held := h.steps[key]; held != nil {
			held.owner = other.Installation
			h.foreign[key] = held
			delete(h.steps, key)
		}
	}
}

// look releases the pipes of attempts whose folder is gone, and takes those
// that it could not take before.
func (h *holds) look(ctx context.Context) {
	for _, step := range h.all() {
		_, err := os.Stat(filepath.Join(h.workRoot, step.Folder))
		if errors.Is(err, os.ErrNotExist) {
			h.gone(step)
			h.release(ctx, step)
			continue
		}
		h.retake(ctx, step, h.steps)
	}
	for _, held := range h.others() {
		if h.isGone(held) {
			h.releaseForeign(ctx, held)
			continue
		}
		h.retake(ctx, held.step, h.foreign)
	}
}

// isGone reports whether the folder of another installation's attempt is there no
// more, or is another attempt's by now.
func (h *holds) isGone(held *hold) bool {
	root, err := os.OpenRoot(filepath.Join(h.workRoot, held.step.Folder))
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	defer root.Close()
	owner := ownerOf(root)
	return owner != "" && owner != held.owner
}

// releaseForeign lets the pipes of another installation's step go. The entry of a
// stream stays for it, which may have left an upload.
func (h *holds) releaseForeign(ctx context.Context, held *hold) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.foreign, keyOf(held.step))
	err := held.close()
	if held.step.Kind != contracts.StepStream {
		err = errors.Join(err, h.journal.Drop(held.step))
	}
	if err != nil {
		zerolog.Ctx(ctx).Warn().Err(err).Str("job", string(held.step.Job)).Int("attempt", held.step.Attempt).Msg("named pipes not let go cleanly")
	}
}

// retake holds what is not held of a step that is among some, and says why it
// cannot, unless it said so before.
func (h *holds) retake(ctx context.Context, step *contracts.Step, among map[stepKey]*hold) {
	if err := h.retaken(step, among); err != nil {
		zerolog.Ctx(ctx).Warn().Err(err).Str("job", string(step.Job)).Int("attempt", step.Attempt).Msg("a named pipe is not held")
	}
}

func (h *holds) retaken(step *contracts.Step, among map[stepKey]*hold) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	held := among[keyOf(step)]
	if held == nil {
		return nil
	}
	err, said := held.take(), held.said
	held.said = ""
	if err != nil {
		held.said = err.Error()
	}
	if held.said == said {
		return nil
	}
	return err
}

// settle says that a stream which is held has its result.
func (h *holds) settle(step *contracts.Step) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if held := h.steps[keyOf(step)]; held != nil {
		held.settled = true
	}
}

// settled reports whether a step has nothing to be done but to be held.
func (h *holds) settled(step *contracts.Step) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	held := h.steps[keyOf(step)]
	return held != nil && held.settled
}

// finish returns the step that says that the attempt's container has ended, nil
// if that is not known.
func (h *holds) finish(of *contracts.Step) *contracts.Step {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, held := range h.steps {
		if held.step.Kind == contracts.StepFinish && held.step.Job == of.Job && held.step.Attempt == of.Attempt {
			return held.step
		}
	}
	return nil
}

// others returns what is held for other installations.
func (h *holds) others() []*hold {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Collect(maps.Values(h.foreign))
}

// all returns the steps of what is held for ours.
func (h *holds) all() []*contracts.Step {
	h.mu.Lock()
	defer h.mu.Unlock()
	steps := make([]*contracts.Step, 0, len(h.steps))
	for _, held := range h.steps {
		steps = append(steps, held.step)
	}
	return steps
}

// release lets the pipes of a step go, for good. A stream's entry stays: it may
// have left an upload, and whoever clears that away ends it.
func (h *holds) release(ctx context.Context, step *contracts.Step) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var err, findErr error
	if held := h.steps[keyOf(step)]; held != nil {
		err = held.close()
		delete(h.steps, keyOf(step))
	}
	if step.Kind != contracts.StepStream {
		var entry *journal.Entry
		if entry, findErr = h.journal.Find(step); entry != nil {
			findErr = errors.Join(findErr, entry.End())
		}
	}
	log := zerolog.Ctx(ctx).With().Str("job", string(step.Job)).Int("attempt", step.Attempt).Logger()
	if err := errors.Join(err, findErr); err != nil {
		log.Warn().Err(err).Msg("named pipes not let go cleanly")
		return
	}
	log.Debug().Msg("named pipes are held no more")
}

// close lets all pipes go; the journal keeps them for the next process.
func (h *holds) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, all := range []map[stepKey]*hold{h.steps, h.foreign} {
		for key, held := range all {
			_ = held.close() // descriptors that nothing was written to
			delete(all, key)
		}
	}
}

// take holds the pipes that are not held yet, as many as it can.
func (h *hold) take() error {
	var errs []error
	for _, pipe := range pipesOf(h.step) {
		if h.open[pipe] != nil {
			continue
		}
		held, err := fifo.Hold(volume.Volume{Host: pipe.Volume}, pipe.Name, pipe.End)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		h.open[pipe] = held
	}
	return errors.Join(errs...)
}

func (h *hold) close() error {
	var errs []error
	for pipe, held := range h.open {
		errs = append(errs, held.Close())
		delete(h.open, pipe)
	}
	return errors.Join(errs...)
}

// hold does a step of that kind. It needs no place among the steps that move
// bytes, no Girder and no secrets: a task waits for it.
func (t *transfer) hold(ctx context.Context, step *contracts.Step, folder *folder) error {
	result, err := folder.result()
	if err != nil {
		return err
	}
	if result == nil || result.Outcome == contracts.StepDone {
		outcome, message := holdOutcome(t.holds.take(step))
		if result == nil || outcome != contracts.StepDone {
			result = &contracts.StepResult{
				Version: contracts.Version, Step: step.Step, Outcome: outcome, Message: message, Ended: time.Now().UTC(),
			}
			if err := folder.setHeld(result); err != nil {
				return err
			}
			zerolog.Ctx(ctx).Debug().Str("outcome", string(outcome)).Str("message", message).Int("pipes", len(step.Pipes)).Msg("named pipes are held")
		}
	}
	t.notes.meter(ctx, step).done(result)
	t.releaseEnded(ctx, step) // it may have come late
	return nil
}

// holdOutcome tells what a container or a task did from what this node lacks.
func holdOutcome(err error) (contracts.StepOutcome, string) {
	if err == nil {
		return contracts.StepDone, ""
	}
	for _, ours := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOSPC, syscall.ENOMEM, syscall.EIO} {
		if errors.Is(err, ours) {
			return contracts.StepInfrastructure, err.Error()
		}
	}
	return contracts.StepFailure, err.Error()
}

// watchHolds looks after what is held until the context ends.
func (t *transfer) watchHolds(ctx context.Context) error {
	look, life := time.NewTicker(t.rhythm.holds), time.NewTicker(t.rhythm.life)
	defer look.Stop()
	defer life.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-look.C:
			t.holds.look(ctx)
		case <-life.C:
			for _, step := range t.holds.all() {
				// The container of a stream must not see an end of file before it is
				// gone, which its folder tells, and not the attempt's life.
				if step.Kind != contracts.StepHold {
					continue
				}
				if !t.releaseEnded(ctx, step) {
					break // NATS is away, also for the others
				}
			}
		}
	}
}

// releaseEnded lets the pipes of an attempt go that has ended, and reports
// whether that could be told. A canceled container still runs for its grace.
func (t *transfer) releaseEnded(ctx context.Context, step *contracts.Step) bool {
	look, stop := context.WithTimeout(ctx, lookTime)
	defer stop()
	last, err := t.bus.Last(look, step.Job)
	if err != nil {
		return false
	}
	if last == nil || !last.Running() || last.Attempt != step.Attempt {
		t.holds.release(ctx, step)
	}
	return true
}
