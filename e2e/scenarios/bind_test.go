package scenarios

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
)

// bound is a task that copies a file in a bound folder.
func bound(g *setup.Gantry, folder, mode string) *contracts.Task {
	task := g.Shell("cat /host/given > /host/written")
	task.Docker.Volumes = []contracts.Volume{{
		Name: "host", Type: contracts.VolumeBindMount, HostPath: folder, ContainerPath: "/host", Mode: mode,
	}}
	return task
}

func given(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "given"), []byte("of the host"), 0o600); err != nil {
		t.Fatal(err)
	}
	return folder
}

func TestBindMountIsRefused(t *testing.T) {
	t.Parallel()
	folder := given(t)
	g := setup.Start(t, setup.Config{})
	task := bound(g, folder, "rw")
	task.Girder = g.Girder.Of("bind mount")
	checkReason(t, g, g.MustSubmit(task), contracts.FailureTask, folder, "GANTRY_ALLOW_BIND")
	if _, err := os.Stat(filepath.Join(folder, "written")); !os.IsNotExist(err) {
		t.Errorf("the container ran: %v", err)
	}
}

func TestBindMountThatTheOperatorAllows(t *testing.T) {
	t.Parallel()
	writable, readable := given(t), given(t)
	g := setup.Start(t, setup.Config{Env: map[string]string{"GANTRY_ALLOW_BIND": writable + ":rw," + readable}})
	g.AwaitSuccess(g.MustSubmit(bound(g, writable, "rw")))
	if got, err := os.ReadFile(filepath.Join(writable, "written")); err != nil || string(got) != "of the host" {
		t.Errorf("the container wrote %q, %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(writable, "given")); err != nil {
		t.Errorf("the bound folder was cleaned up: %v", err)
	}
	failed := g.AwaitFailure(g.MustSubmit(bound(g, readable, "ro")))
	if failed.ExitCode == nil || *failed.ExitCode == 0 {
		t.Errorf("the container could write to a read-only mount: %+v", failed)
	}
	failed = g.AwaitFailure(g.MustSubmit(bound(g, readable, "rw")))
	if !strings.Contains(failed.Message, "GANTRY_ALLOW_BIND") {
		t.Errorf("writing to a folder that is allowed for reading: %+v", failed)
	}
}
