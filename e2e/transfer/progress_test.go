package transfer

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// What Girder's page says below its bar, in the order of a task's phases.
var (
	fetching  = regexp.MustCompile(`^Fetching input slide\.tif: \d+\.\d MB of 33\.6 MB, [\d.]+ [kM]B/s, \d+ s left$`)
	drawn     = regexp.MustCompile(`fetching input sl\S+  [\d.]+ MB of 33\.6 MB  [\d.]+ [kM]B/s  \d+ s left`) // on the terminal, where a name may be cut
	uploading = regexp.MustCompile(`^Uploading results out\.tif: \d+\.\d MB of 33\.6 MB, [\d.]+ [kM]B/s, \d+ s left$`)
)

// TestPeopleSeeHowFarATransferIs in Girder, with `gantry run` and with `gantry
// jobs show`. The rate limit makes a small file last as long as a large one, and
// the gate holds it up where all three are looked at.
func TestPeopleSeeHowFarATransferIs(t *testing.T) {
	t.Parallel()
	const size = 32 * mebibyte
	env := allowBind()
	env["GANTRY_RATE_LIMIT"] = "8m"
	g := setup.Start(t, setup.Config{Gate: true, Env: env})
	file, result, host := addFile(g, "slide.tif", size), g.Girder.Item("result"), hostFolder(t)
	g.Gate.Answers.HoldAt(size * 3 / 4)
	g.Gate.Requests.HoldAt(size * 3 / 4)
	job := contracts.NewJobID()
	args := []string{"--id", string(job), "--pull", "never", "--network", "none", "--volume", host + ":/data",
		"--girder-url", g.Girder.APIURL(), "--girder-token", g.Girder.DataAccess, "--girder-job-token", g.Girder.JobAccess,
		"--upload", "out.tif=item:" + result.ID, "--entrypoint", "/bin/sh -c", g.Engine.Image,
		`cp "$1" "$2"; echo copied; while [ ! -e /data/go ]; do usleep 10000; done`, "sh", "@file:" + file.ID + ":slide.tif", "@path:out.tif"}
	const columns = 80
	screen := g.OnTerminal(columns, append([]string{"run"}, args...)...)
	run := g.Background(append([]string{"run", "--progress", "plain"}, args...)...) // the same job
	run.AwaitOutput("fetching input")
	ref := g.AwaitGirderJob(job)

	moves := func(said *regexp.Regexp) {
		t.Helper()
		g.Girder.JobOf(g.Context(), ref, func(j girdersim.Job) bool {
			p := j.Progress
			return p != nil && p.Message != nil && said.MatchString(*p.Message) && *p.Total == size && *p.Current > 0 && *p.Current <= size
		})
	}
	moves(fetching)
	g.Gate.Answers.Await(g.Context(), size*3/4)
	shows(t, g, job, contracts.PhaseFetchingInput, "fetching input slide.tif", "MB of 33.6 MB")
	g.Gate.Answers.Open()

	g.AwaitLog(job, "copied")
	g.Girder.JobOf(g.Context(), ref, func(j girdersim.Job) bool {
		p := j.Progress
		return p != nil && p.Message != nil && *p.Message == "Running" && *p.Total == 0 && *p.Current == 0
	})
	if err := os.WriteFile(filepath.Join(host, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	moves(uploading)
	g.Gate.Requests.Await(g.Context(), size*3/4)
	shows(t, g, job, contracts.PhasePushingOutput, "uploading results out.tif", "MB of 33.6 MB")
	g.Gate.Requests.Open()

	g.AwaitSuccess(job)
	g.AwaitMirrored(job)
	for _, p := range []*setup.Process{run, screen} {
		if code := p.AwaitEnd(g.Context()); code != 0 {
			t.Errorf("%s ended with %d", p.Name, code)
		}
	}
	if !drawn.MatchString(screen.Log()) {
		t.Errorf("the terminal never showed how far it is: %q", screen.Log())
	}
	if left := setup.Screen(t, screen.Log(), columns); !slices.Equal(left, []string{"gantry: job " + string(job), "copied", ""}) {
		t.Errorf("in the end the terminal shows %q", left)
	}
	for _, words := range []string{"fetching input slide.tif", "copied\n", "uploading results out.tif"} {
		if !strings.Contains(run.Log(), words) {
			t.Errorf("gantry run printed %q, without %q", run.Log(), words)
		}
	}
	if log := setup.LogOf(g.AwaitMirrored(job)); log != "copied\n" {
		t.Errorf("Girder's log is %q", log)
	}
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
