package lifecycle

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/services/internal/telemetry"
)

type testConfig struct {
	telemetry.Settings

	Slots int    `help:"Slots." default:"2"`
	Token string `help:"Token." secret:""`
}

// asService names, in the environment of a child process, the run function
// that the test binary then starts as a service.
const asService = "LIFECYCLE_TEST_SERVICE"

var services = map[string]func(context.Context, testConfig) error{
	"stops": func(ctx context.Context, _ testConfig) error {
		fmt.Println("ready")
		<-ctx.Done()
		return fmt.Errorf("consume: %w", ctx.Err())
	},
	"hangs": func(ctx context.Context, _ testConfig) error {
		fmt.Println("ready")
		<-ctx.Done()
		fmt.Println("stopping:", context.Cause(ctx))
		select {} // a service that does not come to its end
	},
	"fails while stopping": func(ctx context.Context, _ testConfig) error {
		fmt.Println("ready")
		<-ctx.Done()
		return errors.New("flush log: disk full")
	},
}

func TestMain(m *testing.M) {
	for _, variable := range os.Environ() { // what whoever runs the tests has set for services
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "GANTRY_") {
			_ = os.Unsetenv(name) // it is the name of a variable
		}
	}
	if run, ok := services[os.Getenv(asService)]; ok {
		Main("tester", "Is a test.", run)
	}
	os.Exit(m.Run())
}

// child starts the test binary as a service and returns once it is ready.
func child(t *testing.T, service string) (*exec.Cmd, *bufio.Scanner, *bytes.Buffer) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0]) // it ends with a test that fails
	cmd.Env = append(os.Environ(), asService+"="+service)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	expect(t, lines, "ready")
	return cmd, lines, &stderr
}

func expect(t *testing.T, lines *bufio.Scanner, want string) {
	t.Helper()
	if !lines.Scan() || lines.Text() != want {
		t.Fatalf("got %q, want %q", lines.Text(), want)
	}
}

func send(t *testing.T, cmd *exec.Cmd, sig syscall.Signal) {
	t.Helper()
	if err := cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

func TestSignalStopsService(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		cmd, _, stderr := child(t, "stops")
		send(t, cmd, sig)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", sig, err)
		}
		if want := `"cause":"` + sig.String() + ` signal received","`; !strings.Contains(stderr.String(), want) {
			t.Errorf("%s is not in: %s", want, stderr)
		}
	}
}

func TestSecondSignalExitsAtOnce(t *testing.T) {
	t.Parallel()
	cmd, lines, _ := child(t, "hangs")
	send(t, cmd, syscall.SIGTERM)
	expect(t, lines, "stopping: terminated signal received")
	send(t, cmd, syscall.SIGINT)
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 128+int(syscall.SIGINT) {
		t.Errorf("got %v, want exit code 130", err)
	}
}

func TestErrorWhileStoppingIsReported(t *testing.T) {
	t.Parallel()
	cmd, _, stderr := child(t, "fails while stopping")
	send(t, cmd, syscall.SIGTERM)
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != ExitFailed {
		t.Errorf("got %v, want exit code %d", err, ExitFailed)
	}
	if !strings.Contains(stderr.String(), "disk full") {
		t.Errorf("got %s", stderr)
	}
}

// call runs the service's main in this process.
func call(run func(context.Context, testConfig) error, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	p := program[testConfig]{name: "tester", description: "Is a test.", run: run, stdout: &out, stderr: &errs}
	code = p.main(args)
	return code, out.String(), errs.String()
}

func TestRunGetsConfigurationAndLogger(t *testing.T) {
	code, _, log := call(func(ctx context.Context, cfg testConfig) error {
		zerolog.Ctx(ctx).Info().Int("slots", cfg.Slots).Msg("hello")
		return nil
	}, "--slots=5", "--log-level=debug", "--token=hunter2")
	if code != ExitOK {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{`"service":"tester","slots":5`, `"message":"effective configuration"`, `"token":"***"`, `"message":"stopped"`} {
		if !strings.Contains(log, want) {
			t.Errorf("%s is not in: %s", want, log)
		}
	}
	if strings.Contains(log, "hunter2") {
		t.Errorf("a secret is in: %s", log)
	}
}

func TestExitCodes(t *testing.T) {
	fails := func(context.Context, testConfig) error { return fmt.Errorf("connect: %w", context.Canceled) }
	never := func(context.Context, testConfig) error { panic("started") }
	tests := []struct {
		name           string
		run            func(context.Context, testConfig) error
		args           []string
		code           int
		stdout, stderr string
	}{
		{name: "fails before any signal", run: fails, code: ExitFailed, stderr: "connect: context canceled"},
		{name: "bad option", run: never, args: []string{"--slots=x"}, code: ExitUsage, stderr: "tester: --slots: "},
		{name: "help", run: never, args: []string{"--help"}, code: ExitOK, stdout: "Is a test."},
		{name: "version", run: never, args: []string{"--version"}, code: ExitOK, stdout: "tester "},
		{name: "health check without address", run: never, args: []string{"healthcheck"}, code: ExitUsage, stderr: "GANTRY_HEALTH_ADDRESS"},
		{name: "health check of nobody", run: never, args: []string{"healthcheck", "--health-address=127.0.0.1:0"}, code: ExitFailed, stderr: "127.0.0.1:0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := call(tt.run, tt.args...)
			if code != tt.code || !strings.Contains(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) {
				t.Errorf("got %d, stdout %q, stderr %q", code, stdout, stderr)
			}
		})
	}
}

func TestHealthcheck(t *testing.T) {
	health := telemetry.NewHealth()
	server := httptest.NewServer(health.Handler())
	defer server.Close()
	address := "--health-address=" + server.Listener.Addr().String()

	if code, _, stderr := call(nil, "healthcheck", address); code != ExitOK {
		t.Errorf("ready: exit code %d, %s", code, stderr)
	}
	health.Register("nats", func(context.Context) error { return errors.New("disconnected") })
	if code, _, stderr := call(nil, "healthcheck", address); code != ExitFailed || !strings.Contains(stderr, "disconnected") {
		t.Errorf("not ready: exit code %d, %s", code, stderr)
	}
	if code, _, stderr := call(nil, "livecheck", address); code != ExitOK {
		t.Errorf("alive, not ready: exit code %d, %s", code, stderr)
	}
	server.Close()
	if code, _, _ := call(nil, "livecheck", address); code != ExitFailed {
		t.Errorf("gone: exit code %d", code)
	}
}
