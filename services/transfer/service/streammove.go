package service

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/fifo"
	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/internal/volume"
	"github.com/gantry-worker/gantry/services/transfer/internal/journal"
	"github.com/gantry-worker/gantry/services/transfer/internal/stage"
	"github.com/gantry-worker/gantry/services/transfer/internal/stream"
)

// run takes our end of the pipe, says so, and moves the stream.
func (w *work) run(ctx context.Context, folder *folder) (*contracts.StepResult, error) {
	if err := checkRoute(w.step.Stream); err != nil {
		return &contracts.StepResult{}, err
	}
	if err := w.current(ctx); err != nil {
		return &contracts.StepResult{}, err
	}
	w.seen = time.Now()
	if err := w.running.endOlder(ctx, w.step); err != nil {
		return &contracts.StepResult{}, err
	}
	if w.step.Stream.To.Pipe != nil {
		return w.feed(ctx, folder)
	}
	return w.drain(ctx, folder)
}

// watched moves a stream until its attempt is overtaken.
func (w *work) watched(ctx context.Context, move func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		w.watch(ctx, cancel)
	}()
	err := move(ctx)
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, stage.ErrSuspended) {
		err = errStopped
	} else if err != nil && errors.Is(cause, errAborted) {
		err = cause
	}
	cancel(nil)
	<-watching
	return err
}

// begin holds the pipe beside the one that moves it.
func (w *work) begin() error {
	if err := w.holds.take(w.step); err != nil {
		return onPipe(err)
	}
	return nil
}

// onPipe tells what a container or a task did to a pipe from what this node lacks.
func onPipe(err error) error {
	if outcome, _ := holdOutcome(err); outcome == contracts.StepFailure {
		return &taskFault{err}
	}
	return err
}

// feed moves a file of Girder into the pipe.
func (w *work) feed(ctx context.Context, folder *folder) (*contracts.StepResult, error) {
	result := &contracts.StepResult{}
	client, err := w.client(ctx)
	if err != nil {
		return result, err
	}
	file, err := stream.Open(ctx, client, girder.FileID(w.step.Stream.From.FileID), w.patience(), *zerolog.Ctx(ctx), w.waits)
	if err != nil {
		return result, err
	}
	if err := w.begin(); err != nil {
		return result, err
	}
	to := w.step.Stream.To.Pipe
	pipe, err := fifo.OpenWriter(volume.Volume{Host: to.Volume}, to.Name, fifo.Beside)
	if err != nil {
		return result, onPipe(err)
	}
	defer pipe.Close() //nolint:errcheck // it is held beside this
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer w.movers.enter(w.step, func() { cancel(fifo.ErrLeft) }, w.holds)()
	if err := folder.setMark(); err != nil {
		return result, err
	}
	w.meter.ready(file.Name(), file.Size())
	err = w.watched(ctx, func(ctx context.Context) error {
		result.Bytes, err = file.Feed(ctx, pipe, func(bytes, total int64) { w.meter.progress(file.Name(), bytes, total) })
		return err
	})
	return result, err
}

// drain moves what comes out of the pipe to where it belongs.
func (w *work) drain(ctx context.Context, folder *folder) (*contracts.StepResult, error) {
	result := &contracts.StepResult{}
	move, err := w.sink(ctx, folder)
	if err != nil {
		return result, err
	}
	if err := w.begin(); err != nil {
		return result, err
	}
	from := w.step.Stream.From.Pipe
	pipe, err := fifo.OpenReader(volume.Volume{Host: from.Volume}, from.Name, fifo.Beside)
	if err != nil {
		return result, onPipe(err)
	}
	defer pipe.Close() //nolint:errcheck // nothing was written
	defer w.movers.enter(w.step, pipe.End, w.holds)()
	if err := folder.setMark(); err != nil {
		return result, err
	}
	name := w.step.Stream.To.Name
	if name == "" {
		name = filepath.Base(from.Name)
	}
	w.meter.ready(name, 0)
	outlet := &stream.Outlet{
		Pipe: pipe, Complete: w.complete,
		Moved: func(bytes, total int64) { w.meter.progress(name, bytes, total) },
	}
	err = w.watched(ctx, func(ctx context.Context) error { return move(ctx, outlet) })
	result.Bytes = outlet.Bytes()
	if err != nil || !isUpload(w.step) {
		return result, err
	}
	entry, err := w.journal.Begin(w.step)
	if err == nil {
		err = entry.RememberSpooled()
	}
	if err != nil {
		return result, err
	}
	return w.upload(ctx, entry)
}

// complete compares with what the executor wrote into the pipe, if it did.
func (w *work) complete(bytes int64) error {
	finish := w.holds.finish(w.step)
	if finish == nil {
		return nil
	}
	if written, told := finish.Written[w.step.Step]; told && written != bytes {
		return &stream.Miscounted{Written: written, Read: bytes}
	}
	return nil
}

// sink returns what drains the pipe, after everything was checked that can be
// checked before the container begins.
func (w *work) sink(ctx context.Context, folder *folder) (func(context.Context, *stream.Outlet) error, error) {
	to := w.step.Stream.To
	if to.URL == "" {
		if err := w.checkSink(ctx); err != nil {
			return nil, err
		}
		return func(ctx context.Context, from *stream.Outlet) error { return spool(ctx, from, folder) }, nil
	}
	secrets, err := w.bus.Secrets(ctx, w.step.Job, contracts.SecretIO)
	if err != nil {
		return nil, unreadable{err}
	}
	headers := make(map[string]string, len(to.Headers))
	for name, secret := range to.Headers {
		if headers[name], err = secret.Resolve(secrets); err != nil {
			return nil, &taskFault{err}
		}
	}
	post, err := stream.NewPost(to.URL, headers, w.cfg.GirderPatience)
	if err != nil {
		return nil, err
	}
	post.Paced = w.traffic.Reader
	return post.Drain, nil
}

// checkSink looks whether the item or folder is there, which gets its file when
// the container has ended.
func (w *work) checkSink(ctx context.Context) error {
	client, err := w.client(ctx)
	if err != nil {
		return err
	}
	to := w.step.Stream.To
	return w.patience().Do(ctx, w.triedAgain, func() (bool, error) {
		if to.ItemID != "" {
			_, err = client.GetItem(ctx, girder.ItemID(to.ItemID))
		} else {
			_, err = client.GetFolder(ctx, girder.FolderID(to.FolderID))
		}
		return false, err
	})
}

func spool(ctx context.Context, from *stream.Outlet, folder *folder) error {
	file, err := folder.openSpool()
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	err = stream.Spool(ctx, from, file)
	if err = errors.Join(err, file.Close()); err == nil {
		err = folder.syncSpool()
	}
	if err != nil {
		return errors.Join(err, folder.dropSpool())
	}
	return nil
}

// upload puts the complete spool into Girder, as if it were an output. The
// container has ended, so its pipe is not held any more.
func (w *work) upload(ctx context.Context, entry *journal.Entry) (*contracts.StepResult, error) {
	to := w.step.Stream.To
	out := &contracts.Step{
		Version: w.step.Version, Job: w.step.Job, Attempt: w.step.Attempt, Step: w.step.Step, Kind: contracts.StepStageOut,
		Folder: w.step.Folder, Girder: w.step.Girder, Session: w.step.Session, Volume: filepath.Join(w.cfg.WorkRoot, w.step.Folder),
		Path: spoolPath(w.step.Step), MustExist: true,
		ItemID: to.ItemID, FolderID: to.FolderID, Name: to.Name, Reference: to.Reference,
	}
	uploading := &work{transfer: w.transfer, step: out, meter: w.meter, entry: entry, seen: w.seen}
	defer uploading.release()
	client, err := uploading.client(ctx)
	result := &contracts.StepResult{}
	if err == nil {
		result, err = uploading.move(ctx, client)
	}
	return result, errors.Join(err, entry.Close())
}
