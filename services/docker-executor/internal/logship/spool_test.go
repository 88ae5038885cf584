package logship_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/logship"
)

func openSpools(t *testing.T, dir string) *logship.Spools {
	t.Helper()
	spools, err := logship.OpenSpools(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := spools.Close(); err != nil {
			t.Error(err)
		}
	})
	return spools
}

func spool(t *testing.T, spools *logship.Spools, to logship.Source, text string) {
	t.Helper()
	if n, err := spools.Append(to, []byte(text)); n != len(text) || err != nil {
		t.Fatalf("appended %d of %d bytes: %v", n, len(text), err)
	}
}

func spooling(t *testing.T, st logship.Store, dir string, config logship.Config) *logship.Shipper {
	t.Helper()
	config.Limit = 64 << 20
	s, err := logship.Open(t.Context(), st, dir, "job", 1, config)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Each source is part of the stream of the log that it belongs to.
func TestTheStreamsThatSourcesBelongTo(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		labels   logship.Labels
		out, err string
	}{
		"by themselves": {nil, "135", "24"},
		"relabelled": {logship.Labels{
			logship.EngineStdout: contracts.LogStderr, logship.EngineStderr: contracts.LogStdout, logship.SpoolParsed: contracts.LogStderr,
		}, "23", "145"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st, dir := &store{}, t.TempDir()
			spools := openSpools(t, dir)
			s := spooling(t, st, dir, logship.Config{Labels: test.labels, Spools: spools})
			write(t, s, engine.Stdout, "1")
			write(t, s, engine.Stderr, "2")
			spool(t, spools, logship.SpoolStdout, "3")
			spool(t, spools, logship.SpoolStderr, "4")
			spool(t, spools, logship.SpoolParsed, "5")
			if last := finish(t, s); last != 5 {
				t.Errorf("last is %d", last)
			}
			if out, err := st.text(contracts.LogStdout), st.text(contracts.LogStderr); out != test.out || err != test.err {
				t.Errorf("stdout is %q, stderr %q", out, err)
			}
		})
	}
}

// What is appended in pieces is shipped together, and no character is split.
func TestASpoolIsShippedAsItGrows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st, dir := &store{}, t.TempDir()
		spools, err := logship.OpenSpools(dir)
		if err != nil {
			t.Fatal(err)
		}
		s := spooling(t, st, dir, logship.Config{Spools: spools})
		done := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			defer close(done)
			s.Run(ctx, t.Context())
		}()
		spool(t, spools, logship.SpoolStderr, "first")
		spool(t, spools, logship.SpoolStderr, " and more\xe2")
		time.Sleep(101 * time.Millisecond) // of the bubble's clock
		if got := st.text(contracts.LogStderr); got != "first and more" || len(st.messages()) != 1 {
			t.Errorf("after 100 ms %q is shipped in %d pieces", got, len(st.messages()))
		}
		spool(t, spools, logship.SpoolStderr, "\x82\xac")
		time.Sleep(101 * time.Millisecond)
		if got := st.text(contracts.LogStderr); got != "first and more€" {
			t.Errorf("after another 100 ms %q is shipped", got)
		}
		euros := strings.Repeat("€", contracts.MaxLogChunk)
		spool(t, spools, logship.SpoolStdout, euros)
		time.Sleep(101 * time.Millisecond)
		if got := st.text(contracts.LogStdout); got != euros {
			t.Errorf("%d bytes of %d are shipped", len(got), len(euros))
		}
		cancel()
		<-done
		finish(t, s)
		for _, m := range st.messages() {
			if !utf8.ValidString(m.chunk.Data) || m.chunk.DataB64 != nil {
				t.Errorf("piece %d splits a character", m.chunk.Seq)
			}
		}
		if err := spools.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Pieces of a spool that are lost are read from it once more, between those of
// the engine, though that one has nothing more to say.
func TestAnEngineThatLostItsLogCostsNothingOfASpool(t *testing.T) {
	t.Parallel()
	st, dir := &store{}, t.TempDir()
	spools := openSpools(t, dir)
	s := spooling(t, st, dir, logship.Config{Spools: spools})
	write(t, s, engine.Stdout, "a\n")
	spool(t, spools, logship.SpoolStderr, "one\n")
	s.FlushNow(t.Context())
	write(t, s, engine.Stdout, "b\n")
	s.FlushNow(t.Context())
	spool(t, spools, logship.SpoolStderr, "two\n")
	if last := finish(t, s); last != 4 {
		t.Fatalf("last is %d", last)
	}
	before := st.messages()
	st.lose(3)
	s = spooling(t, st, dir, logship.Config{Spools: spools})
	if last := finish(t, s); last != 4 {
		t.Errorf("last is %d", last)
	}
	if out, err := st.text(contracts.LogStdout), st.text(contracts.LogStderr); out != "a\n" || err != "one\ntwo\n" {
		t.Errorf("stdout is %q, stderr %q", out, err)
	}
	after := st.messages()
	if len(after) != 3 || after[2].chunk.Seq != 4 || after[2].chunk.Offset != before[3].chunk.Offset {
		t.Errorf("stored are %+v", after)
	}
}

// An index that an older executor wrote is one without spools.
func TestAnIndexOfAnOlderExecutor(t *testing.T) {
	t.Parallel()
	st, dir := &store{}, t.TempDir()
	log := []engine.Frame{at(100, engine.Stdout, "one\n"), at(101, engine.Stderr, "uno\n"), at(102, engine.Stdout, "two\n")}
	old := `{"version":1,"sum":{"half":33554432,"seq":0,"out":{"bytes":0,"at":0},"err":{"bytes":0,"at":0},"head":0,"full":false,"kept":0}}
{"seq":1,"stream":1,"bytes":4,"time":"1970-01-01T00:01:40.000000005Z","at":4}
{"seq":2,"stream":2,"bytes":4,"time":"1970-01-01T00:01:41.000000005Z","at":4}
`
	if err := os.WriteFile(filepath.Join(dir, "log.index"), []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	spools := openSpools(t, dir)
	s := spooling(t, st, dir, logship.Config{Spools: spools})
	spool(t, spools, logship.SpoolStdout, "three\n")
	ship(t, s, log)
	if last := finish(t, s); last != 4 {
		t.Errorf("last is %d", last)
	}
	if out, err := st.text(contracts.LogStdout), st.text(contracts.LogStderr); out != "one\ntwo\nthree\n" || err != "uno\n" {
		t.Errorf("stdout is %q, stderr %q", out, err)
	}
}

// A spool that is opened again goes on where it was, and a full disk says how
// much it took.
func TestSpoolsOnDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := openSpools(t, dir)
	spool(t, first, logship.SpoolParsed, "text")
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("files are %v, error %v", entries, err)
	}
	second := openSpools(t, dir)
	spool(t, second, logship.SpoolParsed, "more")
	if n := second.Size(logship.SpoolParsed); n != 8 {
		t.Errorf("the spool has %d bytes", n)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "log.parsed")); string(data) != "textmore" {
		t.Errorf("the file has %q, error %v", data, err)
	}
	if err := os.Symlink("/dev/full", filepath.Join(dir, "log.stdout")); err != nil {
		t.Fatal(err)
	}
	if n, err := second.Append(logship.SpoolStdout, []byte("x")); n != 0 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("appended %d to a full disk: %v", n, err)
	}
	if n := second.Size(logship.SpoolStdout); n != 0 {
		t.Errorf("a full disk has %d bytes", n)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if _, err := second.Append(logship.SpoolParsed, []byte("x")); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("appended to a closed spool: %v", err)
	}
}

// However much comes, and however long NATS takes for it, the memory stays.
func TestAFloodInConstantMemory(t *testing.T) {
	st, dir := &discard{}, t.TempDir()
	spools := openSpools(t, dir)
	line := []byte(strings.Repeat("a line of a container that has much to say\n", 1500)) // about 64 KiB
	for range 1000 {
		if _, err := spools.Append(logship.SpoolStdout, line); err != nil {
			t.Fatal(err)
		}
	}
	s := spooling(t, st, dir, logship.Config{Spools: spools})
	var most uint64
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for i := range 1000 { // of the engine, at the same time
		if err := s.Write(t.Context(), at(int64(i), engine.Stderr, string(line[:16<<10]))); err != nil {
			t.Fatal(err)
		}
		s.FlushNow(t.Context())
		if i%100 == 0 {
			most = max(most, heap())
		}
	}
	finish(t, s)
	if most = max(most, heap()); most > before+2<<20 {
		t.Errorf("the heap grew from %d to %d KiB", before>>10, most>>10)
	}
	want := int64(1000 * (len(line) + 16<<10))
	if got := st.last.Offset + int64(len(st.last.Bytes())); got != want {
		t.Errorf("%d bytes are shipped, want %d", got, want)
	}
}
