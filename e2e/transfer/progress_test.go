package transfer

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// What Girder's page says below its bar, in the order of a task's phases.
var (
	fetching  = regexp.MustCompile(`^Fetching input slide\.tif: [\d.]+ MB of 134 MB, [\d.]+ [kM]B/s, [\w ]+ left$`)
	drawn     = regexp.MustCompile(`fetching input s\S+  [\d.]+ MB of 134 MB  [\d.]+ [kM]B/s  [\w ]+ left`) // on the terminal, where a name may be cut
	uploading = regexp.MustCompile(`^Uploading results out\.tif: [\d.]+ MB of 134 MB, [\d.]+ [kM]B/s, [\w ]+ left$`)
)

// TestPeopleSeeHowFarATransferIs in Girder, with `gantry run` and with `gantry
// jobs show`. The gate lets the bytes trickle until all of them have shown it, and
// holds them up where nothing may change meanwhile.
func TestPeopleSeeHowFarATransferIs(t *testing.T) {
	t.Parallel()
	const size = 128 * mebibyte
	g := start(t, setup.Config{Gate: true, Env: allowBind()})
	file, result, host := addFile(g, "slide.tif", size), g.Girder.Item("result"), hostFolder(t)
	g.Gate.Answers.HoldAt(1)
	job := contracts.NewJobID()
	args := []string{"--id", string(job), "--pull", "never", "--network", "none", "--volume", host + ":/data",
		"--girder-url", g.Girder.APIURL(), "--girder-token", g.Girder.DataAccess, "--girder-job-token", g.Girder.JobAccess,
		"--upload", "out.tif=item:" + result.ID, "--entrypoint", "/bin/sh -c", g.Engine.Image,
		`cp "$1" "$2"; echo copied; while [ ! -e /data/go ]; do usleep 10000; done`, "sh", "@file:" + file.ID + ":slide.tif", "@path:out.tif"}
	const columns = 80
	screen := g.OnTerminal(columns, append([]string{"run"}, args...)...)
	run := g.Background(append([]string{"run", "--progress", "plain"}, args...)...) // the same job
	ref := g.AwaitGirderJob(job)

	moves := func(said *regexp.Regexp) {
		t.Helper()
		g.Girder.JobOf(g.Context(), ref, func(j girdersim.Job) bool {
			p := j.Progress
			return p != nil && p.Message != nil && said.MatchString(*p.Message) && *p.Total == size && *p.Current > 0 && *p.Current <= size
		})
	}
	trickle(g, g.Gate.Answers, func() {
		moves(fetching)
		run.AwaitOutput("fetching input slide.tif")
		g.AwaitGone("screens without how far it is", func() []string {
			if text := screen.Log(); !drawn.MatchString(text) {
				return []string{text}
			}
			return nil
		})
	})
	shows(t, g, job, contracts.PhaseFetchingInput, "fetching input slide.tif", "MB of 134 MB")
	g.Gate.Answers.Open()

	g.AwaitLog(job, "copied")
	g.Girder.JobOf(g.Context(), ref, func(j girdersim.Job) bool {
		p := j.Progress
		return p != nil && p.Message != nil && *p.Message == "Running" && *p.Total == 0 && *p.Current == 0
	})
	g.Gate.Requests.HoldAt(1)
	if err := os.WriteFile(filepath.Join(host, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	trickle(g, g.Gate.Requests, func() {
		moves(uploading)
		run.AwaitOutput("uploading results out.tif")
	})
	shows(t, g, job, contracts.PhasePushingOutput, "uploading results out.tif", "MB of 134 MB")
	g.Gate.Requests.Open()

	g.AwaitSuccess(job)
	g.AwaitMirrored(job)
	for _, p := range []*setup.Process{run, screen} {
		if code := p.AwaitEnd(g.Context()); code != 0 {
			t.Errorf("%s ended with %d", p.Name, code)
		}
	}
	if left := setup.Screen(t, screen.Log(), columns); !slices.Equal(left, []string{"gantry: job " + string(job), "copied", ""}) {
		t.Errorf("in the end the terminal shows %q", left)
	}
	if !strings.Contains(run.Log(), "copied\n") {
		t.Errorf("gantry run printed %q, without the task's words", run.Log())
	}
	if log := setup.LogOf(g.AwaitMirrored(job)); log != "copied\n" {
		t.Errorf("Girder's log is %q", log)
	}
}

// trickle lets a little through now and then while something is waited for: it
// moves all the time, and is not over soon.
func trickle(g *setup.Gantry, flow *setup.Flow, wait func()) {
	g.T.Helper()
	ctx, stop := context.WithCancel(g.Context())
	var trickling sync.WaitGroup
	defer trickling.Wait()
	defer stop()
	trickling.Go(func() {
		next := time.NewTicker(500 * time.Millisecond)
		defer next.Stop()
		for {
			select {
			case <-next.C:
				flow.HoldAt(1)
			case <-ctx.Done():
				return
			}
		}
	})
	wait()
}

// shows fails unless `gantry jobs show` has the words in that phase.
func shows(t *testing.T, g *setup.Gantry, job contracts.JobID, phase contracts.PhaseName, words ...string) {
	t.Helper()
	g.AwaitJob(job, func(j *contracts.Job) bool { return j.Phase != nil && j.Phase.Phase == phase && j.Phase.Of > 0 })
	text := g.MustGantry("jobs", "show", string(job))
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("gantry jobs show has nothing of %q:\n%s", word, text)
		}
	}
}
