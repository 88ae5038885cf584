package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/tools/gantry/internal/show"
)

// Logs is `gantry logs`.
type Logs struct {
	ID     string `arg:"" name:"id" help:"The job's id."`
	Follow bool   `short:"f" help:"Go on until the job has ended."`
	Offset int64  `help:"Begin behind so many bytes of the job's log, those of all attempts." placeholder:"BYTES"`
	JSON   bool   `help:"Print one JSON object a piece, with its place, for programs."`
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
	if l.Offset < 0 {
		return &Exit{Code: ExitUsage, Err: fmt.Errorf("--offset: %d is below zero", l.Offset)}
	}
	return env.query(ctx, func(ctx context.Context, c *client.Client) error {
		life, err := c.Life(ctx, id)
		if err != nil && (!errors.Is(err, client.ErrNoJob) || !l.Follow) {
			return noJob(err, id)
		}
		if len(life) == 0 {
			env.notice("no job has the id %s yet: waiting for it", id)
		}
		next := l.Offset
		for piece, err := range c.LogFrom(ctx, id, l.Offset, l.Follow) {
			if err != nil {
				return err
			}
			if piece.Place > next && !l.JSON {
				env.notice("%s", missing(next, piece.Place))
			}
			if err := l.write(env, &piece); err != nil {
				return err
			}
			next = piece.Place + int64(len(piece.Bytes()))
		}
		return env.tellEnd(ctx, c, id)
	})
}

// missing says that a part of a log is not there, from one place to another.
func missing(from, to int64) string {
	return fmt.Sprintf("%d bytes are missing here, from byte %d of the log on: it is longer than its limit", to-from, from)
}

func (l *Logs) write(env *Env, piece *contracts.LogPiece) error {
	if !l.JSON {
		return env.writeLog(&piece.LogChunk)
	}
	line, err := json.Marshal(piece)
	if err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	return env.print(string(line) + "\n")
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

// tellEnd says on standard error what a job warns of and how it ended, unless it
// succeeded or runs.
func (e *Env) tellEnd(ctx context.Context, c *client.Client, id contracts.JobID) error {
	life, err := c.Life(ctx, id)
	if err != nil {
		return noJob(err, id)
	}
	last := life[len(life)-1]
	for _, warning := range show.Warnings(last) {
		e.notice("%s", warning)
	}
	if last.Terminal() && last.Type != contracts.EntrySucceeded {
		e.notice("%s", show.End(id, last))
	}
	return nil
}
