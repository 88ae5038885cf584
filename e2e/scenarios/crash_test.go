package scenarios

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// TestKilledServices kills each service once, and the NATS server, while tasks
// run and wait. Only the executor's death costs an attempt.
func TestKilledServices(t *testing.T) {
	t.Parallel()
	for _, name := range []string{setup.Dispatcher, setup.Transfer, setup.Tracker, setup.Executor, natsServer} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkKilled(t, name)
		})
	}
}

const (
	tasks      = 6
	natsServer = "nats-server"
)

// checkKilled kills a service when the first task is in the middle of its work.
func checkKilled(t *testing.T, name string) {
	g := setup.Start(t, setup.Config{})
	file := g.Girder.File("in.txt", []byte("content\n"))
	var (
		jobs  []contracts.JobID
		items []girdersim.Item
	)
	for i := range tasks {
		item := g.Girder.Item(fmt.Sprintf("result %d", i))
		task := g.Shell(`echo began; sleep 2; cat "$1" > "$2"; echo ended`, &contracts.GirderFile{ID: file.ID}, &contracts.VolumePath{Path: "out.txt"})
		task.Outputs = []contracts.Output{setup.UploadTo(item, "out.txt")}
		task.Girder = g.Girder.Of(fmt.Sprintf("task %d", i))
		if i == tasks-1 {
			task.Docker.Args[0].Text = "echo began; exit 7"
		}
		jobs, items = append(jobs, g.MustSubmit(task)), append(items, item)
	}
	g.AwaitLog(jobs[0], "began")
	before := g.Engine.Containers("gantry.job=" + string(jobs[0]))
	if name == natsServer {
		g.NATS.Restart()
	} else {
		g.Services[name].Restart()
	}
	for i, job := range jobs {
		checkEndedOnce(t, g, job, i == tasks-1, name != setup.Executor)
		if name != setup.Executor {
			checkLogOnce(t, g, job, i == tasks-1)
		}
		if i < tasks-1 {
			if _, content := g.Girder.Uploaded(items[i].ID); string(content) != "content\n" {
				t.Errorf("task %d uploaded %q", i, content)
			}
		}
	}
	if name != setup.Executor {
		return
	}
	life, err := g.Life(g.Context(), jobs[0])
	if err != nil {
		t.Fatal(err)
	}
	crashed := life[len(life)-1]
	if crashed.Attempt != 2 || crashed.Crashes != 1 {
		t.Errorf("the attempt of the killed executor did not end as a crash: %s", g.Types(jobs[0]))
	}
	for _, id := range before {
		g.Engine.AwaitRemoved(g.Context(), id)
	}
}

// checkEndedOnce checks a job's end, here and in Girder, and that it was tried
// once, if that is to be so.
func checkEndedOnce(t *testing.T, g *setup.Gantry, job contracts.JobID, fails, triedOnce bool) {
	t.Helper()
	end := g.AwaitEnd(job)
	want, statuses := contracts.EntrySucceeded, []string{"RUNNING", "SUCCESS"}
	if fails {
		want, statuses = contracts.EntryFailed, []string{"RUNNING", "ERROR"}
	}
	if end.Type != want {
		t.Errorf("%s ended as %s %+v: %s", job, end.Type, end.Data, g.Types(job))
	}
	if got := setup.Statuses(g.AwaitMirrored(job)); !slices.Equal(got, statuses) {
		t.Errorf("%s has the history %v in Girder", job, got)
	}
	life, err := g.Life(g.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	terminal := 0
	for _, entry := range life {
		if entry.Terminal() {
			terminal++
		}
	}
	if terminal != 1 || triedOnce && setup.Count(life, contracts.EntryClaimed) != 1 {
		t.Errorf("life of %s: %s", job, g.Types(job))
	}
}

// checkLogOnce checks that no line of the log is missing or doubled.
func checkLogOnce(t *testing.T, g *setup.Gantry, job contracts.JobID, fails bool) {
	t.Helper()
	want := "began\nended\n"
	if fails {
		want = "began\n"
	}
	log, _ := g.JobLog(job)
	if log != want {
		t.Errorf("%s has the log %q, want %q", job, log, want)
	}
	if got := setup.LogOf(g.AwaitMirrored(job)); !strings.HasPrefix(got, log) || strings.Count(got, "began\n") != 1 {
		t.Errorf("%s has the log %q in Girder, %q here", job, got, log)
	}
}

// TestTrackerHangs stops job-tracker in its tracks, as an overloaded host does:
// the task does not wait for it, and Girder has everything in the end.
func TestTrackerHangs(t *testing.T) {
	t.Parallel()
	g := setup.Start(t, setup.Config{})
	g.Services[setup.Tracker].Pause()
	task := g.Shell("echo ran")
	task.Girder = g.Girder.Of("while job-tracker hangs")
	job := g.MustSubmit(task)
	g.AwaitSuccess(job)
	if jobs := g.Girder.Jobs(); len(jobs) > 0 {
		t.Errorf("Girder has a job already: %+v", jobs)
	}
	g.Services[setup.Tracker].Resume()
	mirrored := g.AwaitMirrored(job)
	if got := setup.Statuses(mirrored); !slices.Equal(got, []string{"RUNNING", "SUCCESS"}) || setup.LogOf(mirrored) != "ran\n" {
		t.Errorf("Girder's history: %v, log %q", got, setup.LogOf(mirrored))
	}
}
