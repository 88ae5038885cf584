package conformance

// Sections 4.9 and 4.15: the log.

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/conformance/program/pattern"
	"github.com/gantry-worker/gantry/e2e/setup"
)

// 4.9 from the first byte, of a container that ends at once
func TestTheLogOfAContainerThatEndsAtOnceIsWhole(t *testing.T) {
	s := start(t)
	var jobs []contracts.JobID
	for i := range 10 {
		jobs = append(jobs, s.submit(s.command("busybox", "printf", fmt.Sprintf("run %d", i))))
	}
	for i, job := range jobs {
		s.end(job).succeeded().wrote(fmt.Sprintf("run %d", i))
	}
}

// 4.9 short output is one entry, whatever pieces it came in. Of pieces that come
// one after the other nobody can say how far apart they are when they arrive:
// here all have come before the first one is sent to Girder.
func TestAShortOutputInPiecesIsOneEntry(t *testing.T) {
	s := alone(t, setup.Config{Hold: []string{setup.Tracker}})
	job := s.submit(s.script(`printf a; usleep 300000; printf b; echo c; usleep 300000; echo d; usleep 300000; printf e`))
	s.AwaitEnd(job)
	s.Services[setup.Tracker].Start()
	end := s.end(job).succeeded().wrote("abc\nd\ne")
	if len(end.girder.Log) != 1 {
		t.Errorf("Girder's log has the entries %q", end.girder.Log)
	}
}

// 4.9 all of the log is there before the terminal status
func TestTheLogIsInGirderBeforeTheStatus(t *testing.T) {
	s := start(t)
	for range 3 {
		job := s.submit(s.script(`program flood 500000; echo last >&2; exit 2`))
		ref := s.AwaitGirderJob(job)
		seen := s.AwaitMirrored(job) // as it was when it had its status
		if ref.ID != seen.ID || !strings.Contains(setup.LogOf(seen), "last\n") || len(setup.LogOf(seen)) < 400000 {
			t.Errorf("with its status the Girder job has a log of %d bytes", len(setup.LogOf(seen)))
		}
		s.end(job).failed(contracts.FailureTask, "(2)")
	}
}

// 4.9 a log may be followed while it is written
func TestALogIsFollowedWhileItIsWritten(t *testing.T) {
	s := start(t)
	host := folder(t)
	task := s.script(`echo first; while [ ! -e /data/go ]; do usleep 10000; done; echo second`)
	task.Docker.Volumes = []contracts.Volume{bindMount("data", host, "/data", "ro")}
	job := s.submit(task)
	s.AwaitLog(job, "first\n") // while the container waits for the test
	write(t, host+"/go", "")
	s.end(job).succeeded().wrote("first\nsecond\n")
}

// 4.9 two jobs at once never mix
func TestLogsOfJobsThatRunTogetherDoNotMix(t *testing.T) {
	s := start(t)
	jobs := map[string]contracts.JobID{}
	for _, word := range []string{"alpha", "beta", "gamma"} {
		jobs[word] = s.submit(s.script(`for i in $(seq 300); do echo "$1"; done`, word))
	}
	for word, job := range jobs {
		s.end(job).succeeded().wrote(strings.Repeat(word+"\n", 300))
	}
}

// 4.15 invalid UTF-8: exact in Gantry, U+FFFD in Girder
func TestBytesThatAreNoTextAreKept(t *testing.T) {
	s := start(t)
	end := s.succeed(s.script(`printf 'a\377b\300\257c\355\240\200d\n\000e\n'`))
	if want := "a\xffb\xc0\xafc\xed\xa0\x80d\n\x00e\n"; end.log != want {
		t.Errorf("the log is %q, want %q", end.log, want)
	}
	if got := setup.LogOf(end.girder); !strings.HasPrefix(got, "a\uFFFDb\uFFFD") || !strings.HasSuffix(got, "e\n") {
		t.Errorf("Girder's log is %q", got)
	}
}

// 4.15 characters that come in pieces
func TestACharacterThatComesInPiecesIsWhole(t *testing.T) {
	s := start(t)
	const text = "ünïcödé → 🐟\n"
	s.succeed(s.script(`printf '\303'; usleep 700000; printf '\274nïcödé → \360\237'; usleep 700000; printf '\220\237\n'`)).wrote(text)
}

// 4.15 a line of 10 MB
func TestALineOfTenMegabytesIsWhole(t *testing.T) {
	s := start(t)
	const size = 10_000_000
	want, err := io.ReadAll(pattern.Line(size))
	if err != nil {
		t.Fatal(err)
	}
	task := s.command("program", "line", strconv.Itoa(size))
	end := s.succeed(task)
	if end.log != string(want) {
		t.Errorf("the log has %d bytes, want %d", len(end.log), size)
	}
	checkHeadAndTail(t, setup.LogOf(end.girder), string(want))
}

// checkHeadAndTail checks Girder's share of a log that is larger than a document
// of Girder may be: its head, a line that says how much is missing, its tail.
func checkHeadAndTail(t *testing.T, got, want string) {
	t.Helper()
	const limit = 8 << 20
	if len(got) > limit+1<<16 || len(got) < limit/2 {
		t.Errorf("Girder's log has %d bytes", len(got))
		return
	}
	if !strings.HasPrefix(got, want[:1<<20]) || !strings.HasSuffix(got, want[len(want)-1<<20:]) {
		t.Errorf("Girder's log begins with %q and ends with %q", got[:100], got[len(got)-100:])
	}
	same := 0
	for same < len(got) && got[same] == want[same] {
		same++
	}
	line, _, _ := strings.Cut(strings.TrimPrefix(got[same:], "\n"), "\n")
	if !strings.ContainsAny(line, "0123456789") || !strings.Contains(line, "bytes") {
		t.Errorf("what is missing in Girder's log is told as %q", line)
	}
}

// floodSize is how much one container writes in TestAFloodLeavesTheServicesAsSmallAsTheyWere.
func floodSize(t *testing.T) int64 {
	text := os.Getenv("GANTRY_FLOOD_MB")
	if text == "" {
		return 30 << 20
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		t.Fatalf("GANTRY_FLOOD_MB is %q: %v", text, err)
	}
	return n << 20
}

// 4.15 a flood: exact from the first byte to the last, with flat memory
func TestAFloodLeavesTheServicesAsSmallAsTheyWere(t *testing.T) {
	size := floodSize(t)
	s := alone(t, setup.Config{
		Env:      map[string]string{"GANTRY_LOG_LIMIT": fmt.Sprintf("%d", 2*size), "GANTRY_LOG_LEVEL": "info"},
		Patience: patience + time.Duration(size>>20)*10*time.Second,
	})
	s.succeed(s.command("program", "flood", "1000000")) // all is in use once
	before := map[string]int64{}
	for _, name := range []string{setup.Executor, setup.Transfer, setup.Tracker, setup.Dispatcher} {
		before[name] = s.Services[name].PeakMemory()
	}
	job := s.submit(s.command("program", "flood", strconv.FormatInt(size, 10)))
	s.checkPattern(job, size)
	s.AwaitSuccess(job)
	want, err := io.ReadAll(pattern.Lines(size))
	if err != nil {
		t.Fatal(err)
	}
	checkHeadAndTail(t, setup.LogOf(s.AwaitMirrored(job)), string(want))
	const growth = 64 << 20 // much less than a flood, and more than a collector of garbage leaves
	for name, was := range before {
		is := s.Services[name].PeakMemory()
		t.Logf("%s: %d MB at most, %d MB before", name, is>>20, was>>20)
		if is > was+growth {
			t.Errorf("%s grew from %d MB to %d MB", name, was>>20, is>>20)
		}
	}
}

// checkPattern reads a log as it comes, and compares each byte.
func (s *stage) checkPattern(job contracts.JobID, size int64) {
	s.t.Helper()
	want, at := pattern.Lines(size), int64(0)
	for chunk, err := range s.Log(s.Context(), job, true) {
		if err != nil {
			s.t.Fatalf("read log at %d: %v", at, err)
		}
		got := chunk.Bytes()
		expected := make([]byte, len(got))
		n, _ := io.ReadFull(want, expected)
		if string(got) != string(expected[:n]) {
			s.t.Fatalf("the log differs at %d or a little later", at)
		}
		at += int64(len(got))
	}
	if at != size {
		s.t.Fatalf("the log has %d bytes, want %d", at, size)
	}
}

// A log over its limit keeps its head and its tail, and says what is missing.
func TestALogOverItsLimitKeepsHeadAndTail(t *testing.T) {
	s := alone(t, setup.Config{Env: map[string]string{"GANTRY_LOG_LIMIT": "4m"}})
	const size, sure = 12 << 20, 1 << 20
	end := s.succeed(s.command("program", "flood", strconv.Itoa(size)))
	want, err := io.ReadAll(pattern.Lines(size))
	if err != nil {
		t.Fatal(err)
	}
	if len(end.log) > 6<<20 || len(end.log) < 3<<20 {
		t.Errorf("the log has %d bytes", len(end.log))
	}
	if end.log[:sure] != string(want[:sure]) || !strings.HasSuffix(end.log, string(want[size-sure:])) {
		t.Errorf("the log begins with %q and ends with %q", end.log[:100], end.log[len(end.log)-100:])
	}
	checkHeadAndTail(t, setup.LogOf(end.girder), string(want))
	if shown := s.Gantry.Gantry("logs", string(end.job)); shown.Code != 0 || !strings.Contains(shown.Stdout+shown.Stderr, "missing") {
		t.Errorf("gantry logs does not say what is missing: %d bytes, %q", len(shown.Stdout), brief(shown.Stderr))
	}
}
