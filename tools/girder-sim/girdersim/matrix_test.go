package girdersim

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// matrix is a table of recorded job answers.
type matrix[Row any] struct{ Rows []Row }

func loadMatrix[Row any](t *testing.T, name string) []Row {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(contractDir(t), "matrices", name))
	if err != nil {
		t.Fatal(err)
	}
	var m matrix[Row]
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	if len(m.Rows) == 0 {
		t.Fatalf("%s has no rows", name)
	}
	return m.Rows
}

// bench is a server with a user who has jobs.
type bench struct {
	sim   *Server
	owner User
	token string // the owner's
}

func newBench(t testing.TB, o Options) *bench {
	t.Helper()
	b := &bench{sim: start(t, o)}
	b.owner = must[User](t)(b.sim.CreateUser("alice", "password"))
	b.token = must[string](t)(b.sim.UserToken(b.owner.ID, ScopeUser))
	return b
}

// call sends parameters in the query and returns status and document.
func (b *bench) call(t testing.TB, method, path, token string, parameters url.Values) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, b.sim.APIURL()+path, strings.NewReader(parameters.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Girder-Token", token)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var doc map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil {
		t.Fatalf("%s %s: %s: %v", method, path, resp.Status, err)
	}
	return resp.StatusCode, doc
}

// jobIn makes a job of the handler, which may be none, in a status.
func (b *bench) jobIn(t testing.TB, handler *string, hasTask bool, status int) Job {
	t.Helper()
	spec := JobSpec{UserID: b.owner.ID, Other: map[string]any{"handler": handler}}
	if !hasTask {
		spec.Other["celeryTaskId"] = nil
	}
	j := must[Job](t)(b.sim.CreateJob(spec))
	if err := b.sim.SetJobStatus(j.ID, status); err != nil {
		t.Fatal(err)
	}
	return j
}

func (b *bench) status(t testing.TB, id string) int {
	t.Helper()
	return must[Job](t)(b.sim.Job(id)).Status
}

func TestJobTransitions(t *testing.T) {
	t.Parallel()
	rows := loadMatrix[struct {
		Handler                     *string
		From, To, HTTP, StatusAfter int
		Body                        map[string]any
	}](t, "job-transitions.json")
	b := newBench(t, Options{})
	for _, row := range rows {
		name := fmt.Sprintf("%s from %d to %d", handlerName(row.Handler), row.From, row.To)
		j := b.jobIn(t, row.Handler, true, row.From)
		status, doc := b.call(t, http.MethodPut, "/job/"+j.ID, j.Token, url.Values{"status": {strconv.Itoa(row.To)}})
		if status != row.HTTP || (row.Body != nil && fmt.Sprint(doc) != fmt.Sprint(row.Body)) {
			t.Errorf("%s: %d %v, recorded %d %v", name, status, doc, row.HTTP, row.Body)
		}
		if after := b.status(t, j.ID); after != row.StatusAfter {
			t.Errorf("%s: status %d afterwards, recorded %d", name, after, row.StatusAfter)
		}
	}
}

func handlerName(handler *string) string {
	if handler == nil {
		return "no handler"
	}
	return *handler
}

func TestJobCancel(t *testing.T) {
	t.Parallel()
	rows := loadMatrix[struct {
		Handler                 *string
		CeleryTaskID            bool
		From, HTTP, StatusAfter int
		StatusInResponse        *float64
		Body                    map[string]any
	}](t, "job-cancel.json")
	b := newBench(t, Options{})
	for _, row := range rows {
		name := fmt.Sprintf("%s from %d, task %v", handlerName(row.Handler), row.From, row.CeleryTaskID)
		j := b.jobIn(t, row.Handler, row.CeleryTaskID, row.From)
		status, doc := b.call(t, http.MethodPut, "/job/"+j.ID+"/cancel", b.token, nil)
		if status != row.HTTP || (row.Body != nil && fmt.Sprint(doc) != fmt.Sprint(row.Body)) {
			t.Errorf("%s: %d %v, recorded %d %v", name, status, doc, row.HTTP, row.Body)
		}
		if row.StatusInResponse != nil && doc["status"] != *row.StatusInResponse {
			t.Errorf("%s: answered status %v, recorded %v", name, doc["status"], *row.StatusInResponse)
		}
		if after := b.status(t, j.ID); after != row.StatusAfter {
			t.Errorf("%s: status %d afterwards, recorded %d", name, after, row.StatusAfter)
		}
		own := b.jobIn(t, row.Handler, row.CeleryTaskID, row.From)
		canceled, err := b.sim.CancelJob(own.ID)
		if (err == nil) != (row.HTTP == http.StatusOK) || b.status(t, own.ID) != row.StatusAfter {
			t.Errorf("%s: CancelJob gives %d, %v", name, canceled.Status, err)
		}
	}
}

func TestJobLogTruncation(t *testing.T) {
	t.Parallel()
	rows := loadMatrix[struct{ Appended, LogAfter []string }](t, "job-log-truncation.json")
	b := newBench(t, Options{})
	j := must[Job](t)(b.sim.CreateJob(JobSpec{}))
	for _, row := range rows {
		for _, entry := range row.Appended {
			if status, doc := b.call(t, http.MethodPut, "/job/"+j.ID, j.Token, url.Values{"log": {spell(t, entry)}}); status != http.StatusOK {
				t.Fatalf("append %s: %d %v", entry, status, doc)
			}
		}
		var want []string
		for _, entry := range row.LogAfter {
			want = append(want, spell(t, entry))
		}
		if got := must[Job](t)(b.sim.Job(j.ID)).Log; !slices.Equal(got, want) {
			t.Errorf("after %v: %d entries, recorded %v", row.Appended, len(got), row.LogAfter)
		}
	}
}

// spell writes out an entry such as "a*1048576".
func spell(t *testing.T, entry string) string {
	t.Helper()
	letter, times, _ := strings.Cut(entry, "*")
	n, err := strconv.Atoi(times)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Repeat(letter, n)
}

// A large chunk with a wrong offset is refused before it is read.
func TestRefusedLargeChunk(t *testing.T) {
	t.Parallel()
	rows := loadMatrix[struct {
		Status int
		Body   map[string]any
	}](t, "refused-large-chunk.json")
	b := newBench(t, Options{})
	folder := must[Folder](t)(b.sim.CreateFolder(b.owner.ID, "data", false))
	const size = 20 << 20
	status, upload := b.call(t, http.MethodPost, "/file", b.token, url.Values{
		"parentType": {"folder"}, "parentId": {folder.ID}, "name": {"large"}, "size": {strconv.Itoa(size)},
	})
	if status != http.StatusOK {
		t.Fatalf("begin upload: %d %v", status, upload)
	}
	for i, row := range rows {
		target := fmt.Sprintf("%s/file/chunk?offset=7&uploadId=%s", b.sim.APIURL(), upload["_id"])
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, target, io.LimitReader(endless('x'), 10<<20))
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = 10 << 20
		req.Header.Set("Girder-Token", b.token)
		req.Header.Set("Expect", "100-continue") // or the answer may be lost with the connection
		resp, err := (&http.Client{Transport: &http.Transport{ExpectContinueTimeout: patience, DisableKeepAlives: true}}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var doc map[string]any
		err = json.NewDecoder(resp.Body).Decode(&doc)
		resp.Body.Close()
		if err != nil || resp.StatusCode != row.Status || fmt.Sprint(doc) != fmt.Sprint(row.Body) {
			t.Errorf("try %d: %d %v, recorded %d %v, %v", i+1, resp.StatusCode, doc, row.Status, row.Body, err)
		}
	}
	if status, doc := b.call(t, http.MethodGet, "/file/offset?uploadId="+fmt.Sprint(upload["_id"]), b.token, nil); status != http.StatusOK || fmt.Sprint(doc["offset"]) != "0" {
		t.Errorf("offset afterwards: %d %v", status, doc)
	}
}
