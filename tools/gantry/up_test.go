package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/gantry-worker/gantry/contracts/client/testport"
	"github.com/gantry-worker/gantry/tools/gantry/internal/cli"
	"github.com/gantry-worker/gantry/tools/gantry/internal/datadir"
	"github.com/gantry-worker/gantry/tools/gantry/internal/imageimport/enginetest"
	"github.com/gantry-worker/gantry/tools/gantry/internal/local"
)

// output is a buffer that a command writes while a test reads it.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
	// ready is closed when the text contains the mark.
	mark  string
	ready chan struct{}
}

func newOutput(mark string) *output { return &output{mark: mark, ready: make(chan struct{})} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := strings.Contains(o.text.String(), o.mark)
	n, err := o.text.Write(p)
	if !before && strings.Contains(o.text.String(), o.mark) {
		close(o.ready)
	}
	return n, err
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// execute runs a command line with the signals and returns its exit code.
func execute(stdout, stderr *output, signals chan os.Signal, args ...string) int {
	var p program
	p.NATS.Patience = patience
	return cli.Execute(&p, &p.Globals, args, &cli.Env{
		Stdin: strings.NewReader(""), Stdout: stdout, Stderr: stderr, StderrTerminal: true, Signals: signals, Width: func() int { return 80 },
	})
}

func TestUp(t *testing.T) {
	t.Parallel()
	enginetest.Need(t)
	data := t.TempDir()
	signals := make(chan os.Signal, 1)
	stdout, stderr := newOutput("Gantry is ready."), newOutput("never")
	ended := make(chan int, 1)
	go func() {
		ended <- execute(stdout, stderr, signals, "up", "--data", data, fmt.Sprintf("--nats-port=%d", testport.Reserve(t)), "--girder-sim=127.0.0.1:0", "--slots=3", "--log-level=warn")
	}()
	select {
	case <-stdout.ready:
	case code := <-ended:
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	for _, want := range []string{"docker-executor (3 slots, queue default)", "nats://127.0.0.1:", "girder-sim, user demo", "gantry --data " + data + " run"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("%q is not in %q", want, stdout)
		}
	}

	said, refused := newOutput("never"), newOutput("never")
	if code := execute(said, refused, nil, "up", "--data", data, "--nats-port=0"); code != 1 || !strings.Contains(refused.String(), "another 'gantry up' uses "+data) {
		t.Errorf("second up: exit code %d, %q", code, refused)
	}
	awaitWorkers(t, data, "0 of 3")
	found, err := datadir.Find(data)
	if err != nil {
		t.Fatal(err)
	}
	found.Patience = patience
	runs := make(chan local.Running, 1)
	runs <- local.Running{NATS: found}
	if n := running(t.Context(), local.Config{}, runs); n != 0 {
		t.Errorf("%d containers run", n)
	}

	signals <- syscall.SIGTERM
	if code := <-ended; code != 0 || !strings.Contains(stderr.String(), "gantry: stopping") || !strings.Contains(stderr.String(), "once more quits at once") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if code := execute(said, refused, nil, "workers", "--data", data); code != 1 || !strings.Contains(refused.String(), "no Gantry answers at nats://127.0.0.1:") {
		t.Errorf("workers after the end: exit code %d, %q", code, refused)
	}
}

// patience is how long one thing may take on a slow machine.
const patience = 5 * time.Minute

// awaitWorkers returns when 'gantry workers' says the words: services are ready a
// moment before everybody knows of them.
func awaitWorkers(t *testing.T, data, words string) {
	t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(patience); ; <-ticker.C {
		said, refused := newOutput("never"), newOutput("never")
		code := execute(said, refused, nil, "workers", "--data", data)
		if code == 0 && strings.Contains(said.String(), words) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("workers: exit code %d, %q, %q", code, said, refused)
		}
	}
}

func TestUpSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"slots: must be 1 or more, is 0": {"--slots=0"},
		"queues":                         {"--queues=No Such Name"},
		"--log-level":                    {"--log-level=loud"},
	} {
		stdout, stderr := newOutput("never"), newOutput("never")
		code := execute(stdout, stderr, nil, append([]string{"up", "--data", t.TempDir(), "--nats-port=0"}, args...)...)
		if code == 0 || !strings.Contains(stderr.String(), want) {
			t.Errorf("%q: exit code %d, %q", args, code, stderr)
		}
	}
}

func TestUpNamesTheFlagForATakenAddress(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	stdout, stderr := newOutput("never"), newOutput("never")
	code := execute(stdout, stderr, nil, "up", "--data", t.TempDir(), "--nats-port=0", "--girder-sim="+taken.Addr().String())
	want := taken.Addr().String() + " is taken, perhaps by another girder-sim: choose another with --girder-sim=HOST:PORT"
	if code != 1 || !strings.Contains(stderr.String(), want) {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}

func TestUpHelpNamesWhatTasksMayUse(t *testing.T) {
	t.Parallel()
	stdout, stderr := newOutput("never"), newOutput("never")
	if code := execute(stdout, stderr, nil, "up", "--help"); code != 0 {
		t.Errorf("exit code %d, %q", code, stderr)
	}
	for _, want := range []string{"GANTRY_ALLOW_BIND", "GANTRY_ALLOW_IMAGES", "GANTRY_ALLOW_OPTIONS", "GANTRY_CACHE_SIZE (transfer)", "GANTRY_POLICY (docker-executor)", "strict, nothing more"} {
		if !strings.Contains(strings.Join(strings.Fields(stdout.String()), " "), want) { // however it is wrapped
			t.Errorf("%s is not in %s", want, stdout)
		}
	}
}

func TestMissingEngine(t *testing.T) {
	t.Parallel()
	socket := "unix://" + filepath.Join(t.TempDir(), "docker.sock")
	if got := missingEngine(t.Context(), socket); got != socket {
		t.Errorf("nobody there: %q", got)
	}
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/_ping" {
			http.NotFound(w, r)
		}
	}))
	defer engine.Close()
	for _, host := range []string{"tcp://" + engine.Listener.Addr().String(), "ssh://elsewhere"} {
		if got := missingEngine(t.Context(), host); got != "" {
			t.Errorf("%s: %q", host, got)
		}
	}
}

func TestGirderSimFlag(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, want string }{
		{"", ""}, {"--girder-sim", defaultSimAddr}, {"--girder-sim=127.0.0.1:9", "127.0.0.1:9"}, {"--girder-sim=false", ""}, {"--girder-sim=yes", defaultSimAddr},
	} {
		if got := parseUp(t, c.args).GirderSim.Addr; got != c.want {
			t.Errorf("%q: got %q, want %q", c.args, got, c.want)
		}
	}
	if up := parseUp(t, "--fsync=false"); up.Fsync {
		t.Error("--fsync=false left it on")
	}
	if up := parseUp(t, ""); !up.Fsync || up.NATSPort != 4222 || up.Slots != 2 {
		t.Errorf("defaults are %+v", up)
	}
}

func parseUp(t *testing.T, arg string) Up {
	t.Helper()
	var up Up
	parser, err := kong.New(&up)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(strings.Fields(arg)); err != nil {
		t.Fatalf("%q: %v", arg, err)
	}
	return up
}
