package scenarios

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// ticking is a task that writes to its log five times a second, and has a
// result.
type ticking struct {
	*contracts.Task
	item girdersim.Item
	want string // what it writes
	gate string // the file without which it does not go on, if it is to wait
}

func newTicking(g *setup.Gantry, title string, ticks int) *ticking {
	return newTicks(g, title, "true", ticks)
}

// newHeld is a ticking task that waits in the midst of its ticks until it is
// released, however long that takes. The folder is one that tasks may bind.
func newHeld(g *setup.Gantry, title, folder string, ticks int) *ticking {
	k := newTicks(g, title, fmt.Sprintf("until [ $i -ne %d ] || [ -e /host/go ]; do sleep 0.1; done", ticks/2+1), ticks)
	k.Docker.Volumes = []contracts.Volume{{Name: "host", Type: contracts.VolumeBindMount, HostPath: folder, ContainerPath: "/host", Mode: "ro"}}
	k.gate = filepath.Join(folder, "go")
	return k
}

// release lets the task go on.
func (k *ticking) release(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(k.gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// newTicks makes a ticking task with a command before each tick.
func newTicks(g *setup.Gantry, title, before string, ticks int) *ticking {
	item := g.Girder.Item(title)
	task := g.Shell(fmt.Sprintf(`i=1; while [ $i -le %d ]; do %s; echo "tick $i."; sleep 0.2; i=$((i+1)); done; echo "$i" > "$1"`, ticks, before),
		&contracts.VolumePath{Path: "ticks.txt"})
	task.Outputs = []contracts.Output{setup.UploadTo(item, "ticks.txt")}
	task.ID, task.Girder = contracts.NewJobID(), g.Girder.Of(title)
	k := &ticking{Task: task, item: item}
	for i := range ticks {
		k.want += fmt.Sprintf("tick %d.\n", i+1)
	}
	return k
}

// check checks that nothing of the task shows that anything happened: one
// attempt, one container, all of the log, the result.
func (k *ticking) check(t *testing.T, g *setup.Gantry, starts *setup.Starts) {
	t.Helper()
	k.checkAttempt(t, g)
	container := g.AwaitEntry(k.ID, contracts.EntryStarted, 1).Data.(*contracts.Started).Container
	if started := starts.Of(g.Context(), string(k.ID), container); !slices.Equal(started, []string{container}) {
		t.Errorf("containers %v were started, want %s", started, container)
	}
}

// checkAttempt waits for the task's end and checks all but what the engine did.
func (k *ticking) checkAttempt(t *testing.T, g *setup.Gantry) {
	t.Helper()
	job := k.ID
	end := g.AwaitEnd(job)
	life, err := g.Life(g.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	wrong := false
	expect := func(right bool, format string, args ...any) {
		t.Helper()
		if !right {
			wrong = true
			t.Errorf(format, args...)
		}
	}
	expect(end.Type == contracts.EntrySucceeded && end.Attempt == 1 && end.Crashes == 0, "it ended as %s in attempt %d, with %d crashes", end.Type, end.Attempt, end.Crashes)
	expect(setup.Count(life, contracts.EntryStarted) == 1, "life: %s", g.Types(job))
	log, _ := g.JobLog(job)
	expect(log == k.want, "the log is %q", log)
	mirrored := g.AwaitMirrored(job)
	expect(slices.Equal(setup.Statuses(mirrored), []string{"RUNNING", "SUCCESS"}), "Girder's history: %v", setup.Statuses(mirrored))
	expect(setup.LogOf(mirrored) == k.want, "Girder's log is %q", setup.LogOf(mirrored))
	_, content := g.Girder.Uploaded(k.item.ID)
	expect(string(content) == fmt.Sprintf("%d\n", strings.Count(k.want, "\n")+1), "uploaded %q", content)
	if wrong {
		t.Log(g.Story(job))
	}
}
