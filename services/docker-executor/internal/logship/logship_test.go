package logship_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/leaktest"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/logship"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func write(t *testing.T, s *logship.Shipper, stream engine.Stream, text string) {
	t.Helper()
	if err := s.Write(t.Context(), engine.Frame{Stream: stream, Time: time.Unix(1, 0), Data: []byte(text)}); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, st logship.Store, attempt int, limit int64) *logship.Shipper {
	t.Helper()
	s, err := logship.Open(t.Context(), st, t.TempDir(), "job", attempt, logship.Config{Limit: limit})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCharactersAreNeverSplit(t *testing.T) {
	t.Parallel()
	st := &store{}
	s := open(t, st, 1, 64<<20)
	euro := "€" // three bytes
	want := "x" + strings.Repeat(euro, 100_000)
	for part := range slices.Chunk([]byte(want), 16<<10) {
		write(t, s, engine.Stdout, string(part))
	}
	last, err := s.Close(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range st.messages() {
		if m.chunk.DataB64 != nil || !utf8.ValidString(m.chunk.Data) || len(m.chunk.Data) > contracts.MaxLogChunk {
			t.Errorf("piece %d splits a character or is too long: %d bytes", m.chunk.Seq, len(m.chunk.Bytes()))
		}
	}
	if got := st.text(contracts.LogStdout); got != want || last != uint64(len(st.messages())) {
		t.Errorf("%d bytes in %d pieces, last is %d", len(got), len(st.messages()), last)
	}
}

// A character of one stream is whole also where the other one speaks in the
// middle of it.
func TestStreamsThatInterleaveSplitNoCharacter(t *testing.T) {
	t.Parallel()
	st := &store{}
	s := open(t, st, 1, 64<<20)
	write(t, s, engine.Stdout, "a\xe2\x82")
	write(t, s, engine.Stderr, "b\xf0\x9f")
	write(t, s, engine.Stdout, "\xac")
	write(t, s, engine.Stderr, "\x98\x80")
	write(t, s, engine.Stdout, "\xe2")
	write(t, s, engine.Stderr, "\xff")
	last, err := s.Close(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if out, errs := st.text(contracts.LogStdout), st.text(contracts.LogStderr); out != "a€\xe2" || errs != "b😀\xff" {
		t.Errorf("stdout is %q, stderr %q", out, errs)
	}
	for i, m := range st.messages() {
		if m.chunk.Seq != uint64(i+1) {
			t.Errorf("piece %d has seq %d", i, m.chunk.Seq)
		}
		if whole := bytes.HasSuffix(m.chunk.Bytes(), []byte{0xff}) || bytes.Equal(m.chunk.Bytes(), []byte{0xe2}); !whole && m.chunk.DataB64 != nil {
			t.Errorf("piece %d splits a character: %q", i, m.chunk.Bytes())
		}
	}
	if last != uint64(len(st.messages())) {
		t.Errorf("last is %d of %d", last, len(st.messages()))
	}
}

func TestAWaitingPieceIsFlushed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := &store{}
		s := open(t, st, 2, 64<<20)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.Run(ctx, t.Context())
		}()
		write(t, s, engine.Stdout, "first")
		write(t, s, engine.Stdout, " and more\xe2")
		time.Sleep(101 * time.Millisecond) // of the bubble's clock
		if got := st.text(contracts.LogStdout); got != "first and more" {
			t.Errorf("after 100 ms %q is shipped", got)
		}
		write(t, s, engine.Stdout, "\x82\xac")
		time.Sleep(101 * time.Millisecond)
		if got := st.text(contracts.LogStdout); got != "first and more€" {
			t.Errorf("after another 100 ms %q is shipped", got)
		}
		cancel()
		<-done
		if last, err := s.Close(t.Context()); last != 2 || err != nil {
			t.Errorf("last is %d, error %v", last, err)
		}
	})
}

// slowStore takes its time to store a piece, and gives up with its context.
type slowStore struct {
	store
	entered chan struct{}
	release chan struct{}
}

func (s *slowStore) PublishLog(ctx context.Context, subject, generation string, last uint64, chunk *contracts.LogChunk) (uint64, error) {
	close(s.entered)
	select {
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-s.release:
		return s.store.PublishLog(ctx, subject, generation, last, chunk)
	}
}

// A container may end while a piece of its log is on its way.
func TestTheEndOfFlushingCutsOffNoPiece(t *testing.T) {
	t.Parallel()
	st := &slowStore{entered: make(chan struct{}), release: make(chan struct{})}
	s := open(t, st, 2, 64<<20)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx, t.Context())
	}()
	write(t, s, engine.Stdout, "piece")
	<-st.entered
	cancel()
	close(st.release)
	<-done
	if last, err := s.Close(t.Context()); last != 1 || err != nil || st.text(contracts.LogStdout) != "piece" {
		t.Errorf("last is %d, error %v, shipped %q", last, err, st.text(contracts.LogStdout))
	}
}

func TestTheMiddleOfALongLogIsDropped(t *testing.T) {
	t.Parallel()
	st := &store{}
	const limit = 512 << 10
	s := open(t, st, 1, limit)
	for i := range 100 { // 6.4 MB
		write(t, s, engine.Stdout, strings.Repeat(string(rune('a'+i%26)), contracts.MaxLogChunk))
	}
	last, err := s.Close(t.Context())
	if err != nil || last != 100 {
		t.Fatalf("last is %d, error %v", last, err)
	}
	var head, tail int
	for _, m := range st.messages() {
		switch m.subject {
		case contracts.LogHeadSubject("job"):
			if head++; m.chunk.Seq != uint64(head) {
				t.Errorf("piece %d of the head has seq %d", head, m.chunk.Seq)
			}
		case contracts.LogTailSubject("job"):
			tail++
		}
	}
	if head != limit/2/contracts.MaxLogChunk {
		t.Errorf("the head has %d pieces", head)
	}
	if least, most := limit/2/contracts.MaxLogChunk, (limit/2+1<<20)/contracts.MaxLogChunk; tail < least || tail > most {
		t.Errorf("the tail has %d pieces, want %d to %d", tail, least, most)
	}
	if all := st.messages(); all[len(all)-1].chunk.Seq != 100 {
		t.Error("the last piece is missing")
	}
}

func TestAStoreThatRefusesEndsTheLog(t *testing.T) {
	t.Parallel()
	st := &store{fails: errors.New("too large")}
	s := open(t, st, 1, 1<<20)
	write(t, s, engine.Stdout, "x")
	if _, err := s.Close(t.Context()); !errors.Is(err, st.fails) {
		t.Errorf("closed with %v", err)
	}
	if err := s.Write(t.Context(), engine.Frame{Stream: engine.Stdout, Data: []byte("y")}); !errors.Is(err, st.fails) {
		t.Errorf("written with %v", err)
	}
	if err := s.Verify(t.Context()); !errors.Is(err, st.fails) {
		t.Errorf("verified with %v", err)
	}
}
