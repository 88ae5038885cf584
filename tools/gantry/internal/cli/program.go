package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// Commands are the commands of this package, for the program to embed.
type Commands struct {
	Run      Run      `cmd:"" help:"Run a container as a task and follow it."`
	Submit   Submit   `cmd:"" help:"Submit a task from a file."`
	Jobs     Jobs     `cmd:"" help:"List, show and cancel jobs."`
	Logs     Logs     `cmd:"" help:"Print a job's log."`
	Workers  Workers  `cmd:"" help:"List the running services."`
	Topology Topology `cmd:"" help:"Show or create the streams in NATS."`
	Dead     Dead     `cmd:"" help:"List and show submissions that were refused."`
	Version  Version  `cmd:"" help:"Print the version."`
}

const description = `Run containers as tasks for Girder. 'gantry up' starts everything on this machine; the other commands find it by its data folder, or a Gantry elsewhere by --nats-url.

` + ExitCodes

// Execute parses the arguments into the model, a pointer to a struct of
// commands that embeds globals, runs the command and returns the exit code.
func Execute(model any, globals *Globals, args []string, env *Env) int {
	code, printed := ExitOK, false
	parser, err := kong.New(model,
		kong.Name("gantry"),
		kong.Description(description),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.Writers(env.Stdout, io.Discard),
		kong.Exit(func(c int) { code, printed = c, true }),
		kong.BindTo(context.Background(), (*context.Context)(nil)),
		kong.Bind(env),
		natsFlags(),
	)
	if err != nil {
		return Report(env.Stderr, err)
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err := parser.Parse(args)
	if printed {
		return code
	}
	if err != nil {
		return Report(env.Stderr, usageError(err))
	}
	env.Globals = globals
	return Report(env.Stderr, command.Run())
}

// natsFlags completes the flags --nats-…: each has its variable GANTRY_NATS_…,
// the URL has no default, since the data folder may name one, and --nats is
// short for --nats-url.
func natsFlags() kong.Option {
	return kong.PostBuild(func(k *kong.Kong) error {
		for _, flag := range k.Model.Flags {
			if !strings.HasPrefix(flag.Name, "nats-") {
				continue
			}
			variable := "GANTRY_" + strings.ToUpper(strings.ReplaceAll(flag.Name, "-", "_"))
			flag.Envs = []string{variable}
			flag.Tag.Envs = flag.Envs
			if flag.Name == "nats-url" {
				flag.HasDefault, flag.Default = false, ""
				flag.Aliases = append(flag.Aliases, "nats")
			}
		}
		return nil
	})
}

// usageError returns the error of wrong usage with its exit code: for `gantry
// run` that of Gantry's own errors, since 2 could be the task's.
func usageError(err error) error {
	var parse *kong.ParseError
	if !errors.As(err, &parse) || parse.Context == nil {
		return &Exit{Code: ExitUsage, Err: err}
	}
	command, code := firstWords(parse.Context.Command()), ExitUsage
	if command == "run" {
		code = ExitGantry
	}
	if file, is := strings.CutPrefix(err.Error(), "unexpected argument "); is && command == "submit" {
		file, _, _ = strings.Cut(file, ",") // what follows is a guess at what was meant
		err = fmt.Errorf("unexpected argument %s: use -f %s", file, file)
	}
	help := strings.Join(strings.Fields("gantry "+command+" --help"), " ")
	return &Exit{Code: code, Err: fmt.Errorf("%w: see '%s'", err, help)}
}

// firstWords returns a command without its arguments.
func firstWords(command string) string {
	words := strings.Fields(command)
	for i, word := range words {
		if strings.HasPrefix(word, "<") || strings.HasPrefix(word, "[") {
			return strings.Join(words[:i], " ")
		}
	}
	return strings.Join(words, " ")
}
