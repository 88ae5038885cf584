package attempt

import (
	"cmp"
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

// stageIn has transfer bring all inputs, and returns the results by step. tell is
// told how far that is.
func (a *Attempt) stageIn(ctx context.Context, tell func(contracts.Phase)) (map[string]*contracts.StepResult, error) {
	results := make([]*contracts.StepResult, len(a.plan.inputs))
	moving := inputs(a.plan.inputs, tell)
	group, ctx := errgroup.WithContext(ctx)
	for i, step := range a.plan.inputs {
		group.Go(func() error {
			var err error
			results[i], err = a.moveStep(ctx, step, moving)
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
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(a.tools.HoldPatience, holdPatience))
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
	moving := outputs(len(a.plan.outputs), a.notes.Phase)
	a.notes.Phase(contracts.Phase{Phase: contracts.PhasePushingOutput})
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if !a.pushing {
		if err := a.append(lifetime, &contracts.Pushing{}); err != nil {
			return err
		}
	}
	a.recall(moving)
	for i := a.pushed; i < len(a.plan.outputs); i++ {
		moving.begin(a.plan.outputs[i].Step)
		result, err := a.moveStep(ctx, a.plan.outputs[i], moving)
		if err != nil {
			return fmt.Errorf("outputs[%d]: %w", i, err)
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

// recall takes in the results of the outputs that a former owner saw pushed: the
// job's life has neither their warnings nor how much was moved.
func (a *Attempt) recall(moving *transfers) {
	for _, step := range a.plan.outputs[:min(a.pushed, len(a.plan.outputs))] {
		if result, err := a.folder.StepResult(step.Step); err == nil && result != nil {
			a.warnings = append(a.warnings, result.Warnings...)
			moving.begin(step.Step)
			moving.end(step.Step, result)
		}
	}
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
	wanted := a.wantedArtifacts()
	moving := outputs(len(wanted), a.notes.Phase)
	for _, i := range wanted {
		a.notes.Phase(contracts.Phase{Phase: contracts.PhasePushingOutput})
		moving.begin(a.plan.outputs[i].Step)
		result, err := a.moveStep(pushing, a.plan.outputs[i], moving)
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

// wantedArtifacts are the indexes of the outputs that are attached also after a
// failure, and are not in Girder yet.
func (a *Attempt) wantedArtifacts() []int {
	var wanted []int
	for i, output := range a.task.Outputs {
		artifact, is := output.OutputSpec.(*contracts.GirderJobArtifact)
		if is && artifact.UploadOnException && i >= a.pushed {
			wanted = append(wanted, i)
		}
	}
	return wanted
}

// step asks the node's transfer for a step and waits for its result.
func (a *Attempt) step(ctx context.Context, step contracts.Step) (*contracts.StepResult, error) {
	return a.ask(ctx, step, func() bool { return false }, func(*contracts.TransferNote) {})
}

// moveStep does the same with a step of a phase, which also tells where no
// transfer is there to do it.
func (a *Attempt) moveStep(ctx context.Context, step contracts.Step, moving *transfers) (*contracts.StepResult, error) {
	heard, stop := unanswered(&step, moving.hear)
	defer stop()
	return a.follows(ctx, step, moving, heard)
}

// follows waits for the result of a step of a phase.
func (a *Attempt) follows(ctx context.Context, step contracts.Step, moving *transfers, hear func(*contracts.TransferNote)) (*contracts.StepResult, error) {
	result, err := a.ask(ctx, step, func() bool { return false }, hear)
	if err == nil {
		moving.end(step.Step, result)
	}
	return result, err
}

// ask asks the node's transfer for a step and waits for its result, or until
// ready is true, whatever comes first. Asking again is harmless, so it does until
// there is an answer. hear is told what transfer says of it meanwhile.
func (a *Attempt) ask(ctx context.Context, step contracts.Step, ready func() bool, hear func(*contracts.TransferNote)) (*contracts.StepResult, error) {
	body, err := json.Marshal(step)
	if err != nil {
		return nil, fmt.Errorf("step %s: %w", step.Step, err)
	}
	news := make(chan struct{}, 1)
	stop, err := a.tools.Bus.OnNotes(step.Job, func(note *contracts.Note) {
		transfer := transferOf(note, &step)
		if transfer == nil {
			return
		}
		hear(transfer)
		if transfer.Done || step.Kind == contracts.StepStream { // it is done, or has begun
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

// transferOf returns what a note says of a step, nil for one that is about
// something else.
func transferOf(note *contracts.Note, step *contracts.Step) *contracts.TransferNote {
	if note.Type != contracts.NoteTransfer || note.Attempt != step.Attempt {
		return nil
	}
	transfer := new(contracts.TransferNote)
	if json.Unmarshal(note.Data, transfer) != nil || transfer.ID != step.Step {
		return nil
	}
	return transfer
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
