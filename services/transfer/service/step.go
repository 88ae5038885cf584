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
	"github.com/gantry-worker/gantry/services/transfer/internal/stage"
)

// cleanupTime bounds what is done after a step has ended, for whatever reason.
const cleanupTime = 15 * time.Second

// handle does one step that an executor asked for. An error brings the message
// again; nil means that nothing of it remains to be done.
func (t *transfer) handle(ctx context.Context, subject string, data []byte) error {
	step, err := t.decode(subject, data)
	if err != nil {
		zerolog.Ctx(ctx).Error().Err(err).Str("subject", subject).Msg("step is not readable, dropped")
		return nil
	}
	log := zerolog.Ctx(ctx).With().Str("job", string(step.Job)).Int("attempt", step.Attempt).Str("step", step.Step).Logger()
	ctx = log.WithContext(ctx)

	folder, err := openFolder(t.cfg.WorkRoot, step)
	if errors.Is(err, os.ErrNotExist) {
		t.unstored.drop(keyOf(step))
		log.Info().Msg("the attempt's folder is gone, step dropped")
		return nil
	}
	if err != nil {
		return err
	}
	defer folder.close()

	inside, leave, ok := t.running.enter(ctx, keyOf(step))
	if !ok {
		return nil // asked for again while it runs
	}
	defer leave()
	return t.answer(ctx, inside, step, folder)
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
	return step, nil
}

// answer gives the executor the step's result: the one that is there, or a new
// one. inside ends when the step is aborted, ctx with the service.
func (t *transfer) answer(ctx, inside context.Context, step *contracts.Step, folder *folder) error {
	work := &work{transfer: t, step: step, folder: folder, meter: t.notes.meter(ctx, step)}
	result, err := folder.result()
	if err != nil {
		return err
	}
	if result == nil {
		if result, err = t.result(ctx, inside, work); err != nil || result == nil {
			return err
		}
		if err := folder.setResult(result); err != nil {
			t.unstored.keep(keyOf(step), result)
			return err
		}
	}
	t.unstored.drop(keyOf(step))
	work.clean(ctx, result)
	work.meter.done(result)
	return nil
}

// result does the step, unless it was done before and only its result could
// not be stored. It is nil for a step that nobody waits for any more.
func (t *transfer) result(ctx, inside context.Context, work *work) (*contracts.StepResult, error) {
	if result := t.unstored.get(keyOf(work.step)); result != nil {
		return result, nil
	}
	result, err := work.do(inside)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx) // the next process does it
	}
	if errors.Is(err, errNotCurrent) {
		zerolog.Ctx(ctx).Info().Msg("step of an attempt that has ended, dropped")
		return nil, nil
	}
	return result, err
}

// work is one step being done.
type work struct {
	*transfer
	step   *contracts.Step
	folder *folder
	meter  *meter
}

// do returns how the step ended. An error means that there is nothing to say
// yet, or nobody to say it to.
func (w *work) do(ctx context.Context) (*contracts.StepResult, error) {
	began := time.Now()
	client, err := w.client(ctx)
	if err == nil {
		err = w.forget(ctx, client) // an upload that a process before this one left
	}
	if gone := w.current(ctx); gone != nil {
		err = gone // whatever else is wrong does not matter any more
	}
	result := &contracts.StepResult{}
	if err == nil {
		result, err = w.move(ctx, client)
	}
	if aborted := context.Cause(ctx); aborted != nil && err != nil {
		err = aborted
	}
	var outage unreadable
	if errors.As(err, &outage) || errors.Is(err, errNotCurrent) {
		return nil, err
	}
	result.Version, result.Step, result.Ended = contracts.Version, w.step.Step, time.Now().UTC()
	result.Outcome, result.Message = outcome(err)
	result.Message += w.hint(err)
	logger := zerolog.Ctx(ctx)
	logger.Info().Str("outcome", string(result.Outcome)).Str("message", result.Message).Int64("bytes", result.Bytes).
		Dur("took", time.Since(began)).Str("kind", string(w.step.Kind)).Msg("step ended")
	return result, nil
}

// outcome tells whose fault the end of a step is.
func outcome(err error) (contracts.StepOutcome, string) {
	var refused *taskFault
	switch {
	case err == nil:
		return contracts.StepDone, ""
	case errors.Is(err, errAborted):
		return contracts.StepAborted, err.Error()
	case stage.IsFailure(err), errors.As(err, &refused):
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
	if w.step.Kind == contracts.StepStageOut {
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

// current reports whether the step's attempt is the one that counts. The step
// is registered for revokes already, so a revoke is either read here or heard.
func (w *work) current(ctx context.Context) error {
	last, err := w.bus.Last(ctx, w.step.Job)
	if err != nil {
		return unreadable{err}
	}
	if last == nil || !last.Running() || last.Attempt != w.step.Attempt || last.Type == contracts.EntryCanceling {
		return errNotCurrent
	}
	revoke, err := w.bus.LastRevoke(ctx, w.step.Job)
	if err != nil {
		return unreadable{err}
	}
	if revoke != nil {
		return revokedBy(revoke)
	}
	return nil
}

// client builds the client for the step's Girder and token.
func (w *work) client(ctx context.Context) (*girder.Client, error) {
	secrets, err := w.bus.Secrets(ctx, w.step.Job, contracts.SecretIO)
	if err != nil {
		return nil, unreadable{err}
	}
	token, err := w.step.Girder.Token.Resolve(secrets)
	if err != nil {
		return nil, &taskFault{err}
	}
	api, err := girder.Rewrite(w.step.Girder.APIURL, w.cfg.GirderAPIURL)
	if err != nil {
		return nil, &taskFault{err}
	}
	client, err := girder.New(girder.Options{
		APIURL: api, Token: token, HTTPClient: w.http, Logger: *zerolog.Ctx(ctx),
		Retry: girder.Retry{Total: -1}, // stage tries again
	})
	if err != nil {
		return nil, &taskFault{err}
	}
	return client, nil
}

// move does the step's work, and stops when its attempt is overtaken.
func (w *work) move(ctx context.Context, client *girder.Client) (*contracts.StepResult, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		w.watch(ctx, cancel)
	}()
	defer func() {
		cancel(nil)
		<-watched
	}()
	result, err := w.moveKind(ctx, client)
	if err != nil && errors.Is(context.Cause(ctx), errAborted) {
		err = context.Cause(ctx)
	}
	return result, err
}

// watch ends a long step whose attempt another owner has taken over meanwhile.
func (w *work) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	ticker := time.NewTicker(w.lifeCheck)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if err := w.current(ctx); errors.Is(err, errAborted) {
				cancel(err)
				return
			}
		}
	}
}

func (w *work) moveKind(ctx context.Context, client *girder.Client) (*contracts.StepResult, error) {
	switch w.step.Kind {
	case contracts.StepStageIn:
		staged, err := stage.In{
			Source: client, File: girder.FileID(w.step.FileID), Volume: w.step.Volume, Filename: w.step.Filename,
			Retry: w.patience(), Progress: w.meter.progress, Log: *zerolog.Ctx(ctx),
		}.Run(ctx)
		return &contracts.StepResult{Path: staged.Path, Bytes: staged.Bytes}, err
	case contracts.StepStageOut:
		sent, err := w.out(ctx, client).Run(ctx)
		result := &contracts.StepResult{Files: sent}
		for _, file := range sent {
			result.Bytes += file.Size
		}
		return result, err
	}
	return &contracts.StepResult{}, &taskFault{fmt.Errorf("this transfer does not know the step kind %q", w.step.Kind)}
}

func (w *work) patience() girder.Retry { return girder.Retry{Total: w.cfg.GirderPatience} }

func (w *work) out(ctx context.Context, client *girder.Client) stage.Out {
	return stage.Out{
		Sink: client, Item: girder.ItemID(w.step.ItemID), Volume: w.step.Volume, Path: w.step.Path,
		Reference: w.step.Reference, MustExist: w.step.MustExist,
		Retry: w.patience(), Progress: w.meter.progress, Journal: w.folder.setUpload, Log: *zerolog.Ctx(ctx),
	}
}

// forget cancels an upload that an earlier process began and did not end.
func (w *work) forget(ctx context.Context, client *girder.Client) error {
	id, err := w.folder.upload()
	if err != nil || id == "" {
		return err
	}
	clean, stop := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer stop()
	if err := stage.Cancel(clean, client, id); err != nil {
		zerolog.Ctx(ctx).Warn().Err(err).Str("upload", string(id)).Msg("an unfinished upload stays in girder")
	}
	return w.folder.setUpload("")
}

// clean removes what was put into Girder from the volume, if the task says so.
// Only after the result is on disk: a step that is done again would miss it.
func (w *work) clean(ctx context.Context, result *contracts.StepResult) {
	if w.step.Kind != contracts.StepStageOut || !w.step.DeleteFile || result.Outcome != contracts.StepDone {
		return
	}
	if err := w.out(ctx, nil).Delete(); err != nil {
		zerolog.Ctx(ctx).Warn().Err(err).Msg("uploaded files stay on the volume")
	}
}
