package girdersim

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"sync"
	"testing"
)

// together runs n functions at once and waits for them.
func together(n int, f func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { f(i) })
	}
	all.Wait()
}

// TestRacingStatus lets two outcomes race: exactly one of them is accepted.
func TestRacingStatus(t *testing.T) {
	t.Parallel()
	b := newBench(t, Options{})
	for range 20 {
		j := must[Job](t)(b.sim.CreateJob(JobSpec{UserID: b.owner.ID, Status: Running}))
		var codes [2]int
		together(2, func(i int) {
			codes[i], _ = b.call(t, http.MethodPut, "/job/"+j.ID, j.Token, url.Values{"status": {strconv.Itoa(Success + i)}, "log": {"end"}})
		})
		if codes[0]+codes[1] != http.StatusOK+http.StatusBadRequest {
			t.Errorf("answers %v", codes)
		}
		if got := must[Job](t)(b.sim.Job(j.ID)); len(got.Timestamps) != 1 || len(got.Log) != 1 {
			t.Errorf("job %+v", got)
		}
	}
}

// TestConcurrentUse does everything at once on one server.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	b := newBench(t, Options{Dir: t.TempDir(), MinimumChunk: 1})
	in := b.sim.Folders(b.owner.ID)[1]
	j := must[Job](t)(b.sim.CreateJob(JobSpec{UserID: b.owner.ID}))
	together(16, func(n int) {
		content := randomBytes(3000 + n)
		status, doc := b.upload(t, url.Values{"parentType": {"folder"}, "parentId": {in.ID}, "name": {"same"}, "size": {strconv.Itoa(len(content))}}, content[:1000])
		if status != http.StatusOK {
			t.Errorf("start upload: %d %v", status, doc)
			return
		}
		_, file := b.upload(t, url.Values{"uploadId": {fmt.Sprint(doc["_id"])}, "offset": {"1000"}}, content[1000:])
		if stored, err := b.sim.ReadFile(fmt.Sprint(file["_id"])); err != nil || !bytes.Equal(stored, content) {
			t.Errorf("upload %d: %d bytes, %v", n, len(stored), err)
		}
		b.call(t, http.MethodPut, "/job/"+j.ID, j.Token, url.Values{"log": {strconv.Itoa(n)}})
		if status, doc := b.call(t, http.MethodGet, "/job/"+j.ID, j.Token, nil); status != http.StatusOK {
			t.Errorf("read job: %d %v", status, doc)
		}
		b.sim.Requests()
		b.sim.FilesIn(in.ID)
	})
	names := map[string]bool{}
	for _, i := range b.sim.Items(in.ID) {
		names[i.Name] = true
	}
	if len(names) != 16 || len(must[Job](t)(b.sim.Job(j.ID)).Log) != 16 || b.sim.OpenUploads() != 0 {
		t.Errorf("%d items, %d uploads", len(names), b.sim.OpenUploads())
	}
}

// TestSameChunkTwice sends one chunk twice at once: it counts once.
func TestSameChunkTwice(t *testing.T) {
	t.Parallel()
	b := newBench(t, Options{MinimumChunk: 1})
	content := randomBytes(100000)
	_, doc := b.upload(t, url.Values{"parentType": {"folder"}, "parentId": {b.sim.Folders(b.owner.ID)[0].ID}, "name": {"f"}, "size": {"200000"}}, nil)
	id := fmt.Sprint(doc["_id"])
	var codes [2]int
	together(2, func(i int) { codes[i], _ = b.upload(t, url.Values{"uploadId": {id}, "offset": {"0"}}, content) })
	if codes[0]+codes[1] != http.StatusOK+http.StatusBadRequest {
		t.Errorf("answers %v", codes)
	}
	_, file := b.upload(t, url.Values{"uploadId": {id}, "offset": {"100000"}}, content)
	if stored := must[[]byte](t)(b.sim.ReadFile(fmt.Sprint(file["_id"]))); !bytes.Equal(stored, append(content, content...)) {
		t.Errorf("stored %d bytes that differ", len(stored))
	}
}

// TestNothingIsAnsweredAfterDown, also on a connection that was accepted before and
// comes to its handler late: Close has closed the store by then.
func TestNothingIsAnsweredAfterDown(t *testing.T) {
	t.Parallel()
	s, err := Start(Options{})
	if err != nil {
		t.Fatal(err)
	}
	late := s.up.servers[0].Handler
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	answer := httptest.NewRecorder()
	defer func() {
		if ended := recover(); ended != http.ErrAbortHandler || answer.Body.Len() > 0 || len(s.Requests()) > 0 {
			t.Errorf("%v, answered %q, requests %v", ended, answer.Body, s.Requests())
		}
	}()
	late.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, apiRoot+"/system/version", nil))
}
