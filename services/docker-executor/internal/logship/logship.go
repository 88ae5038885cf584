// Package logship brings a container's log into the stream LIVE: in order,
// complete, acknowledged, in pieces of a size that a reader likes.
package logship

import (
	"context"
	"fmt"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// flushAfter is how long a piece may wait for more.
const flushAfter = 100 * time.Millisecond

// purgeStep is how much the tail goes over its limit before its oldest part
// is dropped, in bytes.
const purgeStep = 1 << 20

// Store keeps log messages.
type Store interface {
	// PublishLog stores a piece on a subject once, whatever happens in between,
	// and returns its stream sequence.
	PublishLog(ctx context.Context, subject string, chunk *contracts.LogChunk) (uint64, error)
	// DropLog removes the pieces on a subject that are older than a stream
	// sequence.
	DropLog(ctx context.Context, subject string, before uint64) error
}

// Shipper takes the frames of one attempt's container. Write and Close are
// called by one goroutine; pieces that wait are flushed by another.
type Shipper struct {
	store   Store
	job     contracts.JobID
	attempt int
	half    int64 // bytes for the head, and for the tail

	mu     sync.Mutex
	stream contracts.LogStream
	time   time.Time
	piece  []byte
	first  time.Time // when the piece began
	// rest is the beginning of a character that the other stream waits for.
	rest     []byte
	restTime time.Time
	seq      uint64
	shipped  int64
	tail     []stored
	kept     int64 // bytes in tail
	err      error
	wake     chan struct{}
}

type stored struct {
	seq  uint64
	size int64
}

// New returns a shipper. limit is how many bytes of the log are kept, the first
// half and the last; what lies between is dropped as the log grows.
func New(store Store, job contracts.JobID, attempt int, limit int64) *Shipper {
	return &Shipper{store: store, job: job, attempt: attempt, half: max(limit/2, contracts.MaxLogChunk), wake: make(chan struct{}, 1)}
}

// Write takes a frame. It blocks while the store does, which slows the reading
// of the container's log and nothing else.
func (s *Shipper) Write(ctx context.Context, frame engine.Frame) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	stream := contracts.LogStdout
	if frame.Stream == engine.Stderr {
		stream = contracts.LogStderr
	}
	if stream != s.stream {
		s.flush(ctx, false)
		s.turn(stream)
	}
	for data := frame.Data; len(data) > 0 && s.err == nil; {
		if len(s.piece) == 0 {
			s.first = time.Now()
			s.signal()
		}
		n := min(len(data), contracts.MaxLogChunk-len(s.piece))
		s.piece, data = append(s.piece, data[:n]...), data[n:]
		s.time = frame.Time
		if len(s.piece) == contracts.MaxLogChunk {
			s.flush(ctx, false)
		}
	}
	return s.err
}

// turn goes over to the other stream. What cannot be shipped of the present one
// waits until the stream goes on.
func (s *Shipper) turn(to contracts.LogStream) {
	s.stream = to
	s.piece, s.rest = s.rest, s.piece
	s.time, s.restTime = s.restTime, s.time
	if len(s.piece) > 0 {
		s.first = time.Now()
		s.signal()
	}
}

func (s *Shipper) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run flushes pieces that have waited, until ctx ends. What is being stored then
// is stored all the same, unless lifetime has ended as well: a piece that was
// cut off would be lost.
func (s *Shipper) Run(ctx, lifetime context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		for {
			wait, some := s.flushDue(lifetime)
			if !some {
				break
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
		}
	}
}

// flushDue flushes a piece that is old enough, and says how long the present
// one has yet to wait.
func (s *Shipper) flushDue(ctx context.Context) (wait time.Duration, some bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.piece) == 0 {
		return 0, false
	}
	if wait := flushAfter - time.Since(s.first); wait > 0 {
		return wait, true
	}
	s.flush(ctx, false)
	return flushAfter, len(s.piece) > 0
}

// Close flushes what is left and returns the seq of the last piece. All of the
// log is stored then, or the error says why not.
func (s *Shipper) Close(ctx context.Context) (last uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flush(ctx, true)
	if len(s.rest) > 0 {
		s.turn(other(s.stream))
		s.flush(ctx, true)
	}
	return s.seq, s.err
}

func other(stream contracts.LogStream) contracts.LogStream {
	if stream == contracts.LogStdout {
		return contracts.LogStderr
	}
	return contracts.LogStdout
}

// flush ships the piece. Unless whole is set, a character that is not complete
// yet stays for the next one.
func (s *Shipper) flush(ctx context.Context, whole bool) {
	if len(s.piece) == 0 || s.err != nil {
		return
	}
	cut := len(s.piece)
	if !whole {
		cut -= incomplete(s.piece)
	}
	if cut == 0 {
		s.first = time.Now()
		return
	}
	chunk := &contracts.LogChunk{
		Version: contracts.Version, Job: s.job, Attempt: s.attempt, Seq: s.seq + 1, Time: s.time.UTC(), Stream: s.stream,
	}
	chunk.SetBytes(s.piece[:cut])
	if s.err = s.ship(ctx, chunk, int64(cut)); s.err != nil {
		s.err = fmt.Errorf("ship log of %s: %w", s.job, s.err)
		return
	}
	s.seq++
	s.piece = append(s.piece[:0], s.piece[cut:]...)
	s.first = time.Now()
}

func (s *Shipper) ship(ctx context.Context, chunk *contracts.LogChunk, size int64) error {
	if s.shipped+size <= s.half {
		s.shipped += size
		_, err := s.store.PublishLog(ctx, contracts.LogHeadSubject(s.job), chunk)
		return err
	}
	s.shipped = s.half + 1 // the head is complete, also where a smaller piece would fit
	seq, err := s.store.PublishLog(ctx, contracts.LogTailSubject(s.job), chunk)
	if err != nil {
		return err
	}
	s.tail = append(s.tail, stored{seq, size})
	s.kept += size
	if s.kept <= s.half+purgeStep {
		return nil
	}
	drop := 0
	for s.kept > s.half {
		s.kept -= s.tail[drop].size
		drop++
	}
	s.tail = append(s.tail[:0], s.tail[drop:]...)
	return s.store.DropLog(ctx, contracts.LogTailSubject(s.job), s.tail[0].seq)
}

// incomplete returns how many bytes at the end are the beginning of a UTF-8
// sequence whose rest may yet come.
func incomplete(b []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		c := b[len(b)-n]
		if utf8.RuneStart(c) {
			if c >= utf8.RuneSelf && !utf8.FullRune(b[len(b)-n:]) {
				return n
			}
			return 0
		}
	}
	return 0
}
