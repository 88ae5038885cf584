package girder

import (
	"net/http"
	"os"
	"sync"
	"sync/atomic"

	"github.com/gantry-worker/gantry/contracts"
)

// renewing is the transport of a session that names files. A file that was
// renewed counts from the next request on: jobs outlive certificates. One that
// cannot be read, or used, is being written just now, or was removed: what it had
// before counts until it can.
type renewing struct {
	read  func() (*way, error)
	paths []string

	present atomic.Pointer[http.Transport]

	mu    sync.Mutex
	files []os.FileInfo // as they were when they were read, nil for one that is gone
}

func newRenewing(w *way, read func() (*way, error)) (*renewing, error) {
	r := &renewing{read: read, paths: w.paths}
	r.files = r.look()
	transport, err := w.transport()
	if err != nil {
		return nil, err
	}
	r.present.Store(transport)
	return r, nil
}

// RoundTrip sends a request by the present files.
func (r *renewing) RoundTrip(req *http.Request) (*http.Response, error) {
	r.renew()
	return r.present.Load().RoundTrip(req)
}

// CloseIdleConnections is for http.Client.
func (r *renewing) CloseIdleConnections() { r.present.Load().CloseIdleConnections() }

func (r *renewing) renew() {
	r.mu.Lock()
	defer r.mu.Unlock()
	files := r.look() // before they are read: what changes meanwhile is seen the next time
	if sameFiles(r.files, files) {
		return
	}
	w, err := r.read()
	if err != nil || w == nil {
		return
	}
	transport, err := w.transport()
	if err != nil {
		return
	}
	r.files = files
	r.present.Swap(transport).CloseIdleConnections()
}

func (r *renewing) look() []os.FileInfo {
	files := make([]os.FileInfo, len(r.paths))
	for i, path := range r.paths {
		if info, err := os.Stat(path); err == nil {
			files[i] = info
		}
	}
	return files
}

func sameFiles(before, now []os.FileInfo) bool {
	for i := range before {
		switch one, other := before[i], now[i]; {
		case (one == nil) != (other == nil):
			return false
		case one == nil:
		case !os.SameFile(one, other), one.Size() != other.Size(), !one.ModTime().Equal(other.ModTime()):
			return false
		}
	}
	return true
}

// transportOf returns the transport of a client of ours, or nil.
func transportOf(client *http.Client) *http.Transport {
	switch transport := client.Transport.(type) {
	case *http.Transport:
		return transport
	case *renewing:
		return transport.present.Load()
	}
	return nil
}

// sessionPaths returns the files that a session names.
func sessionPaths(s *contracts.GirderSession) []string {
	var paths []string
	values := []string{string(s.Cert.Cert), string(s.Cert.Key)}
	if s.Verify != nil {
		values = append(values, s.Verify.Authorities)
	}
	for _, value := range values {
		if value != "" && !contracts.IsPEM(value) {
			paths = append(paths, value)
		}
	}
	return paths
}
