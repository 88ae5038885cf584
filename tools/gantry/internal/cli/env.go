package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats.go"

	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/tools/gantry/internal/datadir"
	"github.com/gantry-worker/gantry/tools/gantry/internal/show"
)

// Globals are the flags of every command.
type Globals struct {
	Data string        `help:"Data folder of 'gantry up', by which the other commands find it (default: ~/.local/share/gantry, /var/lib/gantry for root)." env:"GANTRY_DATA" placeholder:"DIR"`
	NATS client.Config `embed:"" prefix:"nats-" group:"NATS, instead of the server that the data folder names"`
}

// defaultURL is where a server is looked for that nothing names.
const defaultURL = "nats://127.0.0.1:4222"

// Joins reports whether the flags name a server.
func (g *Globals) Joins() bool { return g.NATS.URL != "" }

// Server returns how to reach the server that the flags name, else the one that
// the data folder names.
func (g *Globals) Server() (client.Config, error) {
	cfg := g.NATS
	cfg.Name = "gantry"
	if g.Joins() {
		return cfg, nil
	}
	folder, err := datadir.Resolve(g.Data)
	if err != nil {
		return cfg, err
	}
	found, err := datadir.Find(folder)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		cfg.URL = defaultURL
	case errors.Is(err, fs.ErrPermission):
		return cfg, fmt.Errorf("%w: run this as the user of 'gantry up', or name a server with --nats-url and --nats-token", err)
	case err != nil:
		return cfg, err
	default:
		found.Name, found.Patience = cfg.Name, cfg.Patience
		cfg = found
	}
	return cfg, nil
}

// Env is what a command works with.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// StdoutTerminal and StderrTerminal say who reads: a person or a program.
	StdoutTerminal, StderrTerminal bool
	// Color allows colors on a terminal.
	Color bool
	// Width returns the terminal's columns.
	Width func() int
	// Signals delivers SIGINT and SIGTERM.
	Signals <-chan os.Signal
	// Release, if not nil, gives signals back to the system: the next one ends
	// the process.
	Release func()
	Globals *Globals
}

// OutStyle is the style for standard output.
func (e *Env) OutStyle() show.Style { return e.style(e.StdoutTerminal) }

// ErrStyle is the style for standard error.
func (e *Env) ErrStyle() show.Style { return e.style(e.StderrTerminal) }

func (e *Env) style(terminal bool) show.Style {
	if !terminal {
		return show.Style{}
	}
	return show.Style{Color: e.Color, Width: e.Width()}
}

// notice tells the person at the terminal something beside the output.
func (e *Env) notice(format string, args ...any) {
	fmt.Fprintf(e.Stderr, "gantry: "+format+"\n", args...)
}

// printJSON prints a value for programs.
func (e *Env) printJSON(value any) error {
	data, err := json.Marshal(value, json.Deterministic(true), jsontext.WithIndent("  "), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return e.print(string(data) + "\n")
}

// print prints text.
func (e *Env) print(text string) error {
	_, err := io.WriteString(e.Stdout, text)
	return err
}

// ErrSignaled is the cause of a context that a signal ended. To errors.Is it is
// also a context.Canceled, as the context's own error would be.
var ErrSignaled error = signaled{}

type signaled struct{}

func (signaled) Error() string { return "interrupted" }

func (signaled) Is(target error) bool { return target == context.Canceled }

// UntilSignal returns a context that the first signal ends, and a function that
// stops listening for it. A second signal ends the process.
func (e *Env) UntilSignal(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-e.Signals:
			if e.Release != nil {
				e.Release()
			}
			cancel(ErrSignaled)
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-ended
	}
}

// Connect connects to the server. What can go wrong is told in a sentence that
// says what to do.
func (e *Env) Connect(ctx context.Context) (*client.Client, error) {
	cfg, err := e.Globals.Server()
	if err != nil {
		return nil, err
	}
	c, err := client.Connect(ctx, cfg)
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired):
		return nil, fmt.Errorf("the NATS server at %s does not accept these credentials: give --nats-token, --nats-creds or others, or the --data folder of its 'gantry up'", client.WithoutUserInfo(cfg.URL))
	case errors.Is(err, client.ErrUnreachable):
		return nil, fmt.Errorf("no Gantry answers at %s: start one with 'gantry up', or name one with --nats-url%s", client.WithoutUserInfo(cfg.URL), reason(err))
	}
	return c, err
}

// reason is what an error adds to the fact that nobody answers.
func reason(err error) string {
	if errors.Is(err, nats.ErrNoServers) || errors.Is(err, nats.ErrTimeout) {
		return ""
	}
	return " (" + client.WithoutUserInfo(err.Error()) + ")"
}

// now is the time that ages are counted from.
func now() time.Time { return time.Now() }
