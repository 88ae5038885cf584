package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
)

func TestSpan(t *testing.T) {
	t.Parallel()
	at := func(seconds int, kind contracts.EntryType) *contracts.Entry {
		return &contracts.Entry{Type: kind, Time: time.Unix(int64(seconds), 0)}
	}
	life := []*contracts.Entry{
		at(1, contracts.EntryClaimed), at(4, contracts.EntryPushing), at(5, contracts.EntryPushed), at(9, contracts.EntryPushed), at(10, contracts.EntrySucceeded),
	}
	if got, err := pushed(life); err != nil || got != 5*time.Second {
		t.Errorf("%s, %v", got, err)
	}
	for what, bad := range map[string][]*contracts.Entry{"nothing was pushed": life[:2], "it never began": life[2:], "nothing": nil} {
		if got, err := pushed(bad); err == nil {
			t.Errorf("%s: %s", what, got)
		}
	}
}

func TestUploadID(t *testing.T) {
	t.Parallel()
	answer := filepath.Join(t.TempDir(), "answer")
	for text, want := range map[string]string{`{"_id": "5f", "received": 0}`: "5f", `{"message": "no"}`: "", "<p>no": ""} {
		if err := os.WriteFile(answer, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := uploadID(answer); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
}

// TestCurlDoesTheWork: what Gantry is measured against has to be all of it.
func TestCurlDoesTheWork(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("there is no curl")
	}
	g, err := startGirder(2 * chunkSize)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.close(); err != nil {
			t.Error(err)
		}
	}()
	t.Run("chunks", func(t *testing.T) { testChunks(t, g) })
	t.Run("small uploads", func(t *testing.T) { testUploads(t, g) })
	t.Run("small downloads", func(t *testing.T) { testDownloads(t, g) })
}

func testChunks(t *testing.T, g *girder) {
	const size = chunkSize + 1<<20
	file, parts := filepath.Join(t.TempDir(), "big"), filepath.Join(t.TempDir(), "parts")
	if err := g.writeBig(file, parts, size); err != nil {
		t.Fatal(err)
	}
	item, err := g.item()
	if err != nil {
		t.Fatal(err)
	}
	spent, err := curlChunks(t.Context(), g, item.ID, parts, size)
	if err != nil || spent.took <= 0 || spent.busy <= 0 {
		t.Fatalf("%+v, %v", spent, err)
	}
	there := g.sim.Files(item.ID)
	want, err := os.ReadFile(file)
	if err != nil || len(there) != 1 {
		t.Fatal(there, err)
	}
	if got, err := g.sim.ReadFile(there[0].ID); err != nil || string(got) != string(want) {
		t.Errorf("%d bytes of %d are there, or others: %v", len(got), size, err)
	}
}

func testUploads(t *testing.T, g *girder) {
	const files = 20
	folder := filepath.Join(t.TempDir(), "small")
	if err := g.writeSmall(folder, files); err != nil {
		t.Fatal(err)
	}
	into, err := g.sim.CreateFolder(g.folder.ID, "uploads", false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := curlUploads(t.Context(), g, into.ID, folder, filepath.Join(t.TempDir(), "answers"), files); err != nil {
		t.Fatal(err)
	}
	there := g.sim.FilesIn(into.ID)
	if len(there) != files || g.sim.OpenUploads() != 0 {
		t.Fatalf("%d files, %d open uploads", len(there), g.sim.OpenUploads())
	}
	for _, file := range there {
		want, err := os.ReadFile(filepath.Join(folder, file.Name))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := g.sim.ReadFile(file.ID); err != nil || string(got) != string(want) {
			t.Errorf("%s is another: %v", file.Name, err)
		}
	}
}

func testDownloads(t *testing.T, g *girder) {
	const count = 100
	top, files, err := g.tree(count)
	if err != nil || len(files) != count || len(g.sim.Folders(top)) != inFolders {
		t.Fatal(top, len(files), err)
	}
	g.sim.ForgetRequests()
	into := filepath.Join(t.TempDir(), "small")
	spent, err := curlFiles(t.Context(), g, files, into)
	if err != nil || spent.cached <= 0 || spent.took < spent.cached {
		t.Fatalf("%+v, %v", spent, err)
	}
	for _, file := range files {
		want, err := g.sim.ReadFile(file.id)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(into, file.path)); err != nil || string(got) != string(want) {
			t.Errorf("%s is another: %v", file.path, err)
		}
	}
	var sent int64
	for _, request := range g.sim.Requests() {
		sent += request.Sent
	}
	if sent != count*smallSize {
		t.Errorf("Girder sent %d bytes", sent)
	}
}
