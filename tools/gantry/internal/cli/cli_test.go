package cli_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/contracts/client/leaktest"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/tools/gantry/internal/cli"
	"github.com/gantry-worker/gantry/tools/gantry/internal/datadir"
	"github.com/gantry-worker/gantry/tools/gantry/internal/natsserver"
)

func TestMain(m *testing.M) {
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "GANTRY_") {
			if err := os.Unsetenv(name); err != nil {
				panic(err)
			}
		}
	}
	leaktest.Main(m)
}

// output is a buffer that a command writes while a test reads it.
type output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	written chan struct{} // closed and replaced by each write
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.written != nil {
		close(o.written)
	}
	o.written = make(chan struct{})
	return o.text.Write(p)
}

// await returns when the text is there.
func (o *output) await(t *testing.T, want string) {
	t.Helper()
	for {
		o.mu.Lock()
		if o.written == nil {
			o.written = make(chan struct{})
		}
		got, written := o.text.String(), o.written
		o.mu.Unlock()
		if strings.Contains(got, want) {
			return
		}
		select {
		case <-written:
		case <-t.Context().Done():
			t.Fatalf("output is %q, want in it %q", got, want)
		}
	}
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// patience is how long a server that is there may take to answer, on whatever machine.
const patience = 5 * time.Minute

// terminal is somebody who types commands.
type terminal struct {
	stdout, stderr output
	stdin          io.Reader
	signals        chan os.Signal
	isTerminal     bool
}

func newTerminal() *terminal {
	return &terminal{stdin: strings.NewReader(""), signals: make(chan os.Signal, 2)}
}

// run runs a command and returns its exit code.
func (x *terminal) run(args ...string) int {
	var model struct {
		cli.Globals
		cli.Commands
	}
	model.NATS.Patience = patience
	return cli.Execute(&model, &model.Globals, args, &cli.Env{
		Stdin: x.stdin, Stdout: &x.stdout, Stderr: &x.stderr, Signals: x.signals,
		StdoutTerminal: x.isTerminal, StderrTerminal: x.isTerminal, Width: func() int { return 80 },
	})
}

// start runs a command at a server in the background; the code arrives when it ends.
func (x *terminal) start(server *natstest.Server, args ...string) <-chan int {
	ended := make(chan int, 1)
	go func() { ended <- x.run(append(at(server), args...)...) }()
	return ended
}

func at(server *natstest.Server) []string {
	cfg := server.Config()
	return []string{"--nats-url=" + cfg.URL, "--nats-token=" + cfg.Token}
}

func (x *terminal) wantStderr(t *testing.T, want string) {
	t.Helper()
	if got := x.stderr.String(); !strings.Contains(got, want) {
		t.Errorf("stderr is %q, want in it %q", got, want)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args   []string
		code   int
		stderr string
	}{
		{[]string{"frob"}, 2, "see 'gantry --help'"},
		{[]string{"jobs", "ls", "--bad"}, 2, "see 'gantry jobs ls --help'"},
		{[]string{"jobs", "ls", "--status=asleep"}, 2, `"asleep" is not one of submitted, queued`},
		{[]string{"jobs", "ls", "--since=soon"}, 2, `"soon" is not a time`},
		{[]string{"jobs", "ls", "--limit=0"}, 2, "--limit"},
		{[]string{"jobs", "show", "a b"}, 2, "is not a job id"},
		{[]string{"jobs", "cancel", "ok", "a/b"}, 2, "is not a job id"},
		{[]string{"logs", "*"}, 2, "is not a job id"},
		{[]string{"submit", "task.json"}, 2, "unexpected argument task.json: use -f task.json: see 'gantry submit --help'"},
		{[]string{"run"}, 125, "see 'gantry run --help'"},
		{[]string{"run", "--pull=maybe", "img"}, 125, "--pull"},
	} {
		x := newTerminal()
		if code := x.run(c.args...); code != c.code {
			t.Errorf("%q: exit code %d, want %d", c.args, code, c.code)
		}
		x.wantStderr(t, c.stderr)
	}
}

func TestHelpNamesTheExitCodes(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"run", "--help"}, {"submit", "--help"}} {
		x := newTerminal()
		if code := x.run(args...); code != 0 {
			t.Errorf("%q: exit code %d", args, code)
		}
		if help := x.stdout.String(); !strings.Contains(help, "130 canceled") {
			t.Errorf("%q: help is %q", args, help)
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	x := newTerminal()
	if code := x.run("version"); code != 0 || !strings.HasPrefix(x.stdout.String(), "gantry ") {
		t.Errorf("exit code %d, stdout %q", code, x.stdout.String())
	}
}

func TestNoServerIsSaidInASentence(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		code int
	}{
		{[]string{"jobs", "ls"}, 1},
		{[]string{"run", "img"}, 125},
	} {
		x := newTerminal()
		if code := x.run(append([]string{"--nats=nats://127.0.0.1:1"}, c.args...)...); code != c.code {
			t.Errorf("%q: exit code %d", c.args, code)
		}
		want := "gantry: no Gantry answers at nats://127.0.0.1:1: start one with 'gantry up', or name one with --nats-url\n"
		if got := x.stderr.String(); got != want {
			t.Errorf("stderr is %q, want %q", got, want)
		}
	}
}

func TestCredentialsOfAURLAreNotPrinted(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"nats://secrettok@127.0.0.1:1":                               "answers at nats://***@127.0.0.1:1: start",
		"secrettok@127.0.0.1:1":                                      "answers at ***@127.0.0.1:1: start",
		"nats://me:secrettok@127.0.0.1:1":                            "answers at nats://***@127.0.0.1:1: start",
		"nats://secrettok@127.0.0.1:1,tls://u:secrettok@127.0.0.1:2": "answers at nats://***@127.0.0.1:1,tls://***@127.0.0.1:2: start",
		"nats://secrettok@127.0.0.1:port":                            "answers at nats://***@127.0.0.1:port: start",
	} {
		x := newTerminal()
		if code := x.run("--nats-url="+url, "jobs", "ls"); code != 1 || strings.Contains(x.stderr.String(), "secrettok") {
			t.Errorf("%s: exit code %d, %q", url, code, x.stderr.String())
		}
		x.wantStderr(t, want)
	}
	server := natstest.Start(t)
	x := newTerminal()
	if code := x.run("--nats-url="+strings.Replace(server.Config().URL, "://", "://secrettok@", 1), "jobs", "ls"); code != 1 || strings.Contains(x.stderr.String(), "secrettok") {
		t.Errorf("exit code %d, %q", code, x.stderr.String())
	}
	x.wantStderr(t, "nats://***@127.0.0.1")
}

func TestWrongTokenIsSaidInASentence(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	x := newTerminal()
	if code := x.run("--nats-url="+server.Config().URL, "--nats-token=wrong", "workers"); code != 1 {
		t.Errorf("exit code %d", code)
	}
	x.wantStderr(t, "does not accept these credentials")
}

func TestNobodyAnswersAQuery(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	x := newTerminal()
	if code := x.run(append(at(server), "jobs", "ls")...); code != 1 {
		t.Errorf("exit code %d", code)
	}
	x.wantStderr(t, "NATS answers, but no job-tracker or dispatcher does")
}

func TestServerWithoutStreams(t *testing.T) {
	t.Parallel()
	server, err := natsserver.Start(natsserver.Options{Dir: t.TempDir(), Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	for code, args := range map[int][]string{125: {"run", "img"}, 1: {"logs", "some-job"}} {
		x := newTerminal()
		if got := x.run(append([]string{"--nats-url=" + server.URL()}, args...)...); got != code {
			t.Errorf("%q: exit code %d", args, got)
		}
		x.wantStderr(t, "has no streams of Gantry yet: start the dispatcher, or run 'gantry topology apply'")
	}
	x := newTerminal()
	if code := x.run("--nats-url="+server.URL(), "topology", "apply"); code != 0 || strings.Contains(x.stdout.String(), "missing") {
		t.Errorf("apply: exit code %d, stdout %q", code, x.stdout.String())
	}
}

func TestDataFolderNamesTheServer(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	path := filepath.Join(t.TempDir(), "data")
	folder, err := datadir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := folder.Announce(server.Config(), true); err != nil {
		t.Fatal(err)
	}
	if err := folder.Close(); err != nil {
		t.Fatal(err)
	}
	x := newTerminal()
	if code := x.run("--data", path, "topology", "show"); code != 0 {
		t.Errorf("exit code %d: %s", code, x.stderr.String())
	}
	if !strings.Contains(x.stdout.String(), "TASKS_SUBMIT") {
		t.Errorf("stdout is %q", x.stdout.String())
	}
}

func TestServerOfFlagsWins(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	folder, err := datadir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close() //nolint:errcheck // only a lock
	if err := folder.Announce(client.Config{URL: "nats://announced", Token: "kept"}, true); err != nil {
		t.Fatal(err)
	}
	for want, globals := range map[string]cli.Globals{
		"nats://announced kept":       {Data: path},
		"nats://named ":               {Data: path, NATS: client.Config{URL: "nats://named"}},
		"nats://127.0.0.1:4222 given": {Data: t.TempDir(), NATS: client.Config{Token: "given"}},
	} {
		cfg, err := globals.Server()
		if got := cfg.URL + " " + cfg.Token; err != nil || got != want {
			t.Errorf("got %q and %v, want %q", got, err, want)
		}
	}
}
