package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
)

// Exit codes. `gantry run` and `gantry submit --wait` exit with the task's own
// code where it has one.
const (
	ExitOK     = 0
	ExitFailed = 1
	ExitUsage  = 2
	// ExitTimeout: a task that ran too long, or expired before it ran.
	ExitTimeout = 124
	// ExitGantry: the task has no exit code of its own, as it never ran, was
	// lost, or failed before or after its container.
	ExitGantry = 125
	// ExitCanceled: canceled, or left by Ctrl-C.
	ExitCanceled = 130
)

// ExitCodes explains them in --help.
const ExitCodes = `Exit codes of run and submit --wait: the task's own; 124 it ran too long or expired; ` +
	`125 Gantry's own error (no server, no such image, a lost worker, a refused upload); 130 canceled. ` +
	`Of the other commands: 0 done; 1 not done; 2 wrong usage.`

// Exit is an error that ends the program with a code. Err is nil where there is
// nothing more to say.
type Exit struct {
	Code int
	Err  error
}

func (e *Exit) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

func (e *Exit) Unwrap() error { return e.Err }

// exitOf returns the exit code of a job that ended.
func exitOf(end *contracts.Entry) int {
	switch data := end.Data.(type) {
	case *contracts.Succeeded:
		return data.ExitCode
	case *contracts.Canceled:
		return ExitCanceled
	case *contracts.Failed:
		switch {
		case data.Kind == contracts.FailureTimeout, data.Kind == contracts.FailureExpired:
			return ExitTimeout
		case data.Kind == contracts.FailureTask && data.ExitCode != nil && *data.ExitCode != 0:
			return *data.ExitCode
		}
	}
	return ExitGantry
}

// asGantry gives an error without an exit code the one of Gantry's own errors.
func asGantry(err error) error {
	var exit *Exit
	if err == nil || errors.As(err, &exit) {
		return err
	}
	return &Exit{Code: ExitGantry, Err: err}
}

// Report says what an error means, and returns the exit code.
func Report(stderr io.Writer, err error) int {
	if err == nil {
		return ExitOK
	}
	code := ExitFailed
	var exit *Exit
	if errors.As(err, &exit) {
		code = exit.Code
		if exit.Err == nil {
			return code
		}
		err = exit.Err
	}
	if errors.Is(err, context.Canceled) {
		return ExitCanceled
	}
	fmt.Fprintln(stderr, "gantry: "+explain(err))
	return code
}

// explain turns an error into a sentence that says what to do.
func explain(err error) string {
	var invalid *contracts.InvalidTaskError
	switch {
	case errors.As(err, &invalid):
		lines := make([]string, len(invalid.Problems))
		for i, problem := range invalid.Problems {
			lines[i] = "  " + problem.Error()
		}
		return "the task cannot be accepted:\n" + strings.Join(lines, "\n")
	case errors.Is(err, client.ErrNobodyAnswers):
		return "NATS answers, but no job-tracker or dispatcher does: start them, or all of Gantry with 'gantry up'"
	case errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, jetstream.ErrBucketNotFound), errors.Is(err, jetstream.ErrNoStreamResponse):
		return "this NATS server has no streams of Gantry yet: start the dispatcher, or run 'gantry topology apply'"
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return "this NATS server has no JetStream: start it with JetStream, or use 'gantry up'"
	case errors.Is(err, nats.ErrConnectionClosed):
		return "the connection to NATS was closed"
	default:
		return err.Error()
	}
}
