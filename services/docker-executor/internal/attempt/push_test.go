package attempt_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/attempt"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
)

// An output that transfer refuses is named by its place in the task: paths may
// be the same in several volumes.
func TestARefusedOutputIsNamed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	upload := contracts.Output{OutputSpec: &contracts.GirderUploadItem{Path: contracts.OutputPath{VolumePath: contracts.VolumePath{Path: "out"}}, ItemID: "aa"}}
	task := &contracts.Task{
		Version: contracts.Version, ID: "job", Name: contracts.TaskDockerRun, Outputs: []contracts.Output{upload, upload},
		Docker: &contracts.DockerRun{Image: fake.ScriptImage, Pull: contracts.PullNever, Args: []contracts.Arg{{Text: "exit:0"}}},
	}
	last, f := s.claim(task)
	steps := filepath.Join(f.Path(), "steps")
	err := errors.Join(
		os.WriteFile(filepath.Join(steps, "out-0.json"), []byte(`{"version":1,"step":"out-0","outcome":"done"}`), 0o600),
		os.WriteFile(filepath.Join(steps, "out-1.json"), []byte(`{"version":1,"step":"out-1","outcome":"failure","message":"out is a symbolic link"}`), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	if done, err := attempt.New(s.tools, task, last, f, zerolog.Nop()).Run(t.Context(), t.Context()); err != nil || !done {
		t.Fatalf("ended with %v, %v", done, err)
	}
	end, err := s.bus.Last(t.Context(), "job")
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
