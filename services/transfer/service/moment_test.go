package service

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

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
	left    int    // requests until then
	request string // the one, when it came
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

// girder starts a proxy before Girder in which the moment may come, and
// returns its URL.
func (m *moment) girder(t *testing.T, api string) string {
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
	return proxy.URL + u.Path
}

func (m *moment) pass(w http.ResponseWriter, r *http.Request, to http.RoundTripper) {
	dies := m.is(r.Method + " " + r.URL.Path)
	if dies && m.part == before {
		m.die()
		panic(http.ErrAbortHandler)
	}
	if dies {
		// The request outlives the process, or half of it.
		body := new(bytes.Buffer)
		_, _ = io.Copy(body, r.Body)
		r = r.Clone(context.WithoutCancel(r.Context()))
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
