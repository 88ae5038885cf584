package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/tools/gantry/internal/show"
)

// Logs is `gantry logs`.
type Logs struct {
	ID     string `arg:"" name:"id" help:"The job's id."`
	Follow bool   `short:"f" help:"Go on until the job has ended."`
}

// Help is the long help.
func (*Logs) Help() string {
	return "The log's bytes go to where the container wrote them: standard output or error. The\nreason of a failure comes last, on standard error."
}

// Run prints a job's log.
func (l *Logs) Run(ctx context.Context, env *Env) error {
	id, err := jobID(l.ID)
	if err != nil {
		return err
	}
	return env.query(ctx, func(ctx context.Context, c *client.Client) error {
		life, err := c.Life(ctx, id)
		if err != nil && (!errors.Is(err, client.ErrNoJob) || !l.Follow) {
			return noJob(err, id)
		}
		if len(life) == 0 {
			env.notice("no job has the id %s yet: waiting for it", id)
		}
		for chunk, err := range c.Log(ctx, id, l.Follow) {
			if err != nil {
				return err
			}
			if err := env.writeLog(chunk); err != nil {
				return err
			}
		}
		return env.tellEnd(ctx, c, id)
	})
}

func (e *Env) writeLog(chunk *contracts.LogChunk) error {
	out := e.Stdout
	if chunk.Stream == contracts.LogStderr {
		out = e.Stderr
	}
	if _, err := out.Write(chunk.Bytes()); err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	return nil
}

// tellEnd says on standard error how a job ended, unless it succeeded or runs.
func (e *Env) tellEnd(ctx context.Context, c *client.Client, id contracts.JobID) error {
	life, err := c.Life(ctx, id)
	if err != nil {
		return noJob(err, id)
	}
	last := life[len(life)-1]
	if last.Terminal() && last.Type != contracts.EntrySucceeded {
		e.notice("%s", show.End(id, last))
	}
	return nil
}
