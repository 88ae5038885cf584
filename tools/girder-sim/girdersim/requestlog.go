package girdersim

import (
	"context"
	"slices"
	"sync"
)

// Request is a request that the server has dealt with.
type Request struct {
	Method, Path, Query string
	Range               string // the header of that name
	ObjectStore         bool   // it went to the object store, not to Girder
	Status              int    // 0: the connection was closed before an answer
	Sent                int64  // bytes of the answer's body
	Received            int64  // bytes that were read of the request's body
}

// maxRequests is how many requests are remembered.
const maxRequests = 10000

type requestLog struct {
	mu      *sync.Mutex
	entries []Request
	changed chan struct{} // closed and replaced with each entry
}

func newRequestLog() requestLog {
	return requestLog{mu: &sync.Mutex{}, changed: make(chan struct{})}
}

func (l *requestLog) add(r Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.entries) == maxRequests {
		l.entries = slices.Delete(l.entries, 0, maxRequests/2)
	}
	l.entries = append(l.entries, r)
	close(l.changed)
	l.changed = make(chan struct{})
}

// Requests are the latest requests, oldest first. A request whose whole answer has
// arrived is among them.
func (s *Server) Requests() []Request {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	return slices.Clone(s.log.entries)
}

// ForgetRequests empties the log of requests.
func (s *Server) ForgetRequests() {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.log.entries = nil
}

// AwaitRequest returns the first request in the log that matches, as soon as
// there is one.
func (s *Server) AwaitRequest(ctx context.Context, match func(Request) bool) (Request, error) {
	for {
		s.log.mu.Lock()
		i, changed := slices.IndexFunc(s.log.entries, match), s.log.changed
		if i >= 0 {
			found := s.log.entries[i]
			s.log.mu.Unlock()
			return found, nil
		}
		s.log.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return Request{}, context.Cause(ctx)
		}
	}
}
