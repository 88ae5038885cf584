package transfer

import (
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
)

// disk is how big a work folder's own disk is.
const disk = 64 * mebibyte

func startOnDisk(t *testing.T, env map[string]string) *setup.Gantry {
	t.Helper()
	return start(t, setup.Config{Nodes: []setup.NodeConfig{{Disk: disk}}, Env: env})
}

// TestAnInputThatIsLargerThanTheDiskIsRefusedAtOnce: before its first byte, with
// the sizes in the reason, and without harm to the next task.
func TestAnInputThatIsLargerThanTheDiskIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	g := startOnDisk(t, nil)
	empty := g.Nodes[0].FreeSpace()
	file, one := addFile(g, "large.tif", disk+disk/4), 1
	task := g.Shell(`cat "$1"`, &contracts.GirderFile{ID: file.ID})
	task.Retry = &contracts.Retry{MaxCrashes: &one, Backoff: contracts.Duration(1e8)}
	task.Girder = g.Girder.Of("larger than the disk")
	job := g.MustSubmit(task)
	failed := g.AwaitFailure(job)
	log := setup.LogOf(g.AwaitMirrored(job))
	for _, words := range []string{"large.tif", "83.9 MB", "MB are free"} {
		if !strings.Contains(failed.Message, words) || !strings.Contains(log, words) {
			t.Errorf("the failure says %q and Girder's log %q, and nothing of %q", failed.Message, log, words)
		}
	}
	if failed.Kind != contracts.FailureInfrastructure {
		t.Errorf("the failure's kind is %s", failed.Kind)
	}
	if sent := downloaded(g, file); sent > 0 {
		t.Errorf("%d bytes were sent for nothing", sent)
	}

	small := addFile(g, "small.tif", disk/2)
	task = g.Shell(`stat -c %s "$1"`, &contracts.GirderFile{ID: small.ID})
	task.Girder = g.Girder.Of("smaller than the disk")
	job = g.MustSubmit(task)
	g.AwaitSuccess(job)
	if all, _ := g.JobLog(job); all != "33554432\n" {
		t.Errorf("the container's log is %q", all)
	}
	g.AwaitGone("used room", func() []string {
		if free := g.Nodes[0].FreeSpace(); free < empty-mebibyte {
			return []string{"some"}
		}
		return nil
	})
}

// TestAFolderThatIsLargerThanTheDiskLeavesNothing: its size is known when its
// files are listed, some of which are on the disk then.
func TestAFolderThatIsLargerThanTheDiskLeavesNothing(t *testing.T) {
	t.Parallel()
	g := startOnDisk(t, nil)
	top, one := newFolder(g, g.Girder.Folder.ID, "slides"), 1
	for _, name := range []string{"a.tif", "b.tif", "c.tif", "d.tif"} {
		item, err := g.Girder.CreateItem(top.ID, name)
		if err == nil {
			_, err = g.Girder.AddFile(item.ID, name, noise(name, disk/3))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	task := g.Shell(`true`, &contracts.GirderFolder{ID: top.ID})
	task.Retry = &contracts.Retry{MaxCrashes: &one, Backoff: contracts.Duration(1e8)}
	task.Girder = g.Girder.Of("a folder larger than the disk")
	failed := g.AwaitFailure(g.MustSubmit(task))
	if !strings.Contains(failed.Message, "are free") || failed.Kind != contracts.FailureInfrastructure {
		t.Errorf("the failure is %+v", failed)
	}
	g.AwaitSuccess(g.MustSubmit(g.Shell(`true`)))
}
