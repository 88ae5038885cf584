// Gantry is the command line: it runs all of Gantry in one process, submits
// tasks, follows them, and shows what runs, waits, and was refused.
package main

import (
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/mattn/go-isatty"
	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/services/docker-executor/removetree"
	"github.com/gantry-worker/gantry/tools/gantry/internal/cli"
)

type program struct {
	cli.Globals
	Up Up `cmd:"" help:"Run all of Gantry, with an embedded NATS server, in this process."`
	cli.Commands
	Demo Demo `cmd:"" help:"Run one real task from end to end, with everything that it needs, and show it."`
}

func main() {
	removetree.Main() // this program put into a container by the executor in it
	dropEmptyVariables()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	var p program
	os.Exit(cli.Execute(&p, &p.Globals, os.Args[1:], &cli.Env{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		StdoutTerminal: isatty.IsTerminal(os.Stdout.Fd()),
		StderrTerminal: isatty.IsTerminal(os.Stderr.Fd()),
		Color:          os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb",
		Width:          terminalWidth,
		Signals:        signals,
		Release:        func() { signal.Stop(signals) },
	}))
}

// dropEmptyVariables makes an empty variable count as unset, so that scripts can
// pass optional ones on.
func dropEmptyVariables() {
	for _, variable := range os.Environ() {
		if name, value, _ := strings.Cut(variable, "="); value == "" && strings.HasPrefix(name, "GANTRY_") {
			_ = os.Unsetenv(name) // cannot fail for a name that is set
		}
	}
}

const defaultWidth = 80

// terminalWidth is the width of the terminal at standard error or output.
func terminalWidth() int {
	for _, file := range []*os.File{os.Stderr, os.Stdout} {
		if size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
			return int(size.Col)
		}
	}
	return defaultWidth
}
