package girder_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// TestSimPages goes through lists page by page, with names that are equal but
// for their case, which Girder's own order does not tell apart.
func TestSimPages(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	c := s.client(t, s.token)
	parent := girder.FolderID(s.item.FolderID)
	var made []string
	for i := range girder.PageSize + 7 {
		name := []string{"a", "A"}[i%2] + strings.Repeat("x", i/2)
		if _, err := s.Server.CreateItem(s.item.FolderID, name); err != nil {
			t.Fatal(err)
		}
		made = append(made, name)
	}
	var found []string
	for _, offset := range []int{0, girder.PageSize} {
		page, err := c.ItemsPage(t.Context(), parent, offset)
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range page {
			if item.Name != s.item.Name {
				found = append(found, item.Name)
			}
		}
	}
	if diff := cmp.Diff(made, found); diff != "" {
		t.Error(diff)
	}
	newest, err := c.NewestItems(t.Context(), parent, 0)
	if err != nil || len(newest) != girder.PageSize || newest[0].Name != made[len(made)-1] || newest[0].Created == "" {
		t.Error(newest, err)
	}
	folder, err := c.CreateFolder(t.Context(), parent, "sub", true)
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.CreateFolder(t.Context(), parent, "sub", true)
	if err != nil || again.ID != folder.ID {
		t.Error(again, err)
	}
	if _, err := c.CreateFolder(t.Context(), parent, "a", true); !errors.Is(err, girder.ErrValidation) {
		t.Error("a folder of an item's name:", err)
	}
	page, err := c.FoldersPage(t.Context(), parent, 0)
	if err != nil || len(page) != 1 || page[0].ID != folder.ID {
		t.Error(page, err)
	}
	for name, err := range map[string]error{
		"files": second(c.FilesPage(t.Context(), "../x", 0)), "items": second(c.ItemsPage(t.Context(), "", 0)),
		"folders": second(c.FoldersPage(t.Context(), "a/b", 0)), "newest": second(c.NewestItems(t.Context(), "?", 0)),
		"artifacts": second(c.JobArtifacts(t.Context(), "x/y")),
	} {
		var bad *girder.BadIDError
		if !errors.As(err, &bad) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestSimArtifacts(t *testing.T) {
	t.Parallel()
	s := startSiteWith(t, girdersim.Options{Artifacts: true})
	c := s.client(t, s.token)
	job, err := s.CreateJob(girdersim.JobSpec{Title: "t", UserID: s.user.ID})
	if err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"", "abc"} {
		a := girder.Artifact{Name: fmt.Sprint(len(content), " bytes & more"), Size: int64(len(content))}
		file, err := c.UploadArtifact(t.Context(), girder.JobID(job.ID), a, strings.NewReader(content))
		if err != nil || file.Name != a.Name || file.Size == nil || *file.Size != a.Size {
			t.Errorf("%+v: %+v, %v", a, file, err)
		}
	}
	found, err := c.JobArtifacts(t.Context(), girder.JobID(job.ID))
	if err != nil || len(found) != 2 {
		t.Error(found, err)
	}
	if _, err := c.JobArtifacts(t.Context(), "0123456789abcdef01234567"); !errors.Is(err, girder.ErrNotFound) {
		t.Error(err)
	}
}
