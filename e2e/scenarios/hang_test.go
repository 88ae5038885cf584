package scenarios

import (
	"slices"
	"testing"

	"github.com/gantry-worker/gantry/e2e/setup"
)

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
