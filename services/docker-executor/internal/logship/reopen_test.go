package logship_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/logship"
)

func reopen(t *testing.T, st logship.Store, dir string, limit int64) *logship.Shipper {
	t.Helper()
	s, err := logship.Open(t.Context(), st, dir, "job", 1, logship.Config{Limit: limit})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ship reads a log from where the shipper is and writes it.
func ship(t *testing.T, s *logship.Shipper, log []engine.Frame) {
	t.Helper()
	if err := read(log, s.Position(), func(f engine.Frame) error { return s.Write(t.Context(), f) }); err != nil {
		t.Fatal(err)
	}
}

func leave(t *testing.T, s *logship.Shipper) {
	t.Helper()
	if err := s.Leave(); err != nil {
		t.Fatal(err)
	}
}

func finish(t *testing.T, s *logship.Shipper) uint64 {
	t.Helper()
	last, err := s.Close(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context()); err != nil {
		t.Errorf("verify after close: %v", err)
	}
	return last
}

func at(sec int64, stream engine.Stream, text string) engine.Frame {
	return engine.Frame{Stream: stream, Time: time.Unix(sec, 5).UTC(), Data: []byte(text)}
}

// The beginning of a character may be all that a stream ever said, long before
// everything that is shipped.
func TestWhatWaitsForItsRestIsReadAgain(t *testing.T) {
	t.Parallel()
	log := []engine.Frame{
		at(100, engine.Stdout, "\xe2"), at(9000, engine.Stderr, "a\n"), at(9900, engine.Stdout, "\x82\xac"), at(9901, engine.Stderr, "b\n"),
	}
	for stop := range len(log) + 1 {
		st, dir := &store{}, t.TempDir()
		s := reopen(t, st, dir, 64<<20)
		ship(t, s, log[:stop])
		leave(t, s)
		s = reopen(t, st, dir, 64<<20)
		ship(t, s, log)
		finish(t, s)
		if out, errs := st.text(contracts.LogStdout), st.text(contracts.LogStderr); out != "€" || errs != "a\nb\n" {
			t.Errorf("left after %d: stdout %q, stderr %q", stop, out, errs)
		}
	}
}

// A clock that is set back makes times useless as places.
func TestAClockThatWasSetBack(t *testing.T) {
	t.Parallel()
	log := []engine.Frame{
		at(500, engine.Stdout, "one\n"), at(510, engine.Stderr, "uno\n"), at(520, engine.Stdout, "two\n"),
		at(100, engine.Stdout, "three\n"), at(101, engine.Stderr, "due\n"), at(102, engine.Stdout, "four\n"), at(103, engine.Stderr, "tre\n"),
	}
	for stop := 5; stop <= len(log); stop++ {
		st, dir := &store{}, t.TempDir()
		s := reopen(t, st, dir, 64<<20)
		ship(t, s, log[:stop])
		leave(t, s)
		st.lose(1)
		s = reopen(t, st, dir, 64<<20)
		ship(t, s, log)
		finish(t, s)
		if out, errs := st.text(contracts.LogStdout), st.text(contracts.LogStderr); out != "one\ntwo\nthree\nfour\n" || errs != "uno\ndue\ntre\n" {
			t.Errorf("left after %d: stdout %q, stderr %q", stop, out, errs)
		}
	}
}

func TestALogThatWasClosedIsComplete(t *testing.T) {
	t.Parallel()
	st, dir := &store{}, t.TempDir()
	log := []engine.Frame{at(1, engine.Stdout, "text\xe2")}
	s := reopen(t, st, dir, 64<<20)
	ship(t, s, log)
	last := finish(t, s)
	leave(t, s)
	if err := s.Write(t.Context(), log[0]); err == nil {
		t.Error("written after it was closed")
	}
	for range 2 {
		s = reopen(t, st, dir, 64<<20)
		ship(t, s, log)
		if again := finish(t, s); again != last || len(st.messages()) != 1 || st.text(contracts.LogStdout) != "text\xe2" {
			t.Errorf("again: last is %d of %d, %q", again, len(st.messages()), st.text(contracts.LogStdout))
		}
	}
	st.lose(1)
	if err := s.Verify(t.Context()); !errors.Is(err, logship.ErrLost) {
		t.Errorf("verify after a loss: %v", err)
	}
	s = reopen(t, st, dir, 64<<20)
	ship(t, s, log)
	if again := finish(t, s); again != last || st.text(contracts.LogStdout) != "text\xe2" {
		t.Errorf("after a loss: last is %d, %q", again, st.text(contracts.LogStdout))
	}
}

// Pieces of an attempt before do not count, and one that is over is refused.
func TestEachAttemptHasItsLog(t *testing.T) {
	t.Parallel()
	st := &store{}
	first := open(t, st, 1, 64<<20)
	write(t, first, engine.Stdout, "first")
	if last := finish(t, first); last != 1 {
		t.Errorf("last is %d", last)
	}
	second := open(t, st, 2, 64<<20)
	write(t, second, engine.Stdout, "second")
	if last := finish(t, second); last != 1 {
		t.Errorf("last is %d", last)
	}
	if err := first.Verify(t.Context()); !errors.Is(err, logship.ErrLost) {
		t.Errorf("the first attempt finds %v", err)
	}
	if _, err := logship.Open(t.Context(), st, t.TempDir(), "job", 1, logship.Config{Limit: 64 << 20}); err == nil {
		t.Error("an attempt that is over was opened")
	}
}

// A limit that an operator changes in the middle of a log would cut its pieces
// another way.
func TestALogKeepsItsLimit(t *testing.T) {
	t.Parallel()
	st, dir := &store{}, t.TempDir()
	var log []engine.Frame
	for i := range int64(100) {
		log = append(log, at(i, engine.Stdout, strings.Repeat("x", contracts.MaxLogChunk)))
	}
	s := reopen(t, st, dir, 512<<10)
	ship(t, s, log[:10])
	leave(t, s)
	s = reopen(t, st, dir, 64<<20)
	ship(t, s, log)
	finish(t, s)
	head := 0
	for _, m := range st.messages() {
		if m.subject == contracts.LogHeadSubject("job") {
			head++
		}
	}
	if head != 4 || len(st.messages()) > 4+4+16 {
		t.Errorf("%d pieces in the head, %d in all", head, len(st.messages()))
	}
}

// What cannot be known any more is told once and costs no more than it must: a
// log goes on.
func TestAnIndexThatIsGone(t *testing.T) {
	t.Parallel()
	for name, ruin := range map[string]func(file string) error{
		"removed":   os.Remove,
		"emptied":   func(file string) error { return os.Truncate(file, 0) },
		"torn head": func(file string) error { return os.Truncate(file, 10) },
		"other":     func(file string) error { return os.WriteFile(file, []byte("{\"version\":7}\n{}\n"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st, dir := &store{}, t.TempDir()
			log := []engine.Frame{at(1, engine.Stdout, "a\n"), at(2, engine.Stderr, "b\n"), at(3, engine.Stdout, "c\n")}
			s := reopen(t, st, dir, 64<<20)
			ship(t, s, log)
			leave(t, s)
			if err := ruin(filepath.Join(dir, "log.index")); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				s = reopen(t, st, dir, 64<<20)
				ship(t, s, log)
				leave(t, s)
			}
			s = reopen(t, st, dir, 64<<20)
			ship(t, s, log)
			last := finish(t, s)
			// All of it is there, though the pieces that nobody knew of are there twice.
			if out := st.text(contracts.LogStdout); !strings.HasSuffix(out, "a\nc\n") || last != uint64(len(st.messages())) {
				t.Errorf("stdout %q, last is %d of %d", out, last, len(st.messages()))
			}
		})
	}
}

// The engine's log may have lost its end: then what is left is shipped under new
// numbers.
func TestAnEngineThatLostItsLog(t *testing.T) {
	t.Parallel()
	st, dir := &store{}, t.TempDir()
	log := []engine.Frame{at(1, engine.Stdout, "a\n"), at(2, engine.Stderr, "b\n"), at(3, engine.Stdout, "c\n"), at(4, engine.Stderr, "d\n")}
	s := reopen(t, st, dir, 64<<20)
	ship(t, s, log)
	leave(t, s)
	st.lose(3)
	s = reopen(t, st, dir, 64<<20)
	ship(t, s, []engine.Frame{at(1, engine.Stdout, "")})
	if last := finish(t, s); last != 3 {
		t.Errorf("last is %d, want the 3 that were noted", last)
	}
}

// discard keeps nothing but the end of a log.
type discard struct {
	last contracts.LogChunk
	at   uint64
}

func (d *discard) PublishLog(_ context.Context, _, _ string, _ uint64, chunk *contracts.LogChunk) (uint64, error) {
	d.at++
	d.last = *chunk
	return d.at, nil
}

func (d *discard) LastLog(context.Context, contracts.JobID) (*contracts.LogChunk, uint64, error) {
	if d.at == 0 {
		return nil, 0, nil
	}
	return &d.last, d.at, nil
}

func (d *discard) DropLog(context.Context, string, uint64) error { return nil }

// A log of any length needs as much memory and as much of the disk as a short
// one.
func TestALongLogInConstantMemory(t *testing.T) {
	dir, st := t.TempDir(), &discard{}
	s := reopen(t, st, dir, 1<<20)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var before uint64
	for i := range int64(60_000) { // each a piece of its own
		if i == 20_000 {
			before = heap()
		}
		if err := s.Write(t.Context(), at(i, engine.Stdout+engine.Stream(i%2), "some more of it\n")); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 0 {
			info, err := os.Stat(filepath.Join(dir, "log.index"))
			if err != nil || info.Size() > 4<<20+1<<10 {
				t.Fatalf("after %d pieces the index has %d bytes, error %v", i, info.Size(), err)
			}
		}
	}
	if after := heap(); after > before+1<<20 {
		t.Errorf("the heap grew from %d to %d KiB", before>>10, after>>10)
	}
	if last := finish(t, s); last != 60_000 {
		t.Errorf("last is %d", last)
	}
	s = reopen(t, st, dir, 1<<20)
	if pos := s.Position(); !pos.Stderr.Time.Equal(time.Unix(59_999, 5)) || pos.Stderr.Records != 0 {
		t.Errorf("position %+v", pos)
	}
	leave(t, s)
}
