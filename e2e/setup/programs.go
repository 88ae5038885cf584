package setup

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The programs, by the names of their files.
const (
	Dispatcher = "dispatcher"
	Executor   = "docker-executor"
	Transfer   = "transfer"
	Tracker    = "job-tracker"
	gantry     = "gantry"
	natsServer = "nats-server"
)

// programs is the folder that [Main] filled or found.
var programs string

// parallel is how many tests run at once, unless -parallel says otherwise: they
// wait for the most part.
const parallel = "12"

// Main runs the tests of a package and returns their exit code. It is for
// TestMain.
func Main(m *testing.M) int {
	said := false
	flag.Parse()
	flag.Visit(func(f *flag.Flag) { said = said || f.Name == "test.parallel" })
	if !said {
		if err := flag.Set("test.parallel", parallel); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	if bin := os.Getenv("GANTRY_BIN"); bin != "" {
		programs = bin
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "gantry-e2e-bin-")
	if err == nil {
		defer os.RemoveAll(dir) //nolint:errcheck // it is temporary
		err = build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build programs:", err)
		return 1
	}
	programs = dir
	return m.Run()
}

func build(dir string) error {
	root, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	steps := [][]string{
		{"build", "-C", root, "-o", dir + "/", "./tools/gantry", "./services/dispatcher", "./services/docker-executor", "./services/transfer", "./services/job-tracker"},
		{"build", "-C", filepath.Join(root, "tools/lint"), "-o", filepath.Join(dir, natsServer), "github.com/nats-io/nats-server/v2"},
	}
	for i, args := range steps {
		command := exec.Command("go", args...)
		command.Env = append(os.Environ(), "CGO_ENABLED=0")
		if i == 1 { // outside the workspace: its version is that of the lint module
			command.Env = append(command.Env, "GOWORK=off")
		}
		command.Stdout, command.Stderr = os.Stderr, os.Stderr
		if err := command.Run(); err != nil {
			return fmt.Errorf("go %v: %w", args, err)
		}
	}
	return nil
}

func program(name string) string { return filepath.Join(programs, name) }
