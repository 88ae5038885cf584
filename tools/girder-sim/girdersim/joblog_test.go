package girdersim

import (
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestLogOnDisk appends, overwrites and trims, and reads the log back each time
// as a new process would.
func TestLogOnDisk(t *testing.T) {
	t.Parallel()
	b := newBench(t, Options{Dir: t.TempDir()})
	j := must[Job](t)(b.sim.CreateJob(JobSpec{UserID: b.owner.ID}))
	large := strings.Repeat("x", maxLog/2)
	for _, step := range []struct {
		form url.Values
		want []string
	}{
		{url.Values{"log": {"one\n"}}, []string{"one\n"}},
		{url.Values{"log": {"zwei ü\x00\n"}, "status": {"2"}}, []string{"one\n", "zwei ü\x00\n"}},
		{url.Values{"progressCurrent": {"1"}}, []string{"one\n", "zwei ü\x00\n"}},
		{url.Values{"log": {"anew"}, "overwrite": {"true"}}, []string{"anew"}},
		{url.Values{"log": {"two"}}, []string{"anew", "two"}},
		{url.Values{"log": {large}}, []string{"two", large}},
	} {
		if status, doc := b.call(t, http.MethodPut, "/job/"+j.ID, j.Token, step.form); status != http.StatusOK {
			t.Fatalf("update: %d %v", status, doc)
		}
		if got := must[[]string](t)(b.sim.st.logs.load(j.ID)); !slices.Equal(got, step.want) {
			t.Fatalf("log on disk %.100q, want %.100q", got, step.want)
		}
	}
	if status, _ := b.call(t, http.MethodPut, "/job/"+j.ID, j.Token, url.Values{"log": {"refused"}, "status": {"1"}}); status != http.StatusBadRequest {
		t.Errorf("refused update: %d", status)
	}
	if got := must[[]string](t)(b.sim.st.logs.load(j.ID)); len(got) != 2 {
		t.Errorf("log after a refused update has %d entries", len(got))
	}
	b.call(t, http.MethodDelete, "/job/"+j.ID, b.token, nil)
	if _, err := os.Stat(b.sim.st.logs.path(j.ID)); !os.IsNotExist(err) {
		t.Errorf("log of a deleted job: %v", err)
	}
}

func TestTornLogEntry(t *testing.T) {
	t.Parallel()
	logs, err := openLogFiles(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(logs.path("j"), []byte("\"whole\"\n\"to"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := must[[]string](t)(logs.load("j"))
	if err := logs.save("j", before, append(before, "next")); err != nil {
		t.Fatal(err)
	}
	if got := must[[]string](t)(logs.load("j")); !slices.Equal(got, []string{"whole", "next"}) {
		t.Errorf("log %q", got)
	}
}
