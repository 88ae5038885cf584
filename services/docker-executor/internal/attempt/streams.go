package attempt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/fifo"
	"github.com/gantry-worker/gantry/services/internal/volume"
)

// beginStreams has transfer begin the task's streams, and returns when it has its
// ends of all their pipes: from then on the container may start. tell is told
// what they wait for meanwhile.
func (a *Attempt) beginStreams(ctx context.Context, tell func(contracts.Phase)) error {
	if len(a.plan.streams) == 0 {
		return nil
	}
	if err := a.makeStreams(); err != nil {
		return &Infrastructure{err.Error()}
	}
	opening := &transfers{phase: contracts.PhaseFetchingInput, tell: tell}
	for i := range a.plan.streams {
		opening.begin(a.plan.streams[i].step.Step)
	}
	group, ctx := errgroup.WithContext(ctx)
	for i := range a.plan.streams {
		group.Go(func() error { return a.beginStream(ctx, &a.plan.streams[i].step, opening) })
	}
	return group.Wait()
}

func (a *Attempt) beginStream(ctx context.Context, step *contracts.Step, opening *transfers) error {
	heard, stop := unanswered(step, opening.hear)
	defer stop()
	_, err := a.ask(ctx, *step, func() bool {
		_, err := os.Stat(filepath.Join(a.folder.Path(), "steps", contracts.StreamingMark(step.Step)))
		return err == nil
	}, heard)
	if err == nil {
		opening.end(step.Step, &contracts.StepResult{})
	}
	return named(step, err)
}

// makeStreams makes the pipes between this executor and transfer.
func (a *Attempt) makeStreams() error {
	err := os.Mkdir(filepath.Join(a.folder.Path(), streamsDir), 0o700)
	if err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	for i := range a.plan.streams {
		if s := &a.plan.streams[i]; s.from != 0 {
			if err := fifo.MakePrivate(volume.Volume{Host: s.pipe.Volume}, s.pipe.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// named makes an error that a step ended with say what of the task it is about.
func named(step *contracts.Step, err error) error {
	name := func(message string) string {
		if prefix := step.Stream.Field + ": "; !strings.HasPrefix(message, prefix) {
			return prefix + message
		}
		return message
	}
	var failure *Failure
	var infrastructure *Infrastructure
	switch {
	case errors.As(err, &failure):
		return &Failure{name(failure.Message)}
	case errors.As(err, &infrastructure):
		return &Infrastructure{name(infrastructure.Message)}
	default:
		return err
	}
}

// flows are the streams of an attempt from the start of its container on. Their
// context ends with the attempt's, and when a stream fails while the container
// runs: that has to be stopped then.
type flows struct {
	attempt *Attempt
	ctx     context.Context // it is what a failure ends
	cancel  context.CancelCauseFunc
	waiting sync.WaitGroup // for the results of steps
	all     chan struct{}  // closed when every stream is done, or one of them failed
	closed  sync.Once
	late    chan struct{} // closed when the container has ended and its time limit passed
	uploads *transfers    // those that go into Girder when the container has ended

	mu      sync.Mutex
	ended   bool // the container has
	over    bool // its time limit is
	err     error
	left    int // streams that have no result yet
	results []*contracts.StepResult
	holds   map[string]func(context.Context) // give up our end of a stream's pipe, by step
}

// flow returns the flows of the attempt's plan, which nobody watches yet.
func (a *Attempt) flow(ctx context.Context) *flows {
	ctx, cancel := context.WithCancelCause(ctx)
	streams := len(a.plan.streams)
	f := &flows{
		attempt: a, ctx: ctx, cancel: cancel, all: make(chan struct{}), late: make(chan struct{}),
		left: streams, results: make([]*contracts.StepResult, streams), holds: map[string]func(context.Context){},
	}
	f.uploads = &transfers{phase: contracts.PhasePushingOutput, tell: f.tell}
	for i := range a.plan.streams {
		if s := &a.plan.streams[i]; s.isUpload() {
			f.uploads.begin(s.step.Step)
		}
	}
	return f
}

// tell says how far the uploads are, when they are all that the attempt is busy with.
func (f *flows) tell(phase contracts.Phase) {
	f.mu.Lock()
	ended := f.ended
	f.mu.Unlock()
	if ended {
		f.attempt.notes.Phase(phase)
	}
}

// watch waits for the results of all streams beside its caller.
func (f *flows) watch() {
	for i := range f.attempt.plan.streams {
		s := &f.attempt.plan.streams[i]
		f.waiting.Go(func() {
			// Of a stream that goes on beside its container transfer may say nothing for
			// as long as the container does.
			result, err := f.attempt.follows(f.ctx, s.step, f.uploads, f.uploads.hear)
			if err != nil {
				f.fail(named(&s.step, err))
				return
			}
			if giveUp := f.done(i, s, result); giveUp != nil { // that, and nothing else, is the end of file for the container
				giveUp(f.ctx)
			}
		})
	}
}

// done takes the result of a stream, and returns what gives up our end of its
// pipe, nil for one that is held on.
func (f *flows) done(i int, s *stream, result *contracts.StepResult) (giveUp func(context.Context)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.results[i] = result
	if f.left--; f.left == 0 {
		f.closed.Do(func() { close(f.all) })
	}
	return f.holds[s.step.Step]
}

// fail says that a stream, or the executor's own part in it, cannot go on. It is
// the end of the attempt, unless the container has ended before and has another
// one.
func (f *flows) fail(err error) {
	f.mu.Lock()
	if f.err == nil {
		f.err = err
	}
	ended := f.ended
	f.mu.Unlock()
	if !ended {
		f.cancel(err)
	}
	f.closed.Do(func() { close(f.all) })
}

// hold has giveUp called as soon as the stream of a step is done.
func (f *flows) hold(step string, giveUp func(context.Context)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.holds[step] = giveUp
}

// containerEnded says that the container has ended: it is not to be stopped any
// more.
func (f *flows) containerEnded() { f.happened(&f.ended) }

// timeIsOver says that the time limit has passed: what the container has left
// behind when it ends, and the sink of a URL does not take, is waited for no longer.
func (f *flows) timeIsOver() { f.happened(&f.over) }

func (f *flows) happened(what *bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	wasLate := f.ended && f.over
	*what = true
	if f.ended && f.over && !wasLate {
		close(f.late)
	}
}

// failed returns the first failure.
func (f *flows) failed() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// finish has transfer bring all streams to their end, now that the container has
// come to its own, and returns nil if every one of them is done.
func (f *flows) finish() error {
	a := f.attempt
	if len(a.plan.streams) == 0 {
		return f.failed()
	}
	asking, stop := context.WithCancel(f.ctx)
	var finishing sync.WaitGroup
	finishing.Go(func() {
		_, err := a.step(asking, contracts.Step{
			Version: contracts.Version, Job: a.folder.Job, Attempt: a.folder.Attempt, Step: string(contracts.StepFinish),
			Kind: contracts.StepFinish, Folder: a.folder.Relative(), Written: a.folder.Written,
		})
		if err != nil && asking.Err() == nil {
			f.fail(err)
		}
	})
	defer finishing.Wait()
	defer stop()
	var over <-chan time.Time
	_, limit := a.tools.Policy.Limits(a.task)
	if limit > 0 { // somebody's sink that stalls is no way around it
		// While nobody finished them, after a former owner's death, none passed.
		timer := time.NewTimer(limit - a.folder.Timings.Exited.Sub(a.folder.Timings.Started))
		defer timer.Stop()
		over = timer.C
	}
	for done := false; !done; {
		select {
		case <-f.ctx.Done():
			return context.Cause(f.ctx)
		case <-over:
			if f.mayStall() {
				return a.lateStreams()
			}
		case <-f.all:
			done = true
		}
	}
	if err := f.failed(); err != nil {
		return err
	}
	var sent []contracts.GirderSent
	for _, result := range f.results {
		sent = append(sent, result.Files...)
		a.warnings = append(a.warnings, result.Warnings...)
	}
	a.outputs = append(sent, a.outputs...)
	return nil
}

// mayStall reports whether a stream is not done whose sink somebody may stall, a
// URL. One that goes into Girder is an output: those have no time limit.
func (f *flows) mayStall() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, result := range f.results {
		if result == nil && f.attempt.plan.streams[i].hasLimit() {
			return true
		}
	}
	return false
}

// lateStreams is for streams that are not done when the task's time is over.
func (a *Attempt) lateStreams() error {
	_, limit := a.tools.Policy.Limits(a.task)
	return &Timeout{fmt.Sprintf("time limit of %s reached while the task's streams were being finished", brief(limit))}
}

// stop ends the waiting for results.
func (f *flows) stop() {
	f.cancel(nil)
	f.waiting.Wait()
}

// errMoverDied is for streams of which the executor that died was the mover.
func errMoverDied(field string) error {
	return &Infrastructure{fmt.Sprintf(
		"%s: the stream lost its mover: its executor ended while the container ran", field)}
}
