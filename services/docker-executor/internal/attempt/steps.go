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

// holdPipes has transfer hold the named pipes as well, so that the container
// does not notice when this executor dies.
func (a *Attempt) holdPipes(ctx context.Context) {
	if len(a.plan.pipes) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, holdPatience)
	defer cancel()
	_, err := a.step(ctx, contracts.Step{
		Version: contracts.Version, Job: a.folder.Job, Attempt: a.folder.Attempt, Step: string(contracts.StepHold),
		Kind: contracts.StepHold, Folder: a.folder.Relative(), Pipes: a.plan.pipes,
	})
	if err != nil {
		a.log.Info().Err(err).Msg("named pipes are held by this executor alone, going on")
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
	for i := a.pushed; i < len(a.plan.outputs); i++ {
		result, err := a.step(ctx, a.plan.outputs[i])
		if err != nil {
			return err
		}
		if err := a.append(lifetime, &contracts.Pushed{Index: i, Files: result.Files}); err != nil {
			return err
		}
		a.outputs = append(a.outputs, result.Files...)
	}
	return nil
}

// step asks the node's transfer for a step and waits for its result. Asking
// again is harmless, so it does until there is an answer.
func (a *Attempt) step(ctx context.Context, step contracts.Step) (*contracts.StepResult, error) {
	body, err := json.Marshal(step)
	if err != nil {
		return nil, fmt.Errorf("step %s: %w", step.Step, err)
	}
	done := make(chan struct{}, 1)
	stop, err := a.tools.Bus.OnNotes(step.Job, func(note *contracts.Note) {
		if isDone(note, &step) {
			select {
			case done <- struct{}{}:
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
		if time.Since(asked) >= askAgain {
			if err := a.tools.Bus.PublishOnce(ctx, subject, body); err != nil {
				return nil, err
			}
			asked = time.Now()
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-done:
		case <-time.After(lookAgain):
		}
	}
}

// isDone reports whether a note says that the step is done.
func isDone(note *contracts.Note, step *contracts.Step) bool {
	if note.Type != contracts.NoteTransfer || note.Attempt != step.Attempt {
		return false
	}
	var transfer contracts.TransferNote
	return json.Unmarshal(note.Data, &transfer) == nil && transfer.ID == step.Step && transfer.Done
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
