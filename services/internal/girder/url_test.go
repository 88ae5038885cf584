package girder

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestRewrite(t *testing.T) {
	t.Parallel()
	const base = "http://girder:8080/sub/api/v1/"
	for raw, want := range map[string]string{
		"https://girder.example.org/api/v1":              "http://girder:8080/sub/api/v1",
		"https://girder.example.org/api/v1/":             "http://girder:8080/sub/api/v1/",
		"https://host/girder/api/v1/job/5f0c":            "http://girder:8080/sub/api/v1/job/5f0c",
		"http://127.0.0.1:8080/api/v1/file/5f0c?a=/b%2F": "http://girder:8080/sub/api/v1/file/5f0c?a=/b%2F",
		"https://host/other":                             "",
		"ftp://host/api/v1":                              "",
		"/api/v1/job":                                    "",
		"https://host/api/v1x/job":                       "",
	} {
		got, err := Rewrite(raw, base)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v; want %q", raw, got, err, want)
		}
	}
	if got, err := Rewrite("anything", ""); got != "anything" || err != nil {
		t.Error(got, err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	for _, api := range []string{"", "girder", "ftp://host/api/v1", "http://", "http://user:pw-secret@host/api/v1", "http://[::1"} {
		if _, err := New(Options{APIURL: api}); err == nil || strings.Contains(err.Error(), "pw-secret") {
			t.Errorf("%q: %v", api, err)
		}
	}
}

func TestJobClient(t *testing.T) {
	t.Parallel()
	for _, number := range []int{221, 230, 311} {
		e := exchangeNamed(t, number)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if line, want := r.Method+" "+r.URL.Path, e.Request.Method+" "+e.Request.Path; line != want {
				t.Errorf("request: recorded %s, sent %s", want, line)
			}
			if r.Header.Get(TokenHeader) != "of-the-job" || r.Header.Get("X-Other") != "1" {
				t.Errorf("headers %v", r.Header)
			}
			e.answerWith(w)
		}))
		j, err := NewJobClient(JobSpec{
			Method: "put", URL: server.URL + e.Request.Path, Headers: map[string]string{"girder-token": "of-the-job", "X-Other": "1"},
		}, Options{Retry: Retry{Total: -1}})
		if err != nil {
			t.Fatal(err)
		}
		job, err := Job{}, error(nil)
		if e.Request.Method == http.MethodGet {
			job, err = j.Get(t.Context())
		} else {
			job, err = j.Update(t.Context(), JobUpdate{Log: "x"})
		}
		if err != nil || string(job.ID) != e.id() {
			t.Errorf("%s: %+v, %v", e.Name, job, err)
		}
		j.CloseIdle()
		server.Close()
	}
}

func TestJobSpecIsChecked(t *testing.T) {
	t.Parallel()
	for _, spec := range []JobSpec{
		{}, {URL: "job/1"}, {URL: "http://h/api/v1/job/1", Method: "DELETE"}, {URL: "http://h/api/v1/job/1?token=x"},
	} {
		if _, err := NewJobClient(spec, Options{}); err == nil {
			t.Errorf("%+v is accepted", spec)
		}
	}
}
