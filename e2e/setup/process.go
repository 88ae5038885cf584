package setup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts/client/testport"
)

// Process is a program that can be ended and started again with the same
// arguments and environment. Its output goes to a file.
type Process struct {
	Name    string
	LogFile string

	t    testing.TB
	path string
	args []string
	env  []string
	// isolated gives the process a network of its own.
	isolated bool
	// user is whose process it is, the test's own user's if nil.
	user *User
	// ends says that the process is one that ends by itself.
	ends bool
	// begins says that it is being started, and may end for a reason that
	// whoever starts it looks for.
	begins atomic.Bool
	// columns are those of the terminal that it has, 0 for none.
	columns int
	// health is where it answers whether it is ready, empty for nowhere.
	health string

	mu      sync.Mutex // guards what follows
	run     *run       // nil while nothing runs
	last    *run       // the one that was started last
	started time.Time
}

// run is one life of a process.
type run struct {
	cmd      *exec.Cmd
	terminal *terminal // or nil
	output   *output
	ended    chan struct{}
	expected bool // told to end
}

// newProcess returns a process that is not started. Its environment is env
// beside what every program needs: nothing of the test's own settings.
func newProcess(t testing.TB, dir, name, path string, env []string, args ...string) *Process {
	t.Helper()
	p := &Process{Name: name, LogFile: filepath.Join(dir, name+".log"), t: t, path: path, args: args}
	p.env = append(p.env, "PATH="+os.Getenv("PATH"), "HOME="+dir)
	if host := os.Getenv("DOCKER_HOST"); host != "" {
		p.env = append(p.env, "DOCKER_HOST="+host)
	}
	p.env = append(p.env, env...)
	t.Cleanup(func() {
		p.Kill()
		p.awaitWatched()
		if t.Failed() {
			p.showLog()
		}
	})
	return p
}

// Start starts the process.
func (p *Process) Start() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run != nil {
		return
	}
	log, err := os.OpenFile(p.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatalf("start %s: %v", p.Name, err)
	}
	r := &run{cmd: exec.Command(p.path, p.args...), output: newOutput(), ended: make(chan struct{})}
	r.cmd.Env = p.env
	// A test that is killed takes its processes along.
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if p.user != nil {
		r.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: p.user.ID, Gid: p.user.Group, Groups: []uint32{p.user.Also}}
	}
	if p.isolated {
		r.cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET
	}
	both := io.MultiWriter(log, r.output)
	r.cmd.Stdout, r.cmd.Stderr = both, both
	if p.columns > 0 {
		if r.terminal, err = openTerminal(p.columns, both); err != nil {
			p.t.Fatalf("open a terminal for %s: %v", p.Name, err)
		}
		r.cmd.Stdout, r.cmd.Stderr = r.terminal.program, r.terminal.program
	}
	// A child that lives on has its output too, which ends with neither of them;
	// its last words may still be on their way.
	r.cmd.WaitDelay = time.Minute
	p.started = time.Now()
	if err := r.cmd.Start(); err != nil {
		p.t.Fatalf("start %s: %v", p.Name, errors.Join(err, log.Close()))
	}
	if r.terminal != nil {
		_ = r.terminal.program.Close() // the process has it
	}
	p.run, p.last = r, r
	go p.watch(r, log)
}

// watch waits for the end of a run. Whoever stops the process waits for it.
func (p *Process) watch(r *run, log *os.File) {
	err := r.cmd.Wait()
	if r.terminal != nil {
		<-r.terminal.copied
	}
	p.mu.Lock()
	expected := r.expected
	if p.run == r {
		p.run = nil
	}
	p.mu.Unlock()
	if !expected && !p.ends && !p.begins.Load() {
		p.t.Errorf("%s ended by itself: %v", p.Name, err)
	}
	if err := log.Close(); err != nil {
		p.t.Errorf("close log of %s: %v", p.Name, err)
	}
	r.output.close()
	close(r.ended)
}

// Kill ends the process with SIGKILL and waits for its end.
func (p *Process) Kill() { p.end(syscall.SIGKILL) }

// Stop ends the process with SIGTERM, waits for its end and returns its exit
// code, -1 for one that a signal ended or that did not run.
func (p *Process) Stop() int { return p.end(syscall.SIGTERM) }

// AwaitEnd waits until a process that ends by itself has done so, and returns its
// exit code.
func (p *Process) AwaitEnd(ctx context.Context) int {
	p.t.Helper()
	p.mu.Lock()
	r := p.last
	p.mu.Unlock()
	select {
	case <-r.ended:
	case <-ctx.Done():
		p.t.Fatalf("%s does not end", p.Name)
	}
	return r.cmd.ProcessState.ExitCode()
}

// Goroutines ends the process with SIGQUIT, at which a Go program tells what each
// of its goroutines does, and returns how many there are.
func (p *Process) Goroutines() int {
	p.t.Helper()
	before := len(p.Log())
	p.end(syscall.SIGQUIT)
	n := strings.Count(p.Log()[before:], "\ngoroutine ")
	if n == 0 {
		p.t.Fatalf("%s did not tell what its goroutines do", p.Name)
	}
	return n
}

// Restart kills the process and starts it again.
func (p *Process) Restart() {
	p.t.Helper()
	p.Kill()
	p.Start()
}

func (p *Process) end(sig syscall.Signal) int {
	p.mu.Lock()
	r := p.run
	if r != nil {
		r.expected = true
	}
	p.mu.Unlock()
	if r == nil {
		return -1
	}
	// One that was paused hears of it when it goes on.
	for _, each := range []syscall.Signal{sig, syscall.SIGCONT} {
		if err := r.cmd.Process.Signal(each); err != nil && !errors.Is(err, os.ErrProcessDone) {
			p.t.Errorf("send %s to %s: %v", each, p.Name, err)
		}
	}
	select {
	case <-r.ended:
	case <-time.After(patience):
		p.t.Errorf("%s was sent %s %s ago and has not ended: its log has what it does", p.Name, sig, patience)
		_ = r.cmd.Process.Signal(syscall.SIGQUIT)
		select {
		case <-r.ended:
		case <-time.After(time.Minute):
			_ = r.cmd.Process.Kill()
			<-r.ended
		}
	}
	return r.cmd.ProcessState.ExitCode()
}

// awaitWatched returns when nobody waits for the process's end any more.
func (p *Process) awaitWatched() {
	if ended := p.ended(); ended != nil {
		<-ended
	}
}

// Pause stops the process with SIGSTOP, as a host does that is overloaded;
// Resume lets it go on.
func (p *Process) Pause() { p.signal(syscall.SIGSTOP) }

// Resume ends what Pause began.
func (p *Process) Resume() { p.signal(syscall.SIGCONT) }

func (p *Process) signal(sig syscall.Signal) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run == nil {
		p.t.Fatalf("send %s to %s: it does not run", sig, p.Name)
	}
	if err := p.run.cmd.Process.Signal(sig); err != nil {
		p.t.Fatalf("send %s to %s: %v", sig, p.Name, err)
	}
}

// PID is the process's number, 0 while it does not run.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run == nil {
		return 0
	}
	return p.run.cmd.Process.Pid
}

// PeakMemory is the most memory that the process had at once since it was
// started, in bytes.
func (p *Process) PeakMemory() int64 {
	p.t.Helper()
	file := fmt.Sprintf("/proc/%d/status", p.PID())
	text, err := os.ReadFile(file)
	if err != nil {
		p.t.Fatalf("read memory of %s: %v", p.Name, err)
	}
	for line := range strings.Lines(string(text)) {
		var kilobytes int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kilobytes); n == 1 {
			return kilobytes << 10
		}
	}
	p.t.Fatalf("%s says nothing of memory", file)
	return 0
}

// ended returns a channel that is closed when the run that was started last has
// ended, nil for a process that was never started.
func (p *Process) ended() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last == nil {
		return nil
	}
	return p.last.ended
}

func (p *Process) startedAt() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.started
}

// answerHealth gives a service that is yet to be started an address to be asked
// whether it is ready.
func (p *Process) answerHealth() {
	p.t.Helper()
	p.health = testport.Address(p.t)
	p.env = append(p.env, "GANTRY_HEALTH_ADDRESS="+p.health)
}

// AwaitReady waits until the service says that it is ready, or that it is not.
// It has to ask again and again: nobody is told.
func (p *Process) AwaitReady(ctx context.Context, ready bool) {
	p.t.Helper()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		said := p.ready(ctx)
		if (said == nil) == ready {
			return
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			p.t.Fatalf("%s is to say ready: %t, and says %v", p.Name, ready, said)
		}
	}
}

func (p *Process) ready(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.health+"/readyz", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", response.Status, text)
	}
	return nil
}

// AwaitOutput waits until the process has printed the text since its start.
func (p *Process) AwaitOutput(text string) {
	p.t.Helper()
	if err := p.awaitOutput(text); err != nil {
		p.t.Fatal(err)
	}
}

func (p *Process) awaitOutput(text string) error {
	p.mu.Lock()
	r := p.last
	p.mu.Unlock()
	if r == nil {
		return fmt.Errorf("%s was not started", p.Name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	found := r.output.await(ctx, text)
	switch {
	case found:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s has not printed %q in %s", p.Name, text, patience)
	default:
		return fmt.Errorf("%s ended before it printed %q", p.Name, text)
	}
}

// Log returns everything that the process has written.
func (p *Process) Log() string {
	p.t.Helper()
	data, err := os.ReadFile(p.LogFile)
	if err != nil {
		p.t.Fatalf("read log of %s: %v", p.Name, err)
	}
	return string(data)
}

// shownLines is how much of a log a failed test shows.
const shownLines = 30

func (p *Process) showLog() {
	data, err := os.ReadFile(p.LogFile)
	if err != nil {
		return // it was never started
	}
	all := strings.Split(strings.TrimSpace(string(data)), "\n")
	p.t.Logf("log of %s (last %d of %d lines):\n%s", p.Name, min(len(all), shownLines), len(all),
		strings.Join(all[max(0, len(all)-shownLines):], "\n"))
}

// output hears what a process prints.
type output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	closed  bool
	changed chan struct{} // closed and replaced with each write
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.notify()
	return o.text.Write(b)
}

func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.notify()
}

func (o *output) notify() {
	close(o.changed)
	o.changed = make(chan struct{})
}

// await reports whether the text came before the end, and in time.
func (o *output) await(ctx context.Context, text string) bool {
	for {
		o.mu.Lock()
		found, closed, changed := bytes.Contains(o.text.Bytes(), []byte(text)), o.closed, o.changed
		o.mu.Unlock()
		if found || closed {
			return found
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// environment writes variables as a process takes them.
func environment(values map[string]string) []string {
	env := make([]string, 0, len(values))
	for name, value := range values {
		env = append(env, fmt.Sprintf("%s=%s", name, value))
	}
	return env
}
