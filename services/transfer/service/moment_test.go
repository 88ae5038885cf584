package service

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/gantry-worker/gantry/services/internal/bus/bustest"
)

// part is when in a request the process dies.
type part int

const (
	before part = iota // the server does not have it
	during             // it has half of the bytes, or the process has
	after              // it has done it, and the process does not know
)

// moment is one request of a process, and the part of it in which it dies.
type moment struct {
	part part
	die  func()
	// halfway waits until half of a download is on disk; may be nil.
	halfway func()

	mu      sync.Mutex
	counts  bool
	left    int      // requests until then
	request string   // the one, when it came
	uploads []string // the ids of those that were begun
}

// begin counts the requests from now on.
func (m *moment) begin() { m.set(true) }

// end lets the process live.
func (m *moment) end() { m.set(false) }

func (m *moment) set(counts bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts = counts
}

// cameAt returns the request, empty while it has not come.
func (m *moment) cameAt() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.request
}

// is reports whether a request is the one.
func (m *moment) is(request string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.counts || m.request != "" {
		return false
	}
	if m.left--; m.left >= 0 {
		return false
	}
	m.request = request
	return true
}

// judge is for the proxy before NATS.
func (m *moment) judge(subject string) bustest.Verdict {
	if !m.is(subject) {
		return bustest.Pass
	}
	m.die()
	if m.part == before {
		return bustest.Cut
	}
	return bustest.LoseAnswer
}

// girder starts a proxy before Girder in which the moment may come. It returns
// its URL, and what waits until Girder has dealt with all that was sent, and
// ends it.
func (m *moment) girder(t *testing.T, api string) (proxied string, settle func()) {
	t.Helper()
	u, err := url.Parse(api)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := r.Clone(r.Context())
		out.URL.Scheme, out.URL.Host, out.RequestURI = u.Scheme, u.Host, ""
		m.pass(w, out, transport)
	}))
	t.Cleanup(proxy.Close)
	return proxy.URL + u.Path, proxy.Close
}

// begun takes in the answer to a request that may have begun an upload.
func (m *moment) begun(r *http.Request, answer []byte) {
	var doc struct {
		ID       string `json:"_id"`
		Received *int64 `json:"received"`
	}
	if r.Method == http.MethodGet || json.Unmarshal(answer, &doc) != nil || doc.Received == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.Contains(m.uploads, doc.ID) {
		m.uploads = append(m.uploads, doc.ID)
	}
}

// unnoted returns those uploads whose ids are not in a text.
func (m *moment) unnoted(text string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(m.uploads), func(id string) bool { return strings.Contains(text, id) })
}

// pass has a request dealt with, also if its process dies meanwhile.
func (m *moment) pass(w http.ResponseWriter, r *http.Request, to http.RoundTripper) {
	dies := m.is(r.Method + " " + r.URL.Path)
	if dies && m.part == before {
		m.die()
		panic(http.ErrAbortHandler)
	}
	r = r.Clone(context.WithoutCancel(r.Context()))
	if dies {
		// The request outlives the process, or half of it.
		body := new(bytes.Buffer)
		_, _ = io.Copy(body, r.Body)
		r.Body = io.NopCloser(body)
		if m.part == during && body.Len() > 0 {
			m.die()
			r.Body = io.NopCloser(io.MultiReader(io.LimitReader(body, int64(body.Len()/2)), broken{}))
		}
	}
	resp, err := to.RoundTrip(r)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer resp.Body.Close()
	if !strings.HasSuffix(r.URL.Path, "/download") {
		answer, _ := io.ReadAll(resp.Body)
		m.begun(r, answer)
		resp.Body = io.NopCloser(bytes.NewReader(answer))
	}
	if dies && (m.part == after || !strings.HasSuffix(r.URL.Path, "/download")) {
		_, _ = io.Copy(io.Discard, resp.Body)
		m.die()
		panic(http.ErrAbortHandler)
	}
	for name, values := range resp.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(resp.StatusCode)
	if dies {
		_, _ = io.CopyN(w, resp.Body, resp.ContentLength/2)
		_ = http.NewResponseController(w).Flush()
		if m.halfway != nil {
			m.halfway()
		}
		m.die()
		panic(http.ErrAbortHandler)
	}
	_, _ = io.Copy(w, resp.Body)
}

// broken is the end of a connection.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
