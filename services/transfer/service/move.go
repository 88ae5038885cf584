package service

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/transfer/internal/stage"
)

// lookTime bounds a look at a life without which the work goes on as well.
const lookTime = 2 * time.Second

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

// allowed reports whether the attempt is still the current one, before what it
// does cannot be taken back. Where NATS does not answer, the step goes on.
func (w *work) allowed(ctx context.Context) error {
	if time.Since(w.seen) < w.rhythm.fresh {
		return nil
	}
	look, stop := context.WithTimeout(ctx, lookTime)
	defer stop()
	err := w.current(look)
	if errors.Is(err, errAborted) {
		return err
	}
	if err == nil {
		w.seen = time.Now()
	}
	return nil
}

// client builds the client for the step's Girder, session and token, to be used
// until the work is released.
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
	session, err := w.step.Session.Resolve(secrets)
	if err != nil {
		return nil, &taskFault{err}
	}
	connections, done, err := w.clients.For(session)
	if err != nil {
		return nil, &taskFault{err}
	}
	w.done = append(w.done, done)
	w.reach = reachOf(api, session)
	traffic := w.traffic
	if w.step.Kind == contracts.StepStream {
		traffic = traffic.ForStreams()
	}
	client, err := girder.New(girder.Options{
		APIURL: api, Token: token, HTTPClient: connections, Traffic: traffic, Logger: *zerolog.Ctx(ctx),
		Retry: girder.Retry{Total: -1}, // stage tries again
	})
	if err != nil {
		return nil, &taskFault{err}
	}
	return client, nil
}

// reachOf tells one Girder from another, for files that are kept. A task that
// brings a way of its own, such as one without verification, may reach another.
func reachOf(api string, session *contracts.GirderSession) string {
	api = strings.TrimRight(api, "/")
	if session == nil {
		return api
	}
	text, err := json.Marshal(session, json.Deterministic(true))
	if err != nil {
		return "" // nothing is kept
	}
	return fmt.Sprintf("%s %x", api, sha256.Sum256(text))
}

// release lets go what clients need.
func (w *work) release() {
	for _, done := range w.done {
		done()
	}
	w.done = nil
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
	ticker := time.NewTicker(w.rhythm.life)
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
			Source: client, File: girder.FileID(w.step.FileID), Item: girder.ItemID(w.step.ItemID), Folder: girder.FolderID(w.step.FolderID),
			Volume: w.step.Volume, Filename: w.step.Filename, FolderName: w.step.FolderName,
			Retry: w.patience(), Progress: w.meter.progress, Found: w.meter.found, Waits: w.waits, Memory: w.entry.Memory, Remember: w.entry.Remember,
			Log: *zerolog.Ctx(ctx), Task: fmt.Sprintf("%s/%d", w.step.Job, w.step.Attempt), Fetches: w.fetches, Girder: w.reach, Cache: w.cache,
			Exposed: !w.isOwnVolume(),
		}.Run(ctx)
		w.found, w.brought = staged.Found, err == nil
		return &contracts.StepResult{Path: staged.Path, Bytes: staged.Bytes}, err
	case contracts.StepStageOut:
		return w.stageOut(ctx, client)
	}
	return &contracts.StepResult{}, &taskFault{fmt.Errorf("this transfer does not know the step kind %q", w.step.Kind)}
}

// isOwnVolume reports whether the volume is the attempt's own, in its folder, where
// nobody writes before its container runs. A folder of the host is others' too.
func (w *work) isOwnVolume() bool {
	own := filepath.Join(w.cfg.WorkRoot, w.step.Folder)
	return strings.HasPrefix(filepath.Clean(w.step.Volume), own+string(filepath.Separator))
}

func (w *work) patience() girder.Retry {
	retry := girder.Retry{Total: w.cfg.GirderPatience, Foreign: true}
	if w.turn != nil {
		retry.Turns = w.turn
	}
	return retry
}

func (w *work) out(ctx context.Context) stage.Out {
	return stage.Out{
		Item: girder.ItemID(w.step.ItemID), Folder: girder.FolderID(w.step.FolderID), Volume: w.step.Volume, Path: w.step.Path,
		Name: w.step.Name, Reference: w.step.Reference, MustExist: w.step.MustExist,
		Retry: w.patience(), Progress: w.meter.progress, Found: w.meter.found, Waits: w.waits, Log: *zerolog.Ctx(ctx),
	}
}

// stageOut puts files into Girder.
func (w *work) stageOut(ctx context.Context, client *girder.Client) (*contracts.StepResult, error) {
	said := new(warnings)
	out := w.out(ctx)
	out.Sink, out.Memory, out.Remember, out.Allowed, out.Warn = client, w.entry.Memory, w.entry.Remember, w.allowed, said.add
	if w.step.Artifact {
		return w.attach(ctx, client, out, said)
	}
	if err := w.before(ctx, &out); err != nil {
		return &contracts.StepResult{}, err
	}
	sent, err := out.Run(ctx)
	return sentResult(sent, said), err
}

func sentResult(sent []contracts.GirderSent, said *warnings) *contracts.StepResult {
	result := &contracts.StepResult{Files: sent, Warnings: said.all()}
	for _, file := range sent {
		result.Bytes += file.Size
	}
	return result
}

// mostWarnings is how many warnings of one step are told, of what may be thousands.
const mostWarnings = 20

// warnings are those of one step.
type warnings struct {
	told []string
	more int
}

func (w *warnings) add(text string) {
	if len(w.told) == mostWarnings {
		w.more++
		return
	}
	w.told = append(w.told, text)
}

func (w *warnings) all() []string {
	if w.more == 0 {
		return w.told
	}
	return append(w.told, fmt.Sprintf("… and %d more like these", w.more))
}
