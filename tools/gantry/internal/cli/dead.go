package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/tools/gantry/internal/show"
)

// Dead is `gantry dead`.
type Dead struct {
	Ls   DeadLs   `cmd:"" default:"withargs" help:"List submissions that were refused, the newest first."`
	Show DeadShow `cmd:"" help:"Show one of them."`
}

// DeadLs is `gantry dead ls`.
type DeadLs struct {
	Limit int  `help:"At most so many." default:"50"`
	JSON  bool `name:"json" help:"Print JSON."`
}

// Run lists dead letters.
func (l *DeadLs) Run(ctx context.Context, env *Env) error {
	return env.query(ctx, func(ctx context.Context, c *client.Client) error {
		letters, err := c.DeadLetters(ctx, l.Limit)
		if err != nil {
			return err
		}
		if l.JSON {
			return env.printJSON(letters)
		}
		return env.print(show.DeadLetters(letters, now(), env.OutStyle()))
	})
}

// DeadShow is `gantry dead show`.
type DeadShow struct {
	Seq  uint64 `arg:"" name:"seq" help:"Its number in 'gantry dead ls'."`
	JSON bool   `name:"json" help:"Print JSON."`
}

// Run shows one dead letter.
func (s *DeadShow) Run(ctx context.Context, env *Env) error {
	return env.query(ctx, func(ctx context.Context, c *client.Client) error {
		letter, err := c.DeadLetter(ctx, s.Seq)
		var refused *contracts.RequestError
		if errors.As(err, &refused) && refused.Code == contracts.CodeNotFound {
			return fmt.Errorf("there is no dead letter %d: 'gantry dead ls' lists them", s.Seq)
		}
		if err != nil {
			return err
		}
		if s.JSON {
			return env.printJSON(letter)
		}
		return env.print(show.DeadLetter(letter, now(), env.OutStyle()))
	})
}
