package fifo_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/services/internal/fifo"
	"github.com/gantry-worker/gantry/services/internal/volume"
)

// partEnv says which part this binary plays as a process that a test started.
const partEnv = "FIFO_TEST_PART"

// The parts. Each says "." when it has done a step, and goes on when it gets a
// byte; the current folder is the volume.
var parts = map[string]func() error{
	"read in 4 KiB":    readSlowly,
	"write in 300 KiB": writeInBigChunks,
	"move and hold":    moveAndHold,
	"own and read":     ownAndRead,
}

func play(part string) int {
	if err := parts[part](); err != nil {
		fmt.Fprintln(os.Stderr, part+":", err)
		return 1
	}
	return 0
}

func step() error {
	if _, err := os.Stdout.WriteString("."); err != nil {
		return err
	}
	_, err := io.ReadFull(os.Stdin, make([]byte, 1))
	return err
}

// size of what is moved byte by byte the same.
const size = 64 << 20

// content is the same in each process.
func content() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{'p', 'i', 'p', 'e'}), size) }

func sum(r io.Reader) (string, error) {
	hash := sha256.New()
	n, err := io.CopyBuffer(hash, struct{ io.Reader }{r}, make([]byte, 256<<10))
	return fmt.Sprintf("%d bytes %s", n, hex.EncodeToString(hash.Sum(nil))), err
}

func contentSum(t *testing.T) string {
	t.Helper()
	want, err := sum(content())
	if err != nil {
		t.Fatal(err)
	}
	return want
}

// readSlowly takes 4 KiB at a time, stops after each 16 MiB, and says in the end
// what it got.
func readSlowly() error {
	pipe, err := os.Open(name)
	if err != nil {
		return err
	}
	hash, buf, total := sha256.New(), make([]byte, 4096), 0
	for {
		n, err := pipe.Read(buf)
		hash.Write(buf[:n])
		for range (total+n)/(16<<20) - total/(16<<20) {
			if err := step(); err != nil {
				return err
			}
		}
		total += n
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	_, err = fmt.Printf("%d bytes %s", total, hex.EncodeToString(hash.Sum(nil)))
	return err
}

func writeInBigChunks() error {
	pipe, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{pipe}, content(), make([]byte, 300_000))
	return errors.Join(err, pipe.Close())
}

// here is the volume that the program was started in.
func here() volume.Volume {
	folder, _ := os.Getwd() // without it nothing can be opened there
	return volume.Volume{Host: folder}
}

// moveAndHold writes something and waits for its death.
func moveAndHold() error {
	w, err := fifo.OpenWriter(here(), name, fifo.Beside)
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte("half")); err != nil {
		return err
	}
	return step()
}

// ownAndRead reads four bytes and waits for its death.
func ownAndRead() error {
	r, err := fifo.OpenReader(here(), name, fifo.Owner)
	if err != nil {
		return err
	}
	if err := step(); err != nil {
		return err
	}
	if _, err := io.ReadFull(r, make([]byte, 4)); err != nil {
		return err
	}
	return step()
}

// process is a started program; the test waits for it.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out io.ReadCloser
}

// shell starts a program that uses the pipe as a container does.
func shell(t *testing.T, v volume.Volume, script string) *process {
	t.Helper()
	return start(t, v, exec.CommandContext(context.WithoutCancel(t.Context()), "sh", "-c", script))
}

// as starts this binary in one of its parts.
func as(t *testing.T, v volume.Volume, part string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), self)
	cmd.Env = append(os.Environ(), partEnv+"="+part)
	return start(t, v, cmd)
}

func start(t *testing.T, v volume.Volume, cmd *exec.Cmd) *process {
	t.Helper()
	cmd.Dir, cmd.Stderr = v.Host, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &process{t: t, cmd: cmd, in: in, out: out}
}

// did waits until the program says that it did a step.
func (p *process) did() {
	p.t.Helper()
	got := make([]byte, 1)
	if _, err := io.ReadFull(p.out, got); err != nil || got[0] != '.' {
		p.t.Fatalf("the program said %q, %v", got, err)
	}
}

// goOn lets the program do its next step.
func (p *process) goOn() {
	p.t.Helper()
	if _, err := io.WriteString(p.in, "\n"); err != nil {
		p.t.Fatal(err)
	}
}

// says waits for the end of the program and returns what else it said.
func (p *process) says() string {
	p.t.Helper()
	said, err := io.ReadAll(p.out)
	if err := errors.Join(err, p.cmd.Wait()); err != nil {
		p.t.Errorf("%v ended with %v", p.cmd.Args, err)
	}
	return string(said)
}

// die kills the program.
func (p *process) die() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Error(err)
	}
	_ = p.cmd.Wait() // it ended by a signal
}

func TestWhatThePartsSayIsComparable(t *testing.T) {
	t.Parallel()
	if got := contentSum(t); !strings.HasPrefix(got, "67108864 bytes ") || got != contentSum(t) {
		t.Errorf("content is %s", got)
	}
}

// put writes into the pipe as a container does that leaves again.
func put(t *testing.T, v volume.Volume, text string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(v.Host, name), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Error(err)
	}
	closeAll(t, f)
}
