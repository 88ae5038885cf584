package stream

import (
	"crypto/sha512"
	"encoding/hex"
	"hash"
)

// buffers is how many are on their way at once, between reading and hashing.
const buffers = 4

// sum hashes what is moved, beside the moving, which it would slow down else.
// All but its own goroutine's work is for one goroutine.
type sum struct {
	hash  hash.Hash // nil where there is nothing to compare with
	read  chan []byte
	free  chan []byte
	ended chan struct{}
}

// newSum returns a running sum; end must be called.
func newSum(wanted bool) *sum {
	s := &sum{read: make(chan []byte, buffers), free: make(chan []byte, buffers), ended: make(chan struct{})}
	if wanted {
		s.hash = sha512.New()
	}
	for range buffers {
		s.free <- make([]byte, buffer)
	}
	go s.run()
	return s
}

func (s *sum) run() {
	defer close(s.ended)
	for p := range s.read {
		if s.hash != nil {
			s.hash.Write(p)
		}
		s.free <- p[:buffer]
	}
}

// next returns a buffer, which goes to add, also if nothing is in it.
func (s *sum) next() []byte { return <-s.free }

// add takes the bytes in. They may still be read until the following call of next.
func (s *sum) add(p []byte) { s.read <- p }

// end returns the checksum of everything.
func (s *sum) end() string {
	close(s.read)
	<-s.ended
	if s.hash == nil {
		return ""
	}
	return hex.EncodeToString(s.hash.Sum(nil))
}
