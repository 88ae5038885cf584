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
	for _, name := range []string{setup.Dispatcher, setup.Transfer, setup.Tracker, setup.Executor, "nats-server"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkKilled(t, name)
		})
	}
}

const tasks = 6

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
		task.Labels = map[string]string{"fails": fmt.Sprint(i == tasks-1)}
		if i == tasks-1 {
			task.Docker.Args[0].Text = "echo began; exit 7"
		}
		jobs, items = append(jobs, g.MustSubmit(task)), append(items, item)
	}
	g.AwaitLog(jobs[0], "began")
	before := g.Engine.Containers("gantry.job=" + string(jobs[0]))
	if name == "nats-server" {
		g.NATS.Restart()
	} else {
		g.Services[name].Restart()
	}
	for i, job := range jobs {
		checkEndedOnce(t, g, job, i == tasks-1, name == setup.Executor)
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

func checkEndedOnce(t *testing.T, g *setup.Gantry, job contracts.JobID, fails, mayCrash bool) {
	t.Helper()
	end := g.AwaitEnd(job)
	want, statuses := contracts.EntrySucceeded, []string{"RUNNING", "SUCCESS"}
	if fails {
		want, statuses = contracts.EntryFailed, []string{"RUNNING", "ERROR"}
	}
	if end.Type != want {
		t.Errorf("%s ended as %s %+v: %s", job, end.Type, end.Data, g.Types(job))
	}
	mirrored := g.AwaitMirrored(job)
	if got := setup.Statuses(mirrored); !slices.Equal(got, statuses) {
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
	if terminal != 1 || !mayCrash && setup.Count(life, contracts.EntryClaimed) != 1 {
		t.Errorf("life of %s: %s", job, g.Types(job))
	}
	log, _ := g.JobLog(job)
	if !mayCrash && strings.Count(log, "began\n") != 1 {
		t.Errorf("%s has the log %q", job, log)
	}
	if got := setup.LogOf(mirrored); !mayCrash && !strings.HasPrefix(got, log) {
		t.Errorf("%s has the log %q in Girder, %q here", job, got, log)
	}
}
