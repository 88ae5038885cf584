package stage

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/services/internal/girder"
)

// recordings finds the folder of what was recorded of Girder and its own
// client, or skips the test.
func recordings(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("GIRDER_CONTRACT"); dir != "" {
		return dir
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for dir != filepath.Dir(dir) {
		found := filepath.Join(dir, "shared", "girder-contract")
		if _, err := os.Stat(found); err == nil {
			return found
		}
		dir = filepath.Dir(dir)
	}
	t.Skip("no recordings: set GIRDER_CONTRACT to the folder that has them")
	return ""
}

func readJSON(t *testing.T, file string, into any) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// flow is what Girder's client asked, what it was answered, and what it had on disk in the end.
type flow struct {
	Name      string `json:"name"`
	Exchanges []struct {
		Method   string `json:"method"`
		Target   string `json:"target"`
		Response string `json:"response"`
	} `json:"exchanges"`
	Result struct {
		Tree []string `json:"tree"`
	} `json:"result"`
}

// serve answers as it was recorded, and a download with as many bytes as the
// file's document says.
func (f *flow) serve(t *testing.T) *girder.Client {
	t.Helper()
	answers, sizes := map[string]string{}, map[string]int{}
	for _, e := range f.Exchanges {
		answers[f.question(t, e.Target)] = e.Response
		var docs []struct {
			ID   string `json:"_id"`
			Size int    `json:"size"`
		}
		if json.Unmarshal([]byte(e.Response), &docs) == nil {
			for _, doc := range docs {
				sizes[doc.ID] = doc.Size
			}
		}
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		question := f.question(t, r.URL.RequestURI())
		answer, known := answers[question]
		if before, ok := strings.CutSuffix(question, "offset=49"); ok { // recorded from 50 on
			answer, known = overlapping(t, answers[before+"offset=0"], answers[before+"offset=50"]), true
		}
		if file, ok := strings.CutSuffix(r.URL.Path, "/download"); ok && known {
			answer = strings.Repeat("x", sizes[filepath.Base(file)])
		}
		if !known {
			t.Errorf("%s was not recorded", question)
		}
		fmt.Fprint(w, answer)
	}))
	t.Cleanup(server.Close)
	c, err := girder.New(girder.Options{APIURL: server.URL + "/api/v1", Retry: girder.Retry{Total: -1}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdle)
	return c
}

// overlapping is a page that begins with the last document of the one before.
func overlapping(t *testing.T, before, behind string) string {
	t.Helper()
	var first, second []json.RawMessage
	if err := errors.Join(json.Unmarshal([]byte(before), &first), json.Unmarshal([]byte(behind), &second)); err != nil || len(first) == 0 {
		t.Errorf("pages %q and %q: %v", before, behind, err)
		return "[]"
	}
	page, err := json.Marshal(append(first[len(first)-1:], second...))
	if err != nil {
		t.Error(err)
	}
	return string(page)
}

// question is a request without the order that is asked for: all lists were
// recorded in Girder's own, and none of these is longer than a page.
func (f *flow) question(t *testing.T, target string) string {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	query.Del("sort")
	query.Del("sortdir")
	return u.Path + "?" + query.Encode()
}

// TestRecordedLayouts lays out what Girder's own client was seen to download,
// and compares with what it made of it.
func TestRecordedLayouts(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(recordings(t), "client-flows")
	for _, name := range []string{
		"01-download-item-one-file-same-name", "03-download-item-one-file-other-name", "04-download-item-many", "05-download-item-empty",
		"07-download-item-fifty", "08-download-item-slash", "09-download-item-traversal", "10-download-item-zero-bytes",
	} {
		var f flow
		readJSON(t, filepath.Join(folder, name+".json"), &f)
		id := strings.TrimPrefix(f.Exchanges[0].Target, "/api/v1/item/")
		volume := t.TempDir()
		staged, err := In{Source: f.serve(t), Item: girder.ItemID(id), Volume: volume, Retry: quick}.Run(t.Context())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := slices.Clone(f.Result.Tree)
		slices.Sort(want)
		if diff := cmp.Diff(want, described(t, filepath.Join(volume, id))); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
		if first, _, _ := strings.Cut(strings.Split(want[0], " (")[0], "/"); staged.Path != id+"/"+first {
			t.Errorf("%s: the path is %s", name, staged.Path)
		}
	}
}

func TestRecordedLayoutOfAFolder(t *testing.T) {
	t.Parallel()
	var f flow
	readJSON(t, filepath.Join(recordings(t), "client-flows", "12-download-folder.json"), &f)
	_, id, _ := strings.Cut(f.Exchanges[0].Target, "parentId=")
	// The client was told the folder's name, and did not ask.
	f.Exchanges = append(f.Exchanges, f.Exchanges[0])
	f.Exchanges[len(f.Exchanges)-1].Target = "/api/v1/folder/" + id
	f.Exchanges[len(f.Exchanges)-1].Response = `{"_id": "` + id + `", "name": "top"}`
	volume := t.TempDir()
	if _, err := (In{Source: f.serve(t), Folder: girder.FolderID(id), Volume: volume, Retry: quick}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := slices.Clone(f.Result.Tree)
	slices.Sort(want)
	if diff := cmp.Diff(want, described(t, filepath.Join(volume, id, "top"))); diff != "" {
		t.Error(diff)
	}
}

// described lists what is below a folder as the recordings do.
func described(t *testing.T, folder string) []string {
	t.Helper()
	var all []string
	for path, content := range layout(t, folder) {
		if !strings.HasSuffix(path, "/") {
			path = fmt.Sprintf("%s (%d bytes)", path, len(content))
		}
		all = append(all, path)
	}
	slices.Sort(all)
	return all
}

// TestRecordedNames: ours are those of Girder's client, but for those that no
// file can have.
func TestRecordedNames(t *testing.T) {
	t.Parallel()
	var matrix struct {
		Rows []struct{ Name, Local string } `json:"rows"`
	}
	readJSON(t, filepath.Join(recordings(t), "matrices", "client-name-transform.json"), &matrix)
	if len(matrix.Rows) == 0 {
		t.Fatal("no rows")
	}
	for _, row := range matrix.Rows {
		if row.Local == "" || strings.Contains(row.Local, "\x00") || len(row.Local) > maxName {
			continue
		}
		if got := localName(row.Name); got != row.Local {
			t.Errorf("%q becomes %q, not %q", row.Name, got, row.Local)
		}
	}
}
