package cli

import (
	"context"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/gantry-worker/gantry/contracts"
)

// Run is `gantry run`.
type Run struct {
	Specification

	Progress Progress `help:"How to show progress: auto (a bar on a terminal, else nothing), plain (lines), none." enum:"auto,plain,none" default:"auto"`
	Detach   bool     `short:"d" help:"Print the job's id and do not wait."`
	DryRun   bool     `help:"Print the task's specification as it would be published, tokens included, and do nothing."`
}

// Help is the long help.
func (*Run) Help() string {
	return `The container's standard output and error come out here, byte for byte, and its
exit code is this command's. Ctrl-C cancels the job, a second one leaves it.

  gantry run alpine echo hello
  gantry run --girder-url URL --girder-token T --upload out.tif=item:ITEM \
      my/image @file:FILE:in.tif @path:out.tif --progress @progress

` + ExitCodes
}

// Run submits the task and follows it.
func (r *Run) Run(ctx context.Context, env *Env) error {
	task, err := r.Task()
	if err != nil {
		return asGantry(err)
	}
	if r.DryRun {
		return asGantry(env.printTask(task))
	}
	c, err := env.Connect(ctx)
	if err != nil {
		return asGantry(err)
	}
	defer c.Close()
	if _, err := deliver(ctx, c, task); err != nil {
		return asGantry(err)
	}
	if r.Detach {
		return env.print(string(task.ID) + "\n")
	}
	if env.StderrTerminal || r.Progress == ProgressPlain {
		env.notice("job %s", task.ID)
	}
	return env.Attend(ctx, c, task, r.Progress)
}

func (e *Env) printTask(task *contracts.Task) error {
	data, err := task.Encode()
	if err != nil {
		return fmt.Errorf("print task: %w", err)
	}
	value := jsontext.Value(data)
	if err := value.Indent(); err != nil {
		return fmt.Errorf("print task: %w", err)
	}
	return e.print(string(value) + "\n")
}
