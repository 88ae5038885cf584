package docker

import (
	"context"
	"errors"
	"strings"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// The exit codes of whoever was to run a program and could not: it is missing,
// or may not be executed.
const (
	codeMissing       = 127
	codeNotExecutable = 126
)

// cannotStart makes the error of a Start say which program of which image it is
// about, where it is about that.
func (e *Engine) cannotStart(ctx context.Context, id string, err error) error {
	refused := (*engine.Error)(nil)
	if !errors.As(err, &refused) || refused.Kind != engine.ErrCannotStart {
		return err
	}
	found, inspectErr := e.inspect(ctx, id)
	if inspectErr != nil || found.ContainerJSONBase == nil || found.Config == nil {
		return err
	}
	code, ok := cannotExec(refused.Detail, found.Path)
	if !ok {
		return err
	}
	named := *refused
	named.Detail += ". " + strings.TrimSuffix(engine.NotRun(found.Path, found.Config.Image, code), ".")
	return &named
}

// errEnough ends the reading of a log.
var errEnough = errors.New("enough was read")

// withNotRun adds to an exit the program that the container's init could not
// run, which only init's own words tell: all that such a container ever says. A
// program may well end with the same codes.
func (e *Engine) withNotRun(ctx context.Context, id string, exit engine.Exit) engine.Exit {
	if exit.Code != codeMissing && exit.Code != codeNotExecutable {
		return exit
	}
	var said [][]byte
	_, err := e.Logs(ctx, id, engine.Both, engine.Position{}, func(f engine.Frame) error {
		said = append(said, append([]byte(nil), f.Data...))
		if len(said) > 1 {
			return errEnough
		}
		return nil
	})
	if err == nil && len(said) == 1 {
		exit.NotRun = notRunByInit(string(said[0]))
	}
	return exit
}
