package service

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/transfer/internal/journal"
)

// own tells the steps of our installation, that of this NATS, from those that a
// transfer of another one began here: our NATS knows no life of theirs, and what
// it does not know would be cleared away.
func (t *transfer) own(ctx context.Context) (err error) {
	if t.ours, err = t.bus.Installation(ctx); err != nil {
		return err
	}
	t.journal.Own(t.ours)
	others, err := t.journal.Foreign()
	if err != nil {
		return err
	}
	t.holds.leave(others)
	steps := map[string]int{}
	for _, other := range others {
		steps[other.Installation]++
	}
	for installation, n := range steps { // each is said once
		zerolog.Ctx(ctx).Warn().Str("installation", installation).Int("steps", n).Str("journal", t.journal.Path()).
			Msg("steps of another installation left alone: is this the right NATS? if that installation is gone for good, remove the files that name it")
	}
	return nil
}

// errForeignFolder is returned for the folder of another installation's attempt.
var errForeignFolder = errors.New("the attempt's folder is another installation's")

// leaveAlone drops a step whose folder is another installation's. There is no
// place for an answer: it would be taken for that of the other's step.
func (w *work) leaveAlone(ctx context.Context, why error) {
	w.meter.waits(errForeignFolder.Error())
	if _, said := w.strange.LoadOrStore(w.step.Folder, true); !said {
		zerolog.Ctx(ctx).Warn().Err(why).Str("folder", w.step.Folder).
			Msg("step left alone: is this the right NATS? if that installation is gone for good, remove the folder")
	}
}

// refuse answers a step whose place in the journal another installation's has: what
// is noted of the one is not true of the other. The next attempt has a place of its own.
func (w *work) refuse(ctx context.Context, folder *folder, why error) error {
	var foreign *journal.Foreign
	if !errors.As(why, &foreign) {
		return why
	}
	result, err := folder.result()
	if err != nil {
		return err
	}
	if result == nil {
		result = w.ended(ctx, time.Now(), &contracts.StepResult{}, why)
		if err := folder.setResult(result); err != nil {
			return err
		}
	}
	w.meter.done(result)
	return nil
}
