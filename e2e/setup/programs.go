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

// Main runs the tests of a package and returns their exit code, after it has
// closed what they shared. It is for TestMain.
func Main(m *testing.M, shared ...*Shared) int {
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
		return runAll(m, shared)
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
	return runAll(m, shared)
}

func runAll(m *testing.M, shared []*Shared) int {
	code := m.Run()
	for _, s := range shared {
		if !s.close(code == 0) {
			code = max(code, 1)
		}
	}
	return code
}

// Program builds a static program of this module from its folder, such as
// ./program, and returns it.
func Program(t testing.TB, folder string) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "program")
	command := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", file, folder)
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := command.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", folder, err, text)
	}
	program, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return program
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

// ReadProgram returns one of the programs.
func ReadProgram(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(program(name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func program(name string) string { return filepath.Join(programs, name) }
