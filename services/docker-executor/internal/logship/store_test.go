package logship_test

import (
	"context"
	"slices"
	"sync"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/logship"
)

// store keeps log messages in memory as a server does: sequences that are lost
// are used again, and a message id that it has seen is stored once.
type store struct {
	mu    sync.Mutex
	next  uint64
	kept  []message
	fails error
	// seen is told of every message that is stored, with the lock held.
	seen func(message)
}

type message struct {
	seq     uint64
	subject string
	chunk   contracts.LogChunk
}

func (s *store) PublishLog(_ context.Context, subject, _ string, last uint64, chunk *contracts.LogChunk) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails != nil {
		return 0, s.fails
	}
	if _, at := s.last(); at != last {
		return 0, logship.ErrLost
	}
	s.next++
	m := message{s.next, subject, *chunk}
	s.kept = append(s.kept, m)
	if s.seen != nil {
		s.seen(m)
	}
	return s.next, nil
}

func (s *store) last() (*contracts.LogChunk, uint64) {
	if len(s.kept) == 0 {
		return nil, 0
	}
	m := s.kept[len(s.kept)-1]
	return &m.chunk, m.seq
}

func (s *store) LastLog(context.Context, contracts.JobID) (*contracts.LogChunk, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	chunk, at := s.last()
	return chunk, at, nil
}

func (s *store) DropLog(_ context.Context, subject string, keep uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var there uint64
	for _, m := range s.kept {
		if m.subject == subject {
			there++
		}
	}
	s.kept = slices.DeleteFunc(s.kept, func(m message) bool {
		if m.subject != subject || there <= keep {
			return false
		}
		there--
		return true
	})
	return nil
}

// lose forgets the last messages, as a server that was killed.
func (s *store) lose(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = s.kept[:max(0, len(s.kept)-n)]
	s.next = 0
	if len(s.kept) > 0 {
		s.next = s.kept[len(s.kept)-1].seq
	}
}

func (s *store) messages() []message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.kept)
}

func (s *store) text(stream contracts.LogStream) string {
	var text []byte
	for _, m := range s.messages() {
		if m.chunk.Stream == stream {
			text = append(text, m.chunk.Bytes()...)
		}
	}
	return string(text)
}
