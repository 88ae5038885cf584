package logship

import (
	"context"
	"fmt"
	"time"

	"github.com/gantry-worker/gantry/contracts"
)

// Run flushes pieces that have waited, until ctx ends. What is being stored then
// is stored all the same, unless lifetime has ended as well: a piece that was
// cut off would be lost.
func (s *Shipper) Run(ctx, lifetime context.Context) {
	var grown <-chan struct{}
	if s.spools != nil {
		grown = s.spools.grown
	}
	for {
		for { // also before it was ever woken: a former owner may have left something
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
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-grown:
		}
	}
}

// burst is how many pieces of a spool are flushed in one turn.
const burst = 16

// flushDue flushes the pieces that are old enough, and says how long the next
// one has yet to wait.
func (s *Shipper) flushDue(ctx context.Context) (wait time.Duration, some bool) {
	defer s.turn.take()()
	if s.usable() != nil {
		return 0, false
	}
	if s.shipAgain(ctx); len(s.again) > 0 {
		return 0, false
	}
	yet := func(d time.Duration) {
		if !some || d < wait {
			wait, some = d, true
		}
	}
	if len(s.buffers[s.current-EngineStdout].data) > 0 {
		if left := flushAfter - time.Since(s.first); left > 0 {
			yet(left)
		} else {
			s.flush(ctx, s.current, false)
		}
	}
	for _, source := range spooled {
		if left, more := s.flushSpool(ctx, source); more {
			yet(left)
		}
	}
	return wait, some && s.err == nil
}

// flushSpool flushes what a spool has of whole pieces, and its last one if that
// has waited long enough.
func (s *Shipper) flushSpool(ctx context.Context, source Source) (wait time.Duration, more bool) {
	since := &s.since[source.spool()]
	for range burst {
		switch waiting := s.waiting(source); {
		case waiting == 0:
			*since = time.Time{}
			return 0, false
		case since.IsZero():
			*since = time.Now()
		}
		left := flushAfter - time.Since(*since)
		if left > 0 && s.waiting(source) < contracts.MaxLogChunk {
			return left, true
		}
		*since = time.Time{}
		if !s.flush(ctx, source, false) {
			return 0, false // a part of a character, that waits for its rest
		}
	}
	return 0, true
}

// waiting returns how many bytes of a source are there and not shipped.
func (s *Shipper) waiting(source Source) int64 {
	if source.isEngine() {
		return int64(len(s.buffers[source-EngineStdout].data))
	}
	return s.spools.Size(source) - s.sum.Spools[source.spool()]
}

// next returns the next n bytes of a source, which are there.
func (s *Shipper) next(source Source, n int) ([]byte, error) {
	if source.isEngine() {
		return s.buffers[source-EngineStdout].data[:n], nil
	}
	data := make([]byte, n)
	return data, s.spools.read(source, s.sum.Spools[source.spool()], data)
}

// flush ships a piece of a source and reports whether it did. Unless whole is
// set, a character that is not complete yet stays for the next one.
func (s *Shipper) flush(ctx context.Context, source Source, whole bool) bool {
	waiting := s.waiting(source)
	if s.err != nil || waiting <= 0 {
		return false
	}
	data, err := s.next(source, int(min(waiting, contracts.MaxLogChunk)))
	if err != nil {
		s.err = err
		return false
	}
	if !whole || int64(len(data)) < waiting {
		data = data[:len(data)-incomplete(data)]
	}
	if len(data) == 0 {
		return false
	}
	e := s.entryOf(source, len(data))
	if err := s.index.add(e); err != nil {
		s.err = fmt.Errorf("note piece %d of log of %s: %w", e.Seq, s.job, err)
		return false
	}
	if source.isEngine() {
		s.first = time.Now()
	}
	return s.ship(ctx, e, data)
}

// entryOf returns the index's line of the next piece.
func (s *Shipper) entryOf(source Source, size int) entry {
	e := entry{Seq: s.sum.Seq + 1, Source: source, Bytes: size, Back: s.back}
	if !source.isEngine() {
		e.Time = time.Now().UTC()
		return e
	}
	e.Time, e.At = s.buffers[source-EngineStdout].after(s.sum.place(source), size)
	if waiting := s.buffers[other(source)-EngineStdout].spans; len(waiting) > 0 && s.sum.place(other(source)).Bytes == 0 {
		e.Waiting = waiting[0].time
	}
	return e
}

// shipAgain ships the noted pieces whose bytes have come.
func (s *Shipper) shipAgain(ctx context.Context) {
	for len(s.again) > 0 && s.repeat(ctx, s.again[0]) {
		s.again = s.again[1:]
	}
}

// repeat ships a noted piece, and reports whether it did.
func (s *Shipper) repeat(ctx context.Context, e entry) bool {
	if s.err != nil || s.waiting(e.Source) < int64(e.Bytes) {
		return false
	}
	data, err := s.next(e.Source, e.Bytes)
	if err != nil {
		s.err = err
		return false
	}
	return s.ship(ctx, e, data)
}

// giveUpAgain passes over the pieces that cannot be shipped again, since the log
// of their source has ended before them.
func (s *Shipper) giveUpAgain(ctx context.Context) {
	lost := 0
	var ended [sources + 1]bool // what comes behind a piece that is lost is another one's
	for _, e := range s.again {
		if !ended[e.Source] && s.repeat(ctx, e) {
			continue
		}
		if s.err != nil {
			return
		}
		ended[e.Source] = true
		s.sum.add(e)
		lost++
	}
	s.again = nil
	if lost > 0 {
		s.log.Warn().Int("pieces", lost).Msg("pieces of the log are lost for good: what they are read from ends before them")
	}
}

// ship stores a piece that is noted.
func (s *Shipper) ship(ctx context.Context, e entry, data []byte) bool {
	chunk := &contracts.LogChunk{
		Version: contracts.Version, Job: s.job, Attempt: s.attempt, Seq: e.Seq, Time: e.Time, Stream: s.labels.of(e.Source),
		Offset: s.sum.bytes(),
	}
	chunk.SetBytes(data)
	subject := contracts.LogTailSubject(s.job)
	if s.sum.isHead(e.Bytes) {
		subject = contracts.LogHeadSubject(s.job)
	}
	live, err := s.store.PublishLog(ctx, subject, s.generation, s.live, chunk)
	if err == nil {
		s.live = live
		if e.Source.isEngine() {
			s.buffers[e.Source-EngineStdout].take(e.Bytes)
		}
		if keep, drop := s.sum.add(e); drop {
			err = s.store.DropLog(ctx, subject, keep)
		}
	}
	if err != nil {
		s.err = fmt.Errorf("ship log of %s: %w", s.job, err)
		return false
	}
	return true
}
