package girdersim

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// upload sends one chunk, or with offset 0 and no id starts an upload with it.
func (b *bench) upload(t testing.TB, query url.Values, content []byte) (int, map[string]any) {
	t.Helper()
	path := "/file"
	if query.Has("uploadId") {
		path = "/file/chunk"
	}
	query.Set("token", b.token)
	resp, err := http.Post(b.sim.APIURL()+path+"?"+query.Encode(), "application/octet-stream", bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return answer(t, resp)
}

func answer(t testing.TB, resp *http.Response) (int, map[string]any) {
	t.Helper()
	defer resp.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	value, err := decodeJSON(text.Bytes())
	if err != nil {
		t.Fatalf("%s: %v: %s", resp.Status, err, text.String())
	}
	doc, _ := value.(map[string]any)
	return resp.StatusCode, doc
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// TestRestart ends a server in the middle of everything and starts another one
// on the same folder.
func TestRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := Start(Options{Dir: dir, MinimumChunk: 10})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{sim: first}
	b.owner = must[User](t)(first.CreateUser("alice", "password"))
	b.token = must[string](t)(first.UserToken(b.owner.ID, ScopeUser))
	f := must[Folder](t)(first.CreateFolder(b.owner.ID, "data", false))
	i := must[Item](t)(first.CreateItem(f.ID, "item"))
	whole := must[File](t)(first.AddFile(i.ID, "whole.bin", strings.NewReader("all of it")))
	j := must[Job](t)(first.CreateJob(JobSpec{Title: "kept", UserID: b.owner.ID, Args: []any{1, "two", 3.5}}))
	b.call(t, http.MethodPut, "/job/"+j.ID, j.Token, url.Values{"status": {"2"}, "log": {"line\n"}, "progressCurrent": {"0.5"}})
	content := randomBytes(25)
	_, doc := b.upload(t, url.Values{"parentType": {"item"}, "parentId": {i.ID}, "name": {"part.bin"}, "size": {"25"}}, content[:12])
	uploadID := fmt.Sprint(doc["_id"])
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	leaveBehind(t, dir, uploadID, content[12:15])

	b.sim = start(t, Options{Dir: dir, MinimumChunk: 10})
	if got := must[Job](t)(b.sim.Job(j.ID)); got.Status != Running || !slices.Equal(got.Log, []string{"line\n"}) || *got.Progress.Current != 0.5 || len(got.Timestamps) != 1 {
		t.Errorf("job after the restart: %+v", got)
	}
	if text := must[[]byte](t)(b.sim.ReadFile(whole.ID)); string(text) != "all of it" {
		t.Errorf("file after the restart: %q", text)
	}
	if _, doc := b.call(t, http.MethodGet, "/file/offset?uploadId="+uploadID, b.token, nil); fmt.Sprint(doc["offset"]) != "15" {
		t.Fatalf("offset after the restart: %v", doc)
	}
	if status, doc := b.upload(t, url.Values{"uploadId": {uploadID}, "offset": {"15"}}, content[15:]); status != http.StatusOK {
		t.Fatalf("last chunk: %d %v", status, doc)
	}
	files := b.sim.Files(i.ID)
	if len(files) != 2 || !bytes.Equal(must[[]byte](t)(b.sim.ReadFile(files[1].ID)), content) {
		t.Errorf("files of the item: %+v", files)
	}
	if b.sim.OpenUploads() != 0 {
		t.Error("an upload is left")
	}
}

// leaveBehind is what a killed process leaves: half a document, and bytes that
// were not counted.
func leaveBehind(t *testing.T, dir, uploadID string, uncounted []byte) {
	t.Helper()
	half := filepath.Join(dir, "documents", "job", "0123456789abcdef01234567.json.new")
	if err := os.WriteFile(half, []byte(`{"ID": "01234`), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "assetstore", "temp", uploadID), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(uncounted); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestMemoryLeavesNothing(t *testing.T) {
	t.Parallel()
	sim, err := Start(Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir := sim.st.bytes.dir
	if _, err := os.Stat(dir); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := sim.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("bytes after Close: %v", err)
	}
}

// TestSharedBytes stores the same bytes twice; they go with the last file.
func TestSharedBytes(t *testing.T) {
	t.Parallel()
	b := newBench(t, Options{})
	i := must[Item](t)(b.sim.CreateItem(b.sim.Folders(b.owner.ID)[0].ID, "item"))
	one := must[File](t)(b.sim.AddFile(i.ID, "one", strings.NewReader("same")))
	two := must[File](t)(b.sim.AddFile(i.ID, "two", strings.NewReader("same")))
	b.call(t, http.MethodDelete, "/file/"+one.ID, b.token, nil)
	if text := must[[]byte](t)(b.sim.ReadFile(two.ID)); string(text) != "same" {
		t.Errorf("bytes of the other file: %q", text)
	}
	b.call(t, http.MethodDelete, "/file/"+two.ID, b.token, nil)
	if _, err := os.Stat(b.sim.st.bytes.path(two.SHA512)); !os.IsNotExist(err) {
		t.Errorf("bytes that no file has: %v", err)
	}
}
