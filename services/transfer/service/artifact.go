package service

import (
	"context"
	"errors"
	"fmt"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/transfer/internal/stage"
)

// errNoGirderJob is why an artifact has nothing to be attached to.
var errNoGirderJob = errors.New("the task has no Girder job")

// attach attaches files to the job's Girder job, or puts them into the
// operator's folder where Girder cannot do that.
func (w *work) attach(ctx context.Context, client *girder.Client, out stage.Out, said *warnings) (*contracts.StepResult, error) {
	sent, err := out.Attach(ctx, client, w.girderJob)
	if errors.Is(err, girder.ErrNoRoute) && w.cfg.ArtifactFallbackFolder != "" {
		sent, err = w.fallBack(ctx, client, out)
		if err == nil && len(sent) > 0 {
			said.add(fmt.Sprintf("artifact %s: Girder has no artifacts of jobs, it is in folder %q of folder %s instead",
				w.step.Path, w.step.Job, w.cfg.ArtifactFallbackFolder))
		}
	} else if errors.Is(err, girder.ErrNoRoute) {
		said.add(fmt.Sprintf("artifact %s was not attached: this Girder has no artifacts of jobs", w.step.Path))
		err = nil
	}
	return sentResult(sent, said), err
}

func (w *work) girderJob(ctx context.Context) (girder.JobID, error) {
	ref, _, err := w.bus.GirderJob(ctx, w.step.Job)
	if err != nil {
		return "", unreadable{err}
	}
	if ref == nil || ref.ID == "" {
		return "", errNoGirderJob
	}
	return girder.JobID(ref.ID), nil
}

// fallBack puts artifacts into a folder of the job's name in the operator's.
func (w *work) fallBack(ctx context.Context, client *girder.Client, out stage.Out) ([]contracts.GirderSent, error) {
	var into girder.Folder
	err := w.patience().Do(ctx, w.triedAgain, func() (bool, error) {
		var err error
		into, err = client.CreateFolder(ctx, girder.FolderID(w.cfg.ArtifactFallbackFolder), string(w.step.Job), true)
		return false, err
	})
	if err != nil {
		return nil, fmt.Errorf("folder %s for artifacts: %w", w.cfg.ArtifactFallbackFolder, err)
	}
	out.Folder, out.Flat, out.Warn = into.ID, true, nil // warned already
	if err := w.before(ctx, &out); err != nil {
		return nil, err
	}
	return out.Run(ctx)
}

// excuse makes a warning of whatever kept an artifact from Girder: a task does
// not fail for one.
func (w *work) excuse(result *contracts.StepResult, err error) error {
	var outage unreadable
	if err == nil || errors.Is(err, errAborted) || errors.Is(err, stage.ErrSuspended) || errors.As(err, &outage) {
		return err
	}
	result.Warnings = append(result.Warnings, fmt.Sprintf("artifact %s was not attached: %v%s", w.step.Path, err, w.hint(err)))
	return nil
}
