package attempt_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/attempt"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/folder"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/policy"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// An output that transfer refuses is named by its place in the task: paths may
// be the same in several volumes.
func TestARefusedOutputIsNamed(t *testing.T) {
	t.Parallel()
	b, err := bus.Open(t.Context(), natstest.Start(t).Config(), "test", "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	eng := fake.New()
	t.Cleanup(eng.Close)
	rules, err := policy.New(policy.Config{})
	if err != nil {
		t.Fatal(err)
	}
	upload := contracts.Output{OutputSpec: &contracts.GirderUploadItem{Path: contracts.OutputPath{VolumePath: contracts.VolumePath{Path: "out"}}, ItemID: "aa"}}
	task := &contracts.Task{
		Version: contracts.Version, ID: "job", Name: contracts.TaskDockerRun, Outputs: []contracts.Output{upload, upload},
		Docker: &contracts.DockerRun{Image: fake.ScriptImage, Pull: contracts.PullNever, Args: []contracts.Arg{{Text: "exit:0"}}},
	}
	var last *bus.Seen
	for _, data := range []contracts.EntryData{&contracts.Submitted{Task: task}, &contracts.Queued{}, &contracts.Claimed{Node: "n", Executor: "ex"}} {
		if last, err = b.Append(t.Context(), "job", last, data); err != nil {
			t.Fatal(err)
		}
	}
	f, err := folder.Create(t.TempDir(), folder.About{Job: "job", Attempt: last.Attempt, Container: "gantry-job-1"})
	if err != nil {
		t.Fatal(err)
	}
	steps := filepath.Join(f.Path(), "steps")
	err = errors.Join(
		os.WriteFile(filepath.Join(steps, "out-0.json"), []byte(`{"version":1,"step":"out-0","outcome":"done"}`), 0o600),
		os.WriteFile(filepath.Join(steps, "out-1.json"), []byte(`{"version":1,"step":"out-1","outcome":"failure","message":"out is a symbolic link"}`), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	tools := &attempt.Tools{
		Bus: b, Engine: &engine.Watched{Engine: eng}, Images: engine.NewImages(eng, engine.PullLimits{}), Policy: rules, Node: "n", Executor: "ex",
		MaxGrace: time.Minute, LogLimit: 1 << 20,
	}
	if done, err := attempt.New(tools, task, last, f, zerolog.Nop()).Run(t.Context(), t.Context()); err != nil || !done {
		t.Fatalf("ended with %v, %v", done, err)
	}
	end, err := b.Last(t.Context(), "job")
	if err != nil {
		t.Fatal(err)
	}
	if failed, ok := end.Data.(*contracts.Failed); !ok || failed.Kind != contracts.FailureTask || failed.Message != "outputs[1]: out is a symbolic link" {
		t.Errorf("ended as %s %+v", end.Type, end.Data)
	}
	if err := f.Remove(); err != nil {
		t.Error(err)
	}
}
