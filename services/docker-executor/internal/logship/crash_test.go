package logship_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/logship"
)

// errCrash ends a shipper in the middle of a call.
var errCrash = errors.New("the process has died")

// crashing is a store whose user dies in some of its calls, before or after
// they took effect.
type crashing struct {
	*store
	random *rand.Rand
	odds   int // one call in so many
	// published says whether the last piece that was given to it is stored.
	published bool
}

func (c *crashing) call(effect func() error) error {
	switch c.random.IntN(2 * c.odds) {
	case 0:
		return errCrash
	case 1:
		return errors.Join(effect(), errCrash)
	}
	return effect()
}

func (c *crashing) PublishLog(ctx context.Context, subject, generation string, last uint64, chunk *contracts.LogChunk) (at uint64, err error) {
	c.published = false
	err = c.call(func() error {
		at, err = c.store.PublishLog(ctx, subject, generation, last, chunk)
		c.published = err == nil
		return err
	})
	return at, err
}

func (c *crashing) LastLog(ctx context.Context, job contracts.JobID) (chunk *contracts.LogChunk, at uint64, err error) {
	err = c.call(func() error {
		chunk, at, err = c.store.LastLog(ctx, job)
		return err
	})
	return chunk, at, err
}

func (c *crashing) DropLog(ctx context.Context, subject string, keep uint64) error {
	return c.call(func() error { return c.store.DropLog(ctx, subject, keep) })
}

// reader takes every piece once by its number, whatever it sees again.
type reader struct {
	pieces map[uint64]message
	wrong  []string
}

func (r *reader) see(m message) {
	before, ok := r.pieces[m.chunk.Seq]
	if !ok {
		r.pieces[m.chunk.Seq] = m
		return
	}
	a, b := before.chunk, m.chunk
	if before.subject != m.subject || a.Offset != b.Offset || a.Stream != b.Stream || !a.Time.Equal(b.Time) || !bytes.Equal(a.Bytes(), b.Bytes()) {
		r.wrong = append(r.wrong, fmt.Sprintf("piece %d was %d bytes of %s on %s, is %d bytes of %s on %s",
			b.Seq, len(a.Bytes()), a.Stream, before.subject, len(b.Bytes()), b.Stream, m.subject))
	}
}

// frames makes a container's log: lines of text with characters of any length
// and with what is no text, long lines in parts of one time, records that share
// a time, on two streams.
func frames(random *rand.Rand, size int) []engine.Frame {
	var log []engine.Frame
	now := time.Unix(1_700_000_000, 0).UTC()
	for total := 0; total < size; {
		stream := engine.Stdout
		if random.IntN(3) == 0 {
			stream = engine.Stderr
		}
		if random.IntN(3) > 0 {
			now = now.Add(time.Duration(random.IntN(100)) * time.Second)
		}
		length := 1 + random.IntN(80)
		if random.IntN(20) == 0 {
			length = 1 + random.IntN(100<<10)
		}
		line := text(random, length)
		total += len(line)
		for len(line) > 0 {
			n := min(len(line), 16<<10)
			log = append(log, engine.Frame{Stream: stream, Time: now, Data: line[:n]})
			line = line[n:]
			if len(line) > 0 && random.IntN(4) == 0 { // the other stream speaks in between
				log = append(log, engine.Frame{Stream: engine.Stdout + engine.Stderr - stream, Time: now, Data: text(random, 1+random.IntN(5))})
			}
		}
	}
	return log
}

func text(random *rand.Rand, n int) []byte {
	var text []byte
	for len(text) < n {
		switch random.IntN(6) {
		case 0:
			text = append(text, "€"...)
		case 1:
			text = append(text, "😀"...)
		case 2:
			text = append(text, byte(random.IntN(256)))
		default:
			text = append(text, byte('a'+random.IntN(26)))
		}
	}
	return text[:n] // maybe in the middle of a character
}

// read hands out a log as an engine does, that leaves out what is older than
// the position can mean.
func read(log []engine.Frame, from engine.Position, emit func(engine.Frame) error) error {
	resume := engine.NewResume(from)
	for _, f := range log {
		if f.Time.Before(since(from)) || !resume.New(f) {
			continue
		}
		if err := emit(f); err != nil {
			return err
		}
	}
	return nil
}

func since(pos engine.Position) time.Time {
	out, err := pos.Stdout.Time, pos.Stderr.Time
	switch {
	case out.IsZero() && err.IsZero():
		return time.Time{}
	case out.IsZero():
		return err.Add(-time.Minute)
	case err.IsZero():
		return out.Add(-time.Minute)
	case out.Before(err):
		return out
	}
	return err
}

// scenario is one log that is shipped by a row of executors that die.
type scenario struct {
	*testing.T
	random *rand.Rand
	store  *crashing
	reader *reader
	dir    string
	log    []engine.Frame
	spools map[logship.Source][]byte // what was ever appended to them
	left   int                       // bytes yet to be appended
	limit  int64
	index  int64
}

// labels tell the sources apart.
var labels = logship.Labels{
	logship.EngineStdout: "1", logship.EngineStderr: "2", logship.SpoolStdout: "3", logship.SpoolStderr: "4", logship.SpoolParsed: "5",
}

func newScenario(t *testing.T, seed uint64) *scenario {
	random := rand.New(rand.NewPCG(seed, 3))
	s := &scenario{
		T: t, random: random, reader: &reader{pieces: map[uint64]message{}}, dir: t.TempDir(),
		limit: []int64{1, 150 << 10, 400 << 10}[random.IntN(3)], index: []int64{3000, 20000, 4 << 20}[random.IntN(3)],
	}
	s.store = &crashing{store: &store{seen: s.reader.see}, random: random, odds: []int{8, 30, 1000}[random.IntN(3)]}
	s.log = frames(random, []int{100, 20_000, 3 << 19}[random.IntN(3)])
	s.spools, s.left = map[logship.Source][]byte{}, []int{0, 100, 300_000}[random.IntN(3)]
	return s
}

// run ships until the log is complete, and returns the number of its last piece.
func (s *scenario) run() uint64 {
	for {
		last, err := s.live()
		switch {
		case err == nil:
			return last
		case errors.Is(err, errCrash):
			s.tear()
		case !errors.Is(err, logship.ErrLost):
			s.Fatal(err)
		}
	}
}

// live is the life of one executor.
func (s *scenario) live() (uint64, error) {
	spools, err := logship.OpenSpools(s.dir)
	if err != nil {
		return 0, err
	}
	defer spools.Close() //nolint:errcheck // what it has is in the files
	config := logship.Config{Limit: s.limit, Labels: labels, Spools: spools}
	shipper, err := logship.OpenWithIndex(s.Context(), s.store, s.dir, "job", 2, config, s.index)
	if err != nil {
		return 0, err
	}
	defer func() {
		if err := shipper.Leave(); err != nil {
			s.Error(err)
		}
	}()
	err = read(s.log, shipper.Position(), func(f engine.Frame) error {
		switch s.random.IntN(300) {
		case 0:
			s.store.lose(1 + s.random.IntN(3))
		case 1:
			if err := shipper.Verify(s.Context()); err != nil {
				return err
			}
		case 2:
			return errCrash
		case 3, 4, 5, 6, 7, 8:
			s.spool(spools)
		case 9, 10, 11:
			shipper.FlushNow(s.Context())
		}
		return shipper.Write(s.Context(), f)
	})
	if err != nil {
		return 0, err
	}
	for s.left > 0 {
		s.spool(spools)
		if s.random.IntN(2) == 0 {
			shipper.FlushNow(s.Context())
		}
	}
	last, err := shipper.Close(s.Context())
	if err != nil {
		return 0, err
	}
	if s.random.IntN(3) == 0 {
		s.store.lose(1)
	}
	return last, shipper.Verify(s.Context())
}

// spool appends to one of the spools.
func (s *scenario) spool(spools *logship.Spools) {
	if s.left <= 0 {
		return
	}
	data := text(s.random, 1+s.random.IntN(1+s.left/3))
	s.left -= len(data)
	to := logship.SpoolStdout + logship.Source(s.random.IntN(3))
	if n, err := spools.Append(to, data); n != len(data) || err != nil {
		s.Fatalf("appended %d of %d bytes: %v", n, len(data), err)
	}
	s.spools[to] = append(s.spools[to], data...)
}

// tear leaves the index as a process does that died while it wrote to it.
func (s *scenario) tear() {
	file := filepath.Join(s.dir, "log.index")
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		s.Fatal(err)
	}
	whole := bytes.LastIndexByte(bytes.TrimSuffix(data, []byte{'\n'}), '\n') + 1
	switch {
	case s.random.IntN(2) == 0:
	case !s.store.published && whole > 0 && s.random.IntN(2) == 0 && s.notStored():
		data = data[:whole+s.random.IntN(len(data)-whole)]
	default:
		data = append(data, `{"seq":17,"str`...)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		s.Fatal(err)
	}
}

// notStored reports whether nobody has ever seen the piece that the index was
// about to note last: only such a line can be torn.
func (s *scenario) notStored() bool {
	data, err := os.ReadFile(filepath.Join(s.dir, "log.index"))
	if err != nil {
		s.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(data), []byte{'\n'})
	var seq uint64
	if _, err := fmt.Sscanf(string(lines[len(lines)-1]), `{"seq":%d`, &seq); err != nil {
		return false // the header
	}
	return s.reader.pieces[seq].seq == 0
}

// check compares what a reader has in the end with what the container wrote,
// and what is stored with the limits.
func (s *scenario) check(last uint64) {
	for _, wrong := range s.reader.wrong {
		s.Error(wrong)
	}
	want, got := map[contracts.LogStream][]byte{}, map[contracts.LogStream][]byte{}
	for _, f := range s.log {
		label := labels[logship.Source(f.Stream)]
		want[label] = append(want[label], f.Data...)
	}
	for source, data := range s.spools {
		want[labels[source]] = data
	}
	if uint64(len(s.reader.pieces)) != last {
		s.Errorf("%d pieces, the last is %d", len(s.reader.pieces), last)
	}
	var offset int64
	for seq := uint64(1); seq <= last; seq++ {
		chunk := s.reader.pieces[seq].chunk
		if chunk.Offset != offset {
			s.Errorf("piece %d is at %d, want %d", seq, chunk.Offset, offset)
		}
		offset += int64(len(chunk.Bytes()))
		got[chunk.Stream] = append(got[chunk.Stream], chunk.Bytes()...)
	}
	for _, label := range labels {
		if !bytes.Equal(want[label], got[label]) {
			s.Errorf("source %s: %d bytes, want %d", label, len(got[label]), len(want[label]))
		}
	}
	s.checkLimits(last)
}

func (s *scenario) checkLimits(last uint64) {
	half := int(max(s.limit/2, contracts.MaxLogChunk))
	next, head, tail, first := uint64(1), 0, 0, uint64(0)
	for _, m := range s.store.messages() {
		size := len(m.chunk.Bytes())
		if m.subject == contracts.LogHeadSubject("job") {
			head += size
		} else {
			tail += size
			if first == 0 {
				first, next = m.chunk.Seq, m.chunk.Seq
			}
		}
		if m.chunk.Seq != next {
			s.Fatalf("piece %d is stored behind piece %d", m.chunk.Seq, next-1)
		}
		next++
	}
	if next != last+1 {
		s.Errorf("the last stored piece is %d, want %d", next-1, last)
	}
	var sizes, all int
	var fit uint64
	for seq := uint64(1); seq <= last; seq++ {
		chunk := s.reader.pieces[seq].chunk
		all += len(chunk.Bytes())
		if all <= half {
			fit, sizes = seq, all
		}
	}
	if head != sizes {
		s.Errorf("the head has %d bytes, want the %d of the first %d pieces", head, sizes, fit)
	}
	if rest := all - head; tail < min(rest, half) || tail > half+1<<20 {
		s.Errorf("the tail has %d bytes of %d, want at least %d", tail, rest, half)
	}
}

func TestNothingIsLostNorRepeatedWhereverExecutorsDie(t *testing.T) {
	t.Parallel()
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := newScenario(t, seed)
			s.check(s.run())
		})
	}
}

func FuzzShipper(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) {
		s := newScenario(t, seed)
		s.check(s.run())
	})
}
