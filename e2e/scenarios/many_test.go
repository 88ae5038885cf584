package scenarios

import (
	"fmt"
	"sync"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// TestManyTasksAtOnce submits 200 tasks to `gantry up` with 4 slots. That
// nothing is left of them is checked at the end of every test.
func TestManyTasksAtOnce(t *testing.T) {
	const many = 200
	g := setup.Start(t, setup.Config{Up: true, Slots: 4})
	file := g.Girder.File("in.txt", []byte("content"))
	jobs := make([]contracts.JobID, many)
	var submitting sync.WaitGroup
	for i := range jobs {
		task := g.Shell(`cat "$1"; echo '{"current": 1}' > "$2"`, &contracts.GirderFile{ID: file.ID}, &contracts.ProgressPipe{})
		task.ID = contracts.JobID(fmt.Sprintf("many-%d", i))
		task.Girder = g.Girder.Of(fmt.Sprintf("one of %d", many))
		submitting.Go(func() {
			job, err := g.Submit(g.Context(), task)
			if err != nil {
				t.Error(err)
			}
			jobs[i] = job
		})
	}
	submitting.Wait()
	for _, job := range jobs {
		g.AwaitSuccess(job)
		if types := g.Types(job); types != "submitted queued claimed started succeeded" {
			t.Errorf("life of %s: %s", job, types)
		}
		if log, _ := g.JobLog(job); log != "content" {
			t.Errorf("log of %s: %q", job, log)
		}
		if mirrored := g.AwaitMirrored(job); mirrored.Status != girdersim.Success || setup.LogOf(mirrored) != "content" {
			t.Errorf("%s is %d in Girder, with the log %q", job, mirrored.Status, setup.LogOf(mirrored))
		}
	}
	if n := len(g.Girder.Jobs()); n != many {
		t.Errorf("Girder has %d jobs, want %d", n, many)
	}
	// What was acknowledged last is gone when the process has ended. A start
	// finds nothing to do again.
	if code := g.Up.Stop(); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
	g.Up.Start()
	g.AwaitUp()
	for _, stream := range []string{contracts.StreamSubmit, contracts.StreamReady, contracts.StreamLater, contracts.StreamDead} {
		for _, message := range g.Stored(stream) {
			t.Errorf("%s has a message left: %s", stream, message)
		}
	}
}
