package girdersim

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestArtifacts attaches files to a job, where that is switched on.
func TestArtifacts(t *testing.T) {
	t.Parallel()
	for _, on := range []bool{true, false} {
		sim := start(t, Options{Artifacts: on})
		alice, err := sim.CreateUser("alice", "password")
		if err != nil {
			t.Fatal(err)
		}
		bob, err := sim.CreateUser("bob", "password")
		if err != nil {
			t.Fatal(err)
		}
		job, err := sim.CreateJob(JobSpec{Title: "t", UserID: alice.ID})
		if err != nil {
			t.Fatal(err)
		}
		owner, stranger := userToken(t, sim, alice.ID), userToken(t, sim, bob.ID)
		ask := func(method, query, token, body string) (int, string) {
			t.Helper()
			req, err := http.NewRequestWithContext(t.Context(), method, sim.APIURL()+"/job/"+job.ID+"/artifact"+query, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Girder-Token", token)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			return resp.StatusCode, string(text)
		}
		if !on {
			if status, text := ask("POST", "?name=a&size=1", owner, "x"); status != 400 || !strings.Contains(text, "No matching route") {
				t.Error(status, text)
			}
			continue
		}
		for query, want := range map[string]int{"?name=a&size=3&mimeType=text/csv": 200, "?name=b&size=4": 400, "?size=3": 400} {
			if status, text := ask("POST", query, owner, "abc"); status != want {
				t.Error(query, status, text)
			}
		}
		if status, _ := ask("POST", "?name=c&size=3", job.Token, "abc"); status != 200 {
			t.Error("by the job's token:", status)
		}
		for token, want := range map[string]int{stranger: 403, "": 401} {
			if status, _ := ask("POST", "?name=c&size=3", token, "abc"); status != want {
				t.Error(status, "instead of", want)
			}
		}
		status, text := ask("GET", "", owner, "")
		var listed []map[string]any
		if err := json.Unmarshal([]byte(text), &listed); status != 200 || err != nil || len(listed) != 2 || listed[0]["name"] != "a" || listed[0]["mimeType"] != "text/csv" {
			t.Error(status, text, err)
		}
		found := sim.Artifacts(job.ID)
		if len(found) != 2 {
			t.Fatal(found)
		}
		if data, err := sim.ReadFile(found[0].ID); err != nil || string(data) != "abc" || sim.OpenUploads() != 0 {
			t.Errorf("%q, %v, %d uploads", data, err, sim.OpenUploads())
		}
	}
}

func userToken(t *testing.T, sim *Server, user string) string {
	t.Helper()
	token, err := sim.UserToken(user, ScopeDataRead, ScopeDataWrite)
	if err != nil {
		t.Fatal(err)
	}
	return token
}
