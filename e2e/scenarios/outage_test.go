package scenarios

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// TestGirderIsDownFor20Seconds takes Girder away while a task runs that goes on
// writing its log and ends in that time, and has a result to upload then.
func TestGirderIsDownFor20Seconds(t *testing.T) {
	t.Parallel()
	g := setup.Start(t, setup.Config{})
	item := g.Girder.Item("result")
	task := g.Shell(`echo before
i=1; while [ $i -le 10 ]; do echo "line $i"; echo '{"total": 10, "current": '$i'}' > "$2"; sleep 1; i=$((i+1)); done
echo after > "$1"; echo after`, &contracts.VolumePath{Path: "result.txt"}, &contracts.ProgressPipe{})
	task.Outputs = []contracts.Output{setup.UploadTo(item, "result.txt")}
	task.Girder = g.Girder.Of("Girder goes away")
	job := g.MustSubmit(task)
	ref := g.AwaitGirderJob(job)
	g.Girder.JobOf(g.Context(), ref, func(j girdersim.Job) bool { return strings.Contains(setup.LogOf(j), "before") })
	g.Girder.Down()
	back := time.AfterFunc(20*time.Second, func() {
		if err := g.Girder.Up(); err != nil {
			t.Error(err)
		}
	})
	defer back.Stop()
	// A task that is submitted meanwhile waits for its Girder job.
	late := g.Shell("echo late")
	late.Girder = g.Girder.Of("submitted while Girder is away")
	lateJob := g.MustSubmit(late)

	g.AwaitSuccess(job)
	mirrored := g.AwaitMirrored(job)
	if got := setup.Statuses(mirrored); !slices.Equal(got, []string{"RUNNING", "SUCCESS"}) {
		t.Errorf("Girder's history: %v", got)
	}
	want := "before\n"
	for i := range 10 {
		want += fmt.Sprintf("line %d\n", i+1)
	}
	if got := setup.LogOf(mirrored); got != want+"after\n" {
		t.Errorf("Girder's log is %q", got)
	}
	if p := mirrored.Progress; p == nil || p.Current == nil || *p.Current != 10 {
		t.Errorf("Girder's progress is %+v", p)
	}
	if _, content := g.Girder.Uploaded(item.ID); string(content) != "after\n" {
		t.Errorf("uploaded %q", content)
	}
	g.AwaitSuccess(lateJob)
	mirrored = g.AwaitMirrored(lateJob)
	if got := setup.Statuses(mirrored); !slices.Equal(got, []string{"RUNNING", "SUCCESS"}) || setup.LogOf(mirrored) != "late\n" {
		t.Errorf("the task that was submitted meanwhile: %v, log %q", got, setup.LogOf(mirrored))
	}
}
