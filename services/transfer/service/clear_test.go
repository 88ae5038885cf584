package service

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/transfer/internal/journal"
	"github.com/gantry-worker/gantry/services/transfer/internal/stage"
)

// TestEveryUploadOfADeadProcessIsCanceled when its attempt has ended. One that
// Girder does not know any more may have become a file: it stays known to later
// attempts, which then replace that file.
func TestEveryUploadOfADeadProcessIsCanceled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	folder := b.girderFolder("results")
	c, err := girder.New(girder.Options{APIURL: b.sim.APIURL(), Token: b.token})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseIdle()
	step := b.pushFolder("out-0", "out", folder.ID)
	b.note(step, stage.Note{Target: &stage.Target{Path: "out", ID: girder.FolderID(folder.ID)}})
	for i := range 5 {
		up, err := c.StartUpload(t.Context(), girder.NewFile{Parent: girder.InFolder(girder.FolderID(folder.ID)), Name: "r", Size: 6})
		if err != nil {
			t.Fatal(err)
		}
		path := stage.NotedPath(fmt.Sprintf("out/%d", i))
		b.note(step, stage.Note{Pending: &stage.Pending{Path: path, ID: up.ID, Local: stage.Local{Size: 6}, SHA512: "of all of it"}})
	}
	gone := stage.Pending{Path: "out/gone", ID: "0123456789abcdef01234567", Local: stage.Local{Size: 6}, SHA512: "of all of it"}
	b.note(step, stage.Note{Pending: &gone})
	b.append(&contracts.Claimed{Node: b.node, Executor: "y"})
	stop := b.serve()
	b.until("the entry stays", func() bool { return len(b.begun()) == 0 })
	if n := b.sim.OpenUploads(); n != 0 {
		t.Errorf("%d uploads are open", n)
	}
	stop()
	j, err := journal.Open(t.Context(), b.root, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close() //nolint:errcheck // only read
	later := *step
	later.Attempt++
	known, err := j.Earlier(&later)
	if err != nil || len(known) != 1 {
		t.Fatalf("%d attempts are known, %v", len(known), err)
	}
	if diff := cmp.Diff(map[stage.NotedPath]stage.Pending{gone.Path: gone}, known[0].Pending); diff != "" {
		t.Error(diff)
	}
}
