package transfer

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// TestAFolderIsNotMovedTwice kills transfer when it has half of a folder's files,
// and again when Girder has half of them back: of those that were moved none is
// moved again, but for the few that were on their way.
func TestAFolderIsNotMovedTwice(t *testing.T) {
	t.Parallel()
	// So many downloads and uploads of one step are under way at a time, at most.
	const files, downloads, uploads = 400, 32, 8
	g := start(t, setup.Config{})
	g.MayLoseUploads(uploads)
	top, into := newFolder(g, g.Girder.Folder.ID, "many"), newFolder(g, g.Girder.Folder.ID, "results")
	want := map[string]string{}
	for i := range files {
		name := fmt.Sprintf("%03d.txt", i)
		addSmall(g, top, name)
		want[name] = small(name)
	}
	task := g.Shell(`find "$1" -type f | wc -l`, &contracts.GirderFolder{ID: top.ID, FolderName: "many"})
	task.Outputs = []contracts.Output{uploadFolder(into, filepath.Join(top.ID, "many"))}
	task.Girder = g.Girder.Of("many files")
	kill := func(met <-chan struct{}) {
		select {
		case <-met:
		case <-g.Context().Done():
			t.Fatal("half of the files never came")
		}
		g.Services[setup.Transfer].Kill()
	}
	download := hangAfter(g, files/2, func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/download") })
	job := g.MustSubmit(task)
	kill(download)
	chunk := hangAfter(g, files/2, func(r *http.Request) bool {
		return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/file/chunk")
	})
	g.Services[setup.Transfer].Start()
	kill(chunk)
	g.Girder.SetFault(nil)
	g.Services[setup.Transfer].Start()
	g.AwaitSuccess(job)

	if log, _ := g.JobLog(job); log != fmt.Sprintln(files) {
		t.Errorf("the container's log is %q", log)
	}
	differ(t, "in Girder", filesInGirder(t, g.Girder.Server, into.ID), want)
	if items := g.Girder.Items(into.ID); len(items) != files {
		t.Errorf("in Girder are %d items", len(items))
	}
	if n := len(asked(g, "GET", "/download")); n > files+downloads+1 {
		t.Errorf("%d downloads for %d files", n, files)
	}
	if n := len(asked(g, "POST", "/file")); n > files+uploads {
		t.Errorf("%d uploads for %d files", n, files)
	}
}

// hangAfter lets so many requests of a kind through, holds up all others of it,
// and returns what is closed when the first of those comes.
func hangAfter(g *setup.Gantry, n int, is func(*http.Request) bool) <-chan struct{} {
	var seen atomic.Int64
	met, never := make(chan struct{}), make(chan struct{})
	g.Girder.SetFault(func(r *http.Request) *girdersim.Fault {
		if !is(r) {
			return nil
		}
		switch i := int(seen.Add(1)); {
		case i <= n:
			return nil
		case i == n+1:
			close(met)
		}
		return &girdersim.Fault{Hang: never} // until its client goes
	})
	return met
}
