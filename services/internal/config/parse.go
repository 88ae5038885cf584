package config

import (
	"errors"
	"io"
	"os"
	"strings"

	"github.com/alecthomas/kong"
)

// ErrDone is returned by Parse when the arguments asked for a text (--help,
// --version, --print-config) and it was printed: there is nothing to run.
var ErrDone = errors.New("done: the text that was asked for is printed")

// builtin holds the flags that every command line of a service has.
type builtin struct {
	Config      string           `help:"Read options from this YAML file." placeholder:"FILE"`
	Version     kong.VersionFlag `help:"Print the version."`
	PrintConfig bool             `help:"Print the effective configuration, secrets masked, and where each value is from."`

	sources *sources
}

// BeforeResolve reads the file before the options that are no flags are looked up.
func (b *builtin) BeforeResolve(ctx *kong.Context) error {
	path := b.sources.env("config")
	for _, p := range ctx.Path {
		if p.Flag != nil && p.Flag.Name == "config" {
			path, _ = ctx.FlagValue(p.Flag).(string)
		}
		if p.Flag != nil {
			b.sources.origin[p.Flag.Name] = "--" + p.Flag.Name
		}
	}
	if path == "" {
		return nil
	}
	return b.sources.readFile(path, ctx.Model.Flags)
}

// Parse fills cfg, a pointer to a configuration struct, and validates it. Name
// and description head the help text; args are the arguments after the
// program's name. Texts that are asked for go to stdout.
//
// The error is ErrDone, or an *Error that lists everything that is wrong with
// the arguments, the file and the configuration.
func Parse(name, description string, cfg any, args []string, stdout io.Writer) (Settings, error) {
	src := newSources(os.Getenv)
	b := &builtin{sources: src}
	printed := false
	parser, err := kong.New(b,
		kong.Name(name),
		kong.Description(description),
		kong.Embed(cfg),
		kong.Resolvers(src),
		kong.Vars{"version": name + " " + Version()},
		kong.Writers(stdout, io.Discard),
		kong.Exit(func(int) { printed = true }),
		kong.ValueFormatter(helpWithEnv),
	)
	if err != nil {
		return nil, err
	}
	kctx, err := parser.Parse(args)
	if printed {
		return nil, ErrDone
	}
	if err := src.report(name, err); err != nil {
		return nil, err
	}
	if err := src.report(name, Validate(cfg)); err != nil {
		return nil, err
	}
	settings := src.settings(kctx.Model.Flags)
	if b.PrintConfig {
		if _, err := io.WriteString(stdout, settings.String()); err != nil {
			return nil, err
		}
		return nil, ErrDone
	}
	return settings, nil
}

// Defaults fills the zero fields of cfg, a pointer to a configuration struct,
// with the defaults of its tags. It reads no flag, environment or file: it is
// for services that are started in-process.
func Defaults(cfg any) error {
	parser, err := kong.New(&struct{}{}, kong.Embed(cfg), kong.NoDefaultHelp())
	if err != nil {
		return err
	}
	for _, flag := range parser.Model.Flags {
		if err := flag.ApplyDefault(); err != nil {
			return err
		}
	}
	return nil
}

// helpWithEnv ends an option's help with the name of its environment variable.
func helpWithEnv(value *kong.Value) string {
	if value.Flag == nil || value.Name == "help" || value.Name == "version" || value.Name == "print-config" {
		return value.Help
	}
	return strings.TrimSpace(value.Help + " [" + envName(value.Name) + "]")
}
