package scenarios

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
)

// TestUpAndTheCommandLine is the tour of somebody who starts everything with
// one command.
func TestUpAndTheCommandLine(t *testing.T) {
	t.Parallel()
	g := setup.Start(t, setup.Config{Up: true})
	image := g.Engine.Image

	ran := g.Gantry("run", "--id", "hello", "--pull", "never", "--label", "tour=yes", image, "sh", "-c", "echo out; echo err >&2")
	if ran.Code != 0 || ran.Stdout != "out\n" || !strings.Contains(ran.Stderr, "err\n") {
		t.Errorf("gantry run: %+v", ran)
	}
	for code, args := range map[int][]string{
		3:   {"run", "--id", "three", "--pull", "never", image, "sh", "-c", "exit 3"},
		125: {"run", "--pull", "never", "nobodys/image:1"},
		137: {"run", "--pull", "never", image, "sh", "-c", "kill -9 $$"},
	} {
		if end := g.Gantry(args...); end.Code != code || end.Stderr == "" {
			t.Errorf("gantry %v: exit code %d, want %d: %q", args, end.Code, code, end.Stderr)
		}
	}

	for args, words := range map[string][]string{
		"jobs ls":                  {"hello", "three", "succeeded", "failed"},
		"jobs show three":          {"three", "failed", "Non-zero exit code from docker container (3)."},
		"logs hello":               {"out\n"},
		"workers":                  {setup.Dispatcher, setup.Executor, setup.Transfer, setup.Tracker},
		"topology":                 {contracts.StreamJobs, contracts.StreamLive, contracts.StreamReady},
		"version":                  {"gantry"},
		"jobs ls --json":           {`"hello"`},
		"workers --json":           {`"docker-executor"`},
		"topology apply":           {contracts.StreamJobs},
		"jobs ls --label tour=yes": {"hello"},
	} {
		awaitProjected(g, "hello", "three")
		text := g.MustGantry(strings.Fields(args)...)
		for _, word := range words {
			if !strings.Contains(text, word) {
				t.Errorf("%q is missing in gantry %s:\n%s", word, args, text)
			}
		}
	}
	if text := g.MustGantry("jobs", "ls", "--label", "tour=yes"); strings.Contains(text, "three") {
		t.Errorf("the label selects too much:\n%s", text)
	}
	if end := g.Gantry("jobs", "show", "nobody"); end.Code != 1 || !strings.Contains(end.Stderr, "nobody") {
		t.Errorf("an unknown job: %+v", end)
	}

	// A signal cancels what run follows.
	interrupted := g.Background("run", "--id", "interrupted", "--pull", "never", image, "sh", "-c", "echo ready; sleep 1000")
	interrupted.AwaitOutput("ready")
	if code := interrupted.Stop(); code != 130 {
		t.Errorf("interrupted gantry run: exit code %d, want 130", code)
	}
	if end := g.AwaitEnd("interrupted"); end.Type != contracts.EntryCanceled {
		t.Errorf("an interrupted job ended as %s", end.Type)
	}

	// logs -f follows a job to its end.
	slow := g.MustSubmit(g.Shell("echo first; sleep 1; echo last"))
	if text := g.MustGantry("logs", "-f", string(slow)); text != "first\nlast\n" {
		t.Errorf("gantry logs -f: %q", text)
	}

	if _, err := g.JetStream().Publish(g.Context(), contracts.SubmitAny, []byte(`{"version": 1, "id": "typo", "tsk": "docker_run"}`)); err != nil {
		t.Fatal(err)
	}
	g.AwaitFailure("typo")
	checkDeadLetter(t, g, "typo", []string{"tsk"})

	second := g.Gantry("up", "--nats-port", "0")
	if second.Code != 1 || !strings.Contains(second.Stderr, filepath.Join(g.Dir, "data")) {
		t.Errorf("a second gantry up on the same data: %+v", second)
	}
	checkRestart(t, g)
}

// checkRestart stops `gantry up` while one task waits, and starts it again.
func checkRestart(t *testing.T, g *setup.Gantry) {
	t.Helper()
	if code := g.Up.Stop(); code != 0 {
		t.Errorf("gantry up: exit code %d after SIGTERM", code)
	}
	if end := g.Gantry("jobs", "ls"); end.Code != 1 || !strings.Contains(end.Stderr, "gantry up") {
		t.Errorf("with nothing running: %+v", end)
	}
	g.Up.Start()
	g.AwaitUp()
	var list struct{ Jobs []struct{ ID, Status string } }
	if err := json.Unmarshal([]byte(g.MustGantry("jobs", "ls", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, job := range list.Jobs {
		found[job.ID] = job.Status
	}
	if found["hello"] != "succeeded" || found["three"] != "failed" {
		t.Errorf("after a restart the jobs are %v", found)
	}
	g.AwaitSuccess(g.MustSubmit(g.Shell("true")))
}

// awaitProjected waits until what queries answer is what happened.
func awaitProjected(g *setup.Gantry, jobs ...contracts.JobID) {
	for _, job := range jobs {
		g.AwaitJob(job, func(j *contracts.Job) bool { return j.Status.Terminal() })
	}
}
