package scenarios

import (
	"slices"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// stubborn has a result, and would end well, if it were not canceled.
const stubborn = `
trap 'echo "told to stop"; exit 0' TERM
echo result > "$1"
echo ready
while :; do sleep 1000 & wait $!; done`

// running submits the task and returns when its container is ready.
func running(g *setup.Gantry) (contracts.JobID, girdersim.Item) {
	item := g.Girder.Item("result")
	task := g.Shell(stubborn, &contracts.VolumePath{Path: "result.txt"})
	task.Outputs = []contracts.Output{setup.UploadTo(item, "result.txt")}
	task.Girder = g.Girder.Of("to be canceled")
	job := g.MustSubmit(task)
	g.AwaitLog(job, "ready")
	return job, item
}

func TestCancelOfARunningTask(t *testing.T) {
	t.Parallel()
	g := setup.Start(t, setup.Config{})
	cases := map[string]struct {
		cancel   func(contracts.JobID)
		statuses []string
	}{
		"by gantry jobs cancel": {
			func(job contracts.JobID) { g.MustGantry("jobs", "cancel", "--reason", "not needed", string(job)) },
			[]string{"RUNNING", "CANCELED"},
		},
		"by Girder": {
			func(job contracts.JobID) {
				// A job that is not RUNNING in Girder yet would be CANCELED there at once.
				ref := g.AwaitGirderJob(job)
				g.Girder.JobOf(g.Context(), ref, func(j girdersim.Job) bool { return j.Status == girdersim.Running })
				g.Girder.Cancel(g.Context(), ref.ID)
			},
			[]string{"RUNNING", "CANCELING", "CANCELED"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			job, item := running(g)
			c.cancel(job)
			if end := g.AwaitEnd(job); end.Type != contracts.EntryCanceled {
				t.Errorf("ended as %s %+v", end.Type, end.Data)
			}
			if types := g.Types(job); types != "submitted queued claimed started canceling canceled" {
				t.Errorf("life: %s", types)
			}
			mirrored := g.AwaitMirrored(job)
			if got := setup.Statuses(mirrored); !slices.Equal(got, c.statuses) {
				t.Errorf("Girder's history: %v, want %v", got, c.statuses)
			}
			if log := setup.LogOf(mirrored); !strings.HasPrefix(log, "ready\ntold to stop\n") {
				t.Errorf("the container saw no SIGTERM: Girder's log is %q", log)
			}
			if files := g.Girder.Files(item.ID); len(files) > 0 {
				t.Errorf("uploaded %+v", files)
			}
		})
	}
	if open := g.Girder.OpenUploads(); open > 0 {
		t.Errorf("%d uploads were begun", open)
	}
}

// TestCancelOfAQueuedTask has no executor until all is canceled. That none of
// the tasks ever runs is proven by one that was queued behind them.
func TestCancelOfAQueuedTask(t *testing.T) {
	t.Parallel()
	g := setup.Start(t, setup.Config{Hold: []string{setup.Executor}})
	queued := func(title string) contracts.JobID {
		task := g.Shell("echo ran")
		task.Girder = g.Girder.Of(title)
		job := g.MustSubmit(task)
		g.AwaitEntry(job, contracts.EntryQueued, 0)
		return job
	}
	byUs, byGirder := queued("by us"), queued("by Girder")
	g.MustGantry("jobs", "cancel", string(byUs))
	g.Girder.Cancel(g.Context(), g.AwaitGirderJob(byGirder).ID)
	for _, job := range []contracts.JobID{byUs, byGirder} {
		if end := g.AwaitEnd(job); end.Type != contracts.EntryCanceled {
			t.Errorf("%s ended as %s", job, end.Type)
		}
		if got := setup.Statuses(g.AwaitMirrored(job)); !slices.Equal(got, []string{"CANCELED"}) {
			t.Errorf("Girder's history: %v", got)
		}
	}

	before := g.Shell("echo ran")
	before.ID, before.Girder = contracts.NewJobID(), g.Girder.Of("revoked before it was submitted")
	if said := g.MustGantry("jobs", "cancel", string(before.ID)); !strings.Contains(said, "canceled before it runs") {
		t.Errorf("gantry jobs cancel says %q", said)
	}
	g.MustSubmit(before)
	if end := g.AwaitEnd(before.ID); end.Type != contracts.EntryCanceled {
		t.Errorf("%s ended as %s", before.ID, end.Type)
	}
	if got := setup.Statuses(g.AwaitMirrored(before.ID)); !slices.Equal(got, []string{"CANCELED"}) {
		t.Errorf("Girder's history: %v", got)
	}

	last := g.MustSubmit(g.Shell("echo ran"))
	g.Services[setup.Executor].Start()
	g.AwaitSuccess(last)
	for _, job := range []contracts.JobID{byUs, byGirder, before.ID} {
		life, err := g.Life(g.Context(), job)
		if err != nil {
			t.Fatal(err)
		}
		if setup.Count(life, contracts.EntryClaimed) > 0 {
			t.Errorf("%s was claimed: %s", job, g.Types(job))
		}
		// The other slot may be about to give its message up.
		g.AwaitGone("ready messages of "+string(job), func() []string {
			return slices.DeleteFunc(g.Stored(contracts.StreamReady), func(message string) bool { return !strings.Contains(message, string(job)) })
		})
	}
}
