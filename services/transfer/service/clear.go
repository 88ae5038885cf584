package service

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/transfer/internal/journal"
	"github.com/gantry-worker/gantry/services/transfer/internal/stage"
)

const (
	// cleanupTime bounds what is done after a step has ended, for whatever reason.
	cleanupTime = 15 * time.Second
	// forgetAfter is how long what is left in Girder is tried to be cleared away.
	forgetAfter = 24 * time.Hour
)

// forget clears away what a step left half done, whatever process did, and its
// entry. Where Girder or NATS is away, the entry stays and the next sweep tries
// again, for a day.
func (w *work) forget(ctx context.Context) {
	err := w.forgotten(ctx)
	if err != nil {
		zerolog.Ctx(ctx).Warn().Err(err).Msg("what a step left is not cleared away")
	}
}

func (w *work) forgotten(ctx context.Context) error {
	if w.brought { // it left nothing, and may have noted thousands of files
		return w.journal.Drop(w.step)
	}
	entry, err := w.journal.Find(w.step)
	if entry == nil || err != nil {
		return err
	}
	return w.clear(ctx, entry)
}

func (w *work) clear(ctx context.Context, entry *journal.Entry) error {
	err := errors.Join(stage.Discard(w.step.Volume, entry.Memory), w.cancel(ctx, entry))
	var outage unreadable
	later := errors.As(err, &outage) || girder.IsOutage(err)
	if later && time.Since(entry.Began) < forgetAfter {
		return errors.Join(err, entry.Close())
	}
	return errors.Join(err, w.leave(entry))
}

// cancel throws away the uploads that nobody goes on with. Of those of which
// something has to be tried again, the others are not.
func (w *work) cancel(ctx context.Context, entry *journal.Entry) error {
	uploads := slices.Collect(maps.Values(entry.Memory.Pending))
	if len(uploads) == 0 {
		return nil
	}
	clean, stop := context.WithTimeout(ctx, cleanupTime)
	defer stop()
	client, err := w.client(clean)
	if err != nil {
		return fmt.Errorf("%d unfinished uploads: %w", len(uploads), err)
	}
	errs := make([]error, len(uploads))
	var group sync.WaitGroup
	for i, upload := range uploads {
		group.Go(func() { errs[i] = cancelOne(clean, client, entry, upload) })
	}
	group.Wait()
	return errors.Join(errs...)
}

// cancelOne throws away one upload. One that Girder does not know any more may
// have become a file, which a later attempt has to look for: it stays noted.
func cancelOne(ctx context.Context, client *girder.Client, entry *journal.Entry, upload stage.Pending) error {
	canceled, err := stage.Cancel(ctx, client, upload.ID)
	if err == nil && canceled {
		err = entry.Remember(stage.Note{Canceled: upload.ID})
	}
	if err != nil && ctx.Err() != nil {
		err = unreadable{err}
	}
	if err != nil {
		return fmt.Errorf("unfinished upload %s: %w", upload.ID, err)
	}
	return nil
}

// clean removes what was put into Girder from the volume, if the task says so.
// Only after the result is on disk: a step that is done again would miss it.
func (w *work) clean(ctx context.Context, result *contracts.StepResult) {
	if w.step.Kind != contracts.StepStageOut || !w.step.DeleteFile || result.Outcome != contracts.StepDone {
		return
	}
	if err := w.out(ctx).Delete(); err != nil {
		zerolog.Ctx(ctx).Warn().Err(err).Msg("uploaded files stay on the volume")
	}
}
