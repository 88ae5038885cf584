package girdersim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// always is a fault function for every request.
func always(f Fault) func(*http.Request) *Fault { return func(*http.Request) *Fault { return &f } }

func TestFaultStatus(t *testing.T) {
	t.Parallel()
	sim := start(t, Options{})
	sim.SetFault(always(Fault{Status: http.StatusServiceUnavailable, RetryAfter: "3", Body: "<p>busy</p>", ContentType: "text/html"}))
	resp, err := http.Get(sim.APIURL() + "/system/version")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "3" || string(text) != "<p>busy</p>" {
		t.Errorf("%s %q %v", resp.Status, text, err)
	}
	sim.SetFault(nil)
	resp, err = http.Get(sim.APIURL() + "/system/version")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("after the fault: %v %v", resp, err)
	}
	resp.Body.Close()
}

// TestFaultLostAnswer carries an update out and closes the connection instead
// of answering.
func TestFaultLostAnswer(t *testing.T) {
	t.Parallel()
	b := newBench(t, Options{})
	j := must[Job](t)(b.sim.CreateJob(JobSpec{UserID: b.owner.ID}))
	b.sim.SetFault(always(Fault{Perform: true, Close: true}))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, j.URL+"?log=lost&token="+j.Token, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := (&http.Transport{}).RoundTrip(req); err == nil {
		resp.Body.Close()
		t.Error("an answer came back")
	}
	if got := must[Job](t)(b.sim.Job(j.ID)); !slices.Equal(got.Log, []string{"lost"}) {
		t.Errorf("log %q", got.Log)
	}
}

func TestFaultCut(t *testing.T) {
	t.Parallel()
	b := newBench(t, Options{})
	content := strings.Repeat("x", 200000)
	i := must[Item](t)(b.sim.CreateItem(b.sim.Folders(b.owner.ID)[0].ID, "item"))
	f := must[File](t)(b.sim.AddFile(i.ID, "f", strings.NewReader(content)))
	b.sim.SetFault(always(Fault{CutAfter: 70000}))
	resp, err := http.Get(b.sim.APIURL() + "/file/" + f.ID + "/download?token=" + b.token)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if n != 70000 || !errors.Is(err, io.ErrUnexpectedEOF) || resp.ContentLength != int64(len(content)) {
		t.Errorf("%d bytes of %d, %v", n, resp.ContentLength, err)
	}
}

func TestFaultHang(t *testing.T) {
	t.Parallel()
	sim := start(t, Options{})
	released, entered := make(chan struct{}), make(chan struct{})
	var once sync.Once
	sim.SetFault(func(*http.Request) *Fault {
		once.Do(func() { close(entered) })
		return &Fault{Hang: released}
	})
	result := make(chan error, 1)
	go func() {
		resp, err := http.Get(sim.APIURL() + "/system/version")
		if err == nil {
			err = resp.Body.Close()
		}
		result <- err
	}()
	<-entered
	select {
	case err := <-result:
		t.Fatalf("answered while it should hang: %v", err)
	default:
	}
	close(released)
	if err := <-result; err != nil {
		t.Errorf("after the release: %v", err)
	}
}

// TestDownReleasesHanging shows that Down ends requests that hang for ever.
func TestDownReleasesHanging(t *testing.T) {
	t.Parallel()
	sim := start(t, Options{})
	entered := make(chan struct{})
	sim.SetFault(func(*http.Request) *Fault {
		close(entered)
		return &Fault{Hang: make(chan struct{})}
	})
	result := make(chan error, 1)
	go func() {
		_, err := (&http.Transport{}).RoundTrip(must[*http.Request](t)(http.NewRequest(http.MethodPost, sim.APIURL()+"/x", strings.NewReader("x"))))
		result <- err
	}()
	<-entered
	sim.Down()
	if err := <-result; err == nil {
		t.Error("an answer came back")
	}
}

func TestDownAndUp(t *testing.T) {
	t.Parallel()
	b := newBench(t, Options{})
	address := b.sim.APIURL()
	for range 3 {
		b.sim.Down()
		if resp, err := http.Get(address + "/system/version"); err == nil {
			resp.Body.Close()
			t.Fatal("answered while down")
		}
		if err := b.sim.Up(); err != nil {
			t.Fatal(err)
		}
		if status, doc := b.call(t, http.MethodGet, "/user/me", b.token, nil); status != http.StatusOK || doc["login"] != "alice" {
			t.Fatalf("after Up: %d %v", status, doc)
		}
	}
}

func TestAwaitJob(t *testing.T) {
	t.Parallel()
	b := newBench(t, Options{})
	j := must[Job](t)(b.sim.CreateJob(JobSpec{UserID: b.owner.ID}))
	result := make(chan Job, 1)
	go func() {
		done, err := b.sim.AwaitJob(t.Context(), j.ID, func(j Job) bool { return j.Status == Success })
		if err != nil {
			t.Errorf("await: %v", err)
		}
		result <- done
	}()
	for _, status := range []string{"1", "2", "3"} {
		b.call(t, http.MethodPut, "/job/"+j.ID, j.Token, url.Values{"status": {status}, "log": {status}})
	}
	if done := <-result; fmt.Sprint(done.Statuses()) != "[1 2 3]" || fmt.Sprint(done.Log) != "[1 2 3]" {
		t.Errorf("job %+v", done)
	}
	if _, err := b.sim.AwaitRequest(t.Context(), func(r Request) bool { return r.Method == http.MethodPut && r.Status == 200 }); err != nil {
		t.Errorf("await request: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("no longer wanted")
	cancel(why)
	if _, err := b.sim.AwaitJob(ctx, j.ID, func(Job) bool { return false }); !errors.Is(err, why) {
		t.Errorf("await in vain: %v", err)
	}
	if _, err := b.sim.AwaitJob(t.Context(), "none", nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("await an unknown job: %v", err)
	}
}

func TestLatencyEndsWithTheServer(t *testing.T) {
	t.Parallel()
	sim := start(t, Options{})
	entered := make(chan struct{})
	sim.SetFault(func(*http.Request) *Fault {
		close(entered)
		return &Fault{Delay: time.Hour}
	})
	result := make(chan error, 1)
	go func() {
		_, err := (&http.Transport{}).RoundTrip(must[*http.Request](t)(http.NewRequest(http.MethodPost, sim.APIURL()+"/x", strings.NewReader("x"))))
		result <- err
	}()
	<-entered
	sim.Down()
	if err := <-result; err == nil {
		t.Error("an answer came back")
	}
}
