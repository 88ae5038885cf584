package attempt

import (
	"context"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/sync/errgroup"

	"github.com/gantry-worker/gantry/contracts"
)

const (
	// askAgain is how often a step is asked for that has no result yet.
	askAgain = 30 * time.Second
	// lookAgain is how often the result is looked for; a note mostly comes first.
	lookAgain = 2 * time.Second
)

// stageIn has transfer bring all inputs, and returns the results by step.
func (a *Attempt) stageIn(ctx context.Context) (map[string]*contracts.StepResult, error) {
	results := make([]*contracts.StepResult, len(a.plan.inputs))
	group, ctx := errgroup.WithContext(ctx)
	for i, step := range a.plan.inputs {
		group.Go(func() error {
			var err error
			results[i], err = a.step(ctx, step)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if len(results) > 0 {
		a.folder.Timings.StagedIn = time.Now().UTC()
	}
	byStep := make(map[string]*contracts.StepResult, len(results))
	for i, step := range a.plan.inputs {
		byStep[step.Step] = results[i]
	}
	return byStep, nil
}

// holdPatience is how long transfer may take to hold the pipes: one that is away
// delays no task.
const holdPatience = 2 * time.Second

// holdPipes has transfer hold the progress pipes as well, so that the container
// does not notice when this executor dies.
func (a *Attempt) holdPipes(ctx context.Context) {
	if len(a.plan.progress) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, holdPatience)
	defer cancel()
	_, err := a.step(ctx, contracts.Step{
		Version: contracts.Version, Job: a.folder.Job, Attempt: a.folder.Attempt, Step: string(contracts.StepHold),
		Kind: contracts.StepHold, Folder: a.folder.Relative(), Pipes: a.plan.progress,
	})
	if err != nil {
		a.log.Info().Err(err).Msg("progress pipes are held by this executor alone, going on")
	}
}

// push has transfer put the outputs into Girder, one after the other. What is
// there already is not sent again.
func (a *Attempt) push(ctx, lifetime context.Context) error {
	if len(a.plan.outputs) == 0 {
		return nil
	}
	a.notes.Phase(contracts.Phase{Phase: contracts.PhasePushingOutput})
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if !a.pushing {
		if err := a.append(lifetime, &contracts.Pushing{}); err != nil {
			return err
		}
	}
	a.warnings = append(a.warnings, a.warningsOf(a.pushed)...)
	for i := a.pushed; i < len(a.plan.outputs); i++ {
		result, err := a.step(ctx, a.plan.outputs[i])
		if err != nil {
			return err
		}
		if err := a.append(lifetime, &contracts.Pushed{Index: i, Files: fitting(result.Files)}); err != nil {
			return err
		}
		a.pushed = i + 1
		a.outputs = append(a.outputs, result.Files...)
		a.warnings = append(a.warnings, result.Warnings...)
	}
	return nil
}

// warningsOf returns the warnings of the outputs that a former owner saw pushed:
// the job's life has none of them.
func (a *Attempt) warningsOf(pushed int) []string {
	var warnings []string
	for _, step := range a.plan.outputs[:min(pushed, len(a.plan.outputs))] {
		if result, err := a.folder.StepResult(step.Step); err == nil && result != nil {
			warnings = append(warnings, result.Warnings...)
		}
	}
	return warnings
}

// pushArtifacts has transfer attach those artifacts to the Girder job that a task
// wants there also after its failure, and returns what is there then. One that
// does not get there is a warning: the task has failed already.
func (a *Attempt) pushArtifacts(ctx, lifetime context.Context) []contracts.GirderSent {
	var sent []contracts.GirderSent
	if a.plan == nil {
		return nil
	}
	pushing, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(lifetime, func() { stop(context.Cause(lifetime)) })()
	for i, output := range a.task.Outputs {
		artifact, is := output.OutputSpec.(*contracts.GirderJobArtifact)
		if !is || !artifact.UploadOnException || i < a.pushed {
			continue
		}
		if len(sent) == 0 {
			a.notes.Phase(contracts.Phase{Phase: contracts.PhasePushingOutput})
		}
		result, err := a.step(pushing, a.plan.outputs[i])
		if pushing.Err() != nil {
			return sent
		}
		if err != nil {
			a.warnings = append(a.warnings, fmt.Sprintf("outputs[%d]: artifact not attached to the Girder job: %v", i, err))
			continue
		}
		sent = append(sent, result.Files...)
		a.warnings = append(a.warnings, result.Warnings...)
	}
	return sent
}

// step asks the node's transfer for a step and waits for its result.
func (a *Attempt) step(ctx context.Context, step contracts.Step) (*contracts.StepResult, error) {
	return a.ask(ctx, step, func() bool { return false })
}

// ask asks the node's transfer for a step and waits for its result, or until
// ready is true, whatever comes first. Asking again is harmless, so it does until
// there is an answer.
func (a *Attempt) ask(ctx context.Context, step contracts.Step, ready func() bool) (*contracts.StepResult, error) {
	body, err := json.Marshal(step)
	if err != nil {
		return nil, fmt.Errorf("step %s: %w", step.Step, err)
	}
	news := make(chan struct{}, 1)
	stop, err := a.tools.Bus.OnNotes(step.Job, func(note *contracts.Note) {
		if isNews(note, &step) {
			select {
			case news <- struct{}{}:
			default:
			}
		}
	})
	if err != nil {
		return nil, err
	}
	defer stop()
	subject := contracts.TransferSubject(a.tools.Node, step.Job, step.Attempt, step.Step)
	var asked time.Time
	for {
		if err := context.Cause(ctx); err != nil {
			return nil, err // a step that nobody wants is not asked for
		}
		result, err := a.folder.StepResult(step.Step)
		if err != nil {
			return nil, err
		}
		if result != nil {
			return result, outcomeOf(ctx, result)
		}
		if ready() {
			return nil, nil
		}
		if time.Since(asked) >= askAgain {
			if err := a.tools.Bus.PublishOnce(ctx, subject, body); err != nil {
				return nil, err
			}
			asked = time.Now()
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-news:
		case <-time.After(lookAgain):
		}
	}
}

// isNews reports whether a note says that the step came further: that it is
// done, or that its stream has begun.
func isNews(note *contracts.Note, step *contracts.Step) bool {
	if note.Type != contracts.NoteTransfer || note.Attempt != step.Attempt {
		return false
	}
	var transfer contracts.TransferNote
	if json.Unmarshal(note.Data, &transfer) != nil || transfer.ID != step.Step {
		return false
	}
	return transfer.Done || step.Kind == contracts.StepStream
}

func outcomeOf(ctx context.Context, result *contracts.StepResult) error {
	switch result.Outcome {
	case contracts.StepDone:
		return nil
	case contracts.StepFailure:
		return &Failure{result.Message}
	case contracts.StepAborted:
		// The revoke that transfer heard is on its way to us as well.
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(askAgain):
			return &Infrastructure{"transfer aborted the step: " + result.Message}
		}
	default:
		return &Infrastructure{result.Message}
	}
}
