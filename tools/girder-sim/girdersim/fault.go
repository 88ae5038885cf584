package girdersim

import (
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Fault is how one request goes wrong. Its parts combine in the order of the
// fields: a delay, then a hang, then an answer other than the true one.
type Fault struct {
	Delay time.Duration   // before anything else happens
	Hang  <-chan struct{} // wait until it is closed, the client goes or the server does

	Perform bool // carry the request out although its answer is lost to Status or Close

	Status      int    // answer with this status instead
	Body        string // with Status; empty: an error of Girder's kind
	ContentType string // of Body; empty: application/json
	RetryAfter  string // the header of that name, with Status

	Close    bool  // close the connection without an answer
	CutAfter int64 // close it after so many bytes of the answer's body; 0: do not
}

// faults is the fault function in use.
type faults struct {
	mu     sync.Mutex
	choose func(*http.Request) *Fault
}

// SetFault lets the function decide about the fate of each request from now on.
// It returns nil for a request that shall succeed, must not read the body, and
// may be called by several goroutines at once. SetFault(nil) ends all faults.
func (s *Server) SetFault(choose func(*http.Request) *Fault) {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.choose = choose
}

func (f *faults) of(r *http.Request) *Fault {
	f.mu.Lock()
	choose := f.choose
	f.mu.Unlock()
	if choose == nil {
		return nil
	}
	return choose(r)
}

// serve has a request answered, or lets it fail, and notes it in the log.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, store bool, answer http.HandlerFunc) {
	rec := &recorder{ResponseWriter: w}
	body := &counted{ReadCloser: r.Body}
	r.Body = body
	defer func() {
		s.log.add(Request{
			Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery, Range: r.Header.Get("Range"), ObjectStore: store,
			Status: rec.status, Sent: rec.sent, Received: body.n.Load(),
		})
		s.options.Log.Debug().Str("method", r.Method).Str("path", r.URL.Path).Int("status", rec.status).Msg("request")
	}()
	fault := s.faults.of(r)
	if fault == nil {
		fault = &Fault{}
	}
	if !pause(r, s.options.Latency+fault.Delay) || !hang(r, fault.Hang) {
		panic(http.ErrAbortHandler)
	}
	if fault.Perform && (fault.Close || fault.Status != 0) {
		answer(&discard{header: http.Header{}}, r)
	}
	switch {
	case fault.Close:
		panic(http.ErrAbortHandler)
	case fault.Status != 0:
		fault.answer(rec)
	case fault.CutAfter > 0:
		answer(&cut{recorder: rec, left: fault.CutAfter}, r)
	default:
		answer(rec, r)
	}
}

// counted counts what is read of a request's body.
type counted struct {
	io.ReadCloser
	n atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func (f *Fault) answer(w http.ResponseWriter) {
	body, contentType := f.Body, f.ContentType
	if body == "" {
		body = `{"message": "An unexpected error occurred on the server.", "type": "internal", "uid": "` + randomUUID() + `"}`
	}
	if contentType == "" {
		contentType = "application/json"
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if f.RetryAfter != "" {
		w.Header().Set("Retry-After", f.RetryAfter)
	}
	w.WriteHeader(f.Status)
	io.WriteString(w, body)
}

// pause waits; it reports whether the request is still wanted afterwards.
func pause(r *http.Request, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
		return false
	}
}

func hang(r *http.Request, released <-chan struct{}) bool {
	if released == nil {
		return true
	}
	select {
	case <-released:
		return true
	case <-r.Context().Done():
		return false
	}
}

// recorder notes status and length of an answer. The last byte that it is given
// stays in the server's buffer, which is sent when the handler has returned: of an
// answer that arrived the request is in the log.
type recorder struct {
	http.ResponseWriter
	status int
	sent   int64
}

func (w *recorder) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	written, last := 0, max(len(p)-1, 0)
	for _, part := range [][]byte{p[:last], p[last:]} {
		n, err := w.ResponseWriter.Write(part)
		written += n
		w.sent += int64(n)
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// ReadFrom leaves the copying of files to the system, but for the last byte.
func (w *recorder) ReadFrom(from io.Reader) (written int64, err error) {
	if file, ok := from.(*io.LimitedReader); ok && file.N > 0 {
		written, err = io.Copy(w.ResponseWriter, io.LimitReader(file.R, file.N-1))
		file.N -= written
		w.sent += written
		if err != nil {
			return written, err
		}
	}
	n, err := io.Copy(struct{ io.Writer }{w}, from)
	return written + n, err
}

// Unwrap gives http.ResponseController the way to the connection.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// cut closes the connection in the middle of an answer.
type cut struct {
	recorder *recorder
	left     int64
}

func (w *cut) Header() http.Header { return w.recorder.Header() }

func (w *cut) WriteHeader(status int) { w.recorder.WriteHeader(status) }

func (w *cut) Write(p []byte) (int, error) {
	n, err := w.recorder.Write(p[:min(w.left, int64(len(p)))])
	w.left -= int64(n)
	if err != nil || w.left > 0 {
		return n, err
	}
	if err := http.NewResponseController(w.recorder).Flush(); err != nil {
		return n, err
	}
	panic(http.ErrAbortHandler)
}

// discard is where the answer of a request goes that is carried out in vain.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header { return d.header }

func (d *discard) WriteHeader(int) {}

func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
