package service

import (
	"context"
	"strconv"
	"strings"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/transfer/internal/journal"
	"github.com/gantry-worker/gantry/services/transfer/internal/stage"
)

// before tells an upload into a folder what earlier attempts of the job put
// there, so that it is replaced: from this node's own notes, and from the life
// of the job, which has those that came to their end anywhere.
func (w *work) before(ctx context.Context, out *stage.Out) (err error) {
	if out.Folder == "" || w.step.Attempt <= 1 {
		return nil
	}
	if out.Memory.Earlier, err = w.journal.Earlier(w.step); err != nil {
		return err
	}
	out.Before, err = w.pushed(ctx)
	return err
}

// pushed reads from the life what earlier attempts said of this output.
func (w *work) pushed(ctx context.Context) ([]contracts.GirderSent, error) {
	number, ok := strings.CutPrefix(w.step.Step, "out-")
	index, err := strconv.Atoi(number)
	if !ok || err != nil {
		return nil, nil
	}
	var files []contracts.GirderSent
	for seq := uint64(0); ; {
		entry, err := w.bus.EntryAfter(ctx, w.step.Job, seq)
		if err != nil {
			return nil, unreadable{err}
		}
		if entry == nil {
			return files, nil
		}
		seq = entry.Seq
		if pushed, ok := entry.Data.(*contracts.Pushed); ok && entry.Attempt < w.step.Attempt && pushed.Index == index {
			files = append(files, pushed.Files...)
		}
	}
}

// leave ends a step's entry. What it knows of files in a folder is kept: nothing
// in Girder says which of those there are the job's. Where an output is done,
// the life says it; of a stream it does not, since the attempt may still fail.
func (w *work) leave(entry *journal.Entry) error {
	output := w.step.Kind == contracts.StepStageOut && !w.isDone()
	if len(entry.Memory.Targets) == 0 || !output && !isUpload(w.step) {
		return entry.End()
	}
	return w.journal.Leave(entry)
}

// isDone reports whether the step's result says that all of it is done.
func (w *work) isDone() bool {
	folder, err := openFolder(w.cfg.WorkRoot, w.step, w.ours)
	if err != nil {
		return false
	}
	defer folder.close()
	result, err := folder.result()
	return err == nil && result != nil && result.Outcome == contracts.StepDone
}
