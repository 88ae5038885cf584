package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/transfer/internal/journal"
	"github.com/gantry-worker/gantry/services/transfer/internal/stage"
	"github.com/gantry-worker/gantry/services/transfer/internal/stream"
)

// handle does one step that an executor asked for. An error brings the message
// again; nil means that nothing of it remains to be done.
func (t *transfer) handle(ctx context.Context, subject string, data []byte) error {
	step, err := t.decode(subject, data)
	if err != nil {
		zerolog.Ctx(ctx).Error().Err(err).Str("subject", subject).Msg("step is not readable, dropped")
		return nil
	}
	return t.take(ctx, step)
}

// take brings a step to its end, unless it is on its way there: asked for
// again, or found in the journal, while it runs.
func (t *transfer) take(ctx context.Context, step *contracts.Step) error {
	log := zerolog.Ctx(ctx).With().Str("job", string(step.Job)).Int("attempt", step.Attempt).Str("step", step.Step).Logger()
	ctx = log.WithContext(ctx)
	inside, leave, ok := t.running.enter(ctx, keyOf(step))
	if !ok {
		t.running.askedAgain(keyOf(step))
		return nil
	}
	defer leave()
	work := &work{transfer: t, step: step, meter: t.notes.meter(inside, step)}
	defer work.meter.end()
	defer work.release()
	folder, err := openFolder(t.cfg.WorkRoot, step, t.ours)
	if errors.Is(err, os.ErrNotExist) {
		t.unstored.drop(keyOf(step))
		log.Info().Msg("the attempt's folder is gone, step dropped")
		work.forget(ctx)
		return nil
	}
	if errors.Is(err, errForeignFolder) {
		work.leaveAlone(ctx, err)
		return nil
	}
	if err != nil {
		return err
	}
	defer folder.close()
	if err := t.journal.Check(step); err != nil {
		return work.refuse(ctx, folder, err)
	}
	switch step.Kind {
	case contracts.StepHold:
		return t.hold(ctx, step, folder)
	case contracts.StepFinish:
		return t.finish(ctx, step, folder)
	case contracts.StepStream:
		return work.stream(ctx, inside, folder)
	}
	return work.answer(ctx, inside, folder)
}

// decode reads a step and checks what paths and subjects are made of.
func (t *transfer) decode(subject string, data []byte) (*contracts.Step, error) {
	step := new(contracts.Step)
	if err := json.Unmarshal(data, step); err != nil {
		return nil, err
	}
	if want := contracts.TransferSubject(t.node, step.Job, step.Attempt, step.Step); want != subject {
		return nil, fmt.Errorf("the body belongs to %s", want)
	}
	if filepath.Base(step.Step) != step.Step || !filepath.IsLocal(step.Step) {
		return nil, fmt.Errorf("%q is no name of a step", step.Step)
	}
	if !filepath.IsLocal(step.Folder) {
		return nil, fmt.Errorf("the attempt's folder %q is not in the work folder", step.Folder)
	}
	if route := step.Stream; route != nil { // one of its ends has the access to Girder
		step.Girder = route.From.Girder
		if route.From.FileID == "" {
			step.Girder = route.To.Girder
		}
	}
	return step, nil
}

// work is one step being done.
type work struct {
	*transfer
	step  *contracts.Step
	meter *meter
	entry *journal.Entry // while it is done
	seen  time.Time      // when its attempt was last known to be the current one
	turn  *turn          // while it has or wants a place
	done  []func()       // what its clients need is let go
	reach string         // which Girder they speak to, and how
	found int64          // bytes that did not have to be fetched

	brought bool // all of what was to be staged in is in its place
}

// answer gives the executor the step's result: the one that is there, or a new
// one. inside ends when the step is aborted or suspended, ctx with the service.
func (w *work) answer(ctx, inside context.Context, folder *folder) error {
	result, err := folder.result()
	if err != nil {
		return err
	}
	if result == nil {
		w.taken()
		if result, err = w.result(ctx, inside); err != nil || result == nil {
			return err
		}
		if err := folder.setResult(result); err != nil {
			w.unstored.keep(keyOf(w.step), result)
			return err
		}
	}
	w.unstored.drop(keyOf(w.step))
	w.clean(ctx, result)
	w.meter.done(result)
	w.forget(ctx)
	return nil
}

// taken tells whoever asked for the step, and whoever asks again, that it is done
// here.
func (w *work) taken() {
	w.running.hear(keyOf(w.step), w.meter.taken)
	w.meter.taken()
}

// result does the step, unless it was done before and only its result could
// not be stored. It is nil for a step that nobody waits for any more.
func (w *work) result(ctx, inside context.Context) (*contracts.StepResult, error) {
	if result := w.unstored.get(keyOf(w.step)); result != nil {
		return result, nil
	}
	turn, err := w.places.turn(inside, w.step, w.cfg.GirderAPIURL, waitingTold{w.waitsItsTurn, w.meter.goesOn})
	defer turn.end()
	if err != nil { // it has ended, and what follows tells how
		zerolog.Ctx(ctx).Debug().Err(err).Msg("step ended while it waited for a place")
	}
	w.turn = turn
	entry, err := w.journal.Begin(w.step)
	if err != nil {
		return nil, err
	}
	w.entry = entry
	result, err := w.do(inside)
	w.entry = nil
	if closeErr := entry.Close(); err == nil {
		err = closeErr
	}
	if errors.Is(err, errNotCurrent) {
		zerolog.Ctx(ctx).Info().Msg("step of an attempt that has ended, dropped")
		w.forget(ctx)
		return nil, nil
	}
	return result, err
}

// do returns how the step ended. An error means that there is nothing to say
// yet, or nobody to say it to.
func (w *work) do(ctx context.Context) (*contracts.StepResult, error) {
	began := time.Now()
	client, err := w.client(ctx)
	if gone := w.current(ctx); gone != nil {
		err = gone // whatever else is wrong does not matter any more
	}
	w.seen = time.Now()
	if err == nil {
		err = w.running.endOlder(ctx, w.step)
	}
	result := &contracts.StepResult{}
	if err == nil {
		result, err = w.move(ctx, client)
	}
	if w.step.Artifact && context.Cause(ctx) == nil {
		err = w.excuse(result, err)
	}
	if aborted := context.Cause(ctx); aborted != nil && err != nil {
		err = aborted
	}
	var outage unreadable
	if errors.As(err, &outage) || errors.Is(err, errNotCurrent) || errors.Is(err, stage.ErrSuspended) {
		return nil, err
	}
	return w.ended(ctx, began, result, err), nil
}

// ended completes the result of a step that ended with an error, or without.
func (w *work) ended(ctx context.Context, began time.Time, result *contracts.StepResult, err error) *contracts.StepResult {
	result.Version, result.Step, result.Ended = contracts.Version, w.step.Step, time.Now().UTC()
	result.Outcome, result.Message = outcome(err)
	result.Message += w.hint(err)
	logger := zerolog.Ctx(ctx)
	logger.Info().Str("outcome", string(result.Outcome)).Str("message", result.Message).Int64("bytes", result.Bytes).Int64("found", w.found).
		Dur("took", time.Since(began)).Str("kind", string(w.step.Kind)).Msg("step ended")
	return result
}

// outcome tells whose fault the end of a step is.
func outcome(err error) (contracts.StepOutcome, string) {
	var refused *taskFault
	var session *girder.SessionError
	switch {
	case err == nil:
		return contracts.StepDone, ""
	case errors.Is(err, errAborted):
		return contracts.StepAborted, err.Error()
	case stage.IsFailure(err), stream.IsFailure(err), errors.As(err, &refused), errors.As(err, &session):
		return contracts.StepFailure, err.Error()
	}
	return contracts.StepInfrastructure, err.Error()
}

// hint says which field and scope to look at where Girder refuses the token.
func (w *work) hint(err error) string {
	if !errors.Is(err, girder.ErrUnauthorized) && !errors.Is(err, girder.ErrForbidden) {
		return ""
	}
	scope := "core.data.read"
	if w.step.Kind == contracts.StepStageOut || isUpload(w.step) {
		scope = "core.data.write"
	}
	field := "girder.token"
	if token := w.step.Girder.Token; token.IsReference() { // its path is the field's
		_, field, _ = strings.Cut(string(token), "/")
	}
	return fmt.Sprintf(" (%s: it has to be valid, with the scope %s, and of a user who may do this)", field, scope)
}

// taskFault is a failure of the task that was found before anything was moved.
type taskFault struct{ err error }

func (f *taskFault) Error() string { return f.err.Error() }
func (f *taskFault) Unwrap() error { return f.err }

// unreadable is a failure to read from NATS, which says nothing about the step.
type unreadable struct{ err error }

func (u unreadable) Error() string { return u.err.Error() }
func (u unreadable) Unwrap() error { return u.err }
