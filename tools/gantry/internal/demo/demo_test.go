package demo

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/leaktest"
	"github.com/gantry-worker/gantry/tools/gantry/internal/cli"
	"github.com/gantry-worker/gantry/tools/gantry/internal/imageimport/enginetest"
	"github.com/gantry-worker/gantry/tools/girder-sim/simseed"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestTheTaskIsAcceptedAndShownWithoutTokens(t *testing.T) {
	t.Parallel()
	seed := simseed.Seed{APIURL: "http://g/api/v1", DataToken: "token-1", JobCreationToken: "token-2", ItemID: "5f0e00000000000000000002"}
	task := newTask("img", "5f0c00000000000000000001", seed)
	if err := task.Validate(); err != nil {
		t.Fatal(err)
	}
	text, err := printable(task)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(text, "token-") {
		t.Errorf("a token is shown: %s", text)
	}
	if _, err := contracts.DecodeTask([]byte(text)); err != nil {
		t.Errorf("what is shown is no task: %v", err)
	}
	if task.Girder.Token != "token-1" {
		t.Error("the task itself lost its token")
	}
}

func TestIndent(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	w := &indent{out: &out, prefix: "> "}
	for _, text := range []string{"a", "b\n", "", "c\n\nd"} {
		if n, err := w.Write([]byte(text)); n != len(text) || err != nil {
			t.Errorf("write %q: %d, %v", text, n, err)
		}
	}
	if got, want := out.String(), "> ab\n> c\n> \n> d"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPictureIsInvertedPixelByPixel(t *testing.T) {
	t.Parallel()
	plain, inverted := picture(false), picture(true)
	header := len(plain) - pictureWidth*pictureHeight
	for i := range plain {
		want := plain[i]
		if i >= header {
			want = white - want
		}
		if inverted[i] != want {
			t.Fatalf("byte %d is %d, want %d", i, inverted[i], want)
		}
	}
}

// TestDemo runs the whole demo where a Docker engine answers.
func TestDemo(t *testing.T) {
	t.Parallel()
	enginetest.Need(t)
	program := filepath.Join(t.TempDir(), "demo-task")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../demo-task")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build demo-task: %v: %s", err, out)
	}
	var out bytes.Buffer
	env := &cli.Env{Stdout: &out, Stderr: &out, Width: func() int { return 80 }, Globals: &cli.Globals{}}
	data := filepath.Join(t.TempDir(), "data")
	if err := Run(t.Context(), env, Options{Data: data, Program: program, DockerHost: os.Getenv("DOCKER_HOST")}); err != nil {
		log, _ := os.ReadFile(filepath.Join(data, "demo.log")) // to help
		t.Fatalf("%v\n%s\n%s", err, &out, log)
	}
	for _, want := range []string{
		"was downloaded from Girder", "| rows  961 to 1024 inverted", "running  [",
		"mountains-inverted.pgm (1.0 MB) is in the item", "INACTIVE → RUNNING → SUCCESS",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in the output:\n%s", want, &out)
		}
	}
}

func TestDemoSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	env := &cli.Env{Stdout: &out, Stderr: &out, Width: func() int { return 80 }, Globals: &cli.Globals{}}
	err := Run(t.Context(), env, Options{Program: "/nowhere/demo-task"})
	if err == nil || !strings.Contains(err.Error(), "'make demo' builds it") {
		t.Errorf("without the program: %v", err)
	}
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err = Run(t.Context(), env, Options{Program: program, DockerHost: "unix:///nowhere/docker.sock"})
	if err == nil || !strings.Contains(err.Error(), "start Docker, or name an engine in DOCKER_HOST") {
		t.Errorf("without an engine: %v", err)
	}
}
