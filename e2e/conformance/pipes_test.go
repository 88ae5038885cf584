package conformance

// Section 4.15: pipes that are not used as they are meant to be.

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/conformance/program/pattern"
	"github.com/gantry-worker/gantry/e2e/setup"
)

// bigFile is a file of Girder with a pattern, and the checksum of it.
func (s *stage) bigFile(size int64) (id, sum string) {
	s.t.Helper()
	digest := sha256.New()
	item := s.Girder.Item(fmt.Sprintf("%d bytes for %s", size, strings.ReplaceAll(s.t.Name(), "/", " ")))
	file, err := s.Girder.AddFile(item.ID, "big", io.TeeReader(pattern.Lines(size), digest))
	if err != nil {
		s.t.Fatal(err)
	}
	return file.ID, fmt.Sprintf("%x", digest.Sum(nil))
}

func streamOf(file, name string) *contracts.Connect {
	return connect(&contracts.GirderFileStream{ID: file}, &contracts.NamedInputPipe{Name: name})
}

func outputPipe(name string) *contracts.Connect {
	return connect(&contracts.NamedOutputPipe{Name: name}, &contracts.HostStdout{})
}

// 64 MiB, taken 4 KiB at a time with pauses
func TestEveryByteReachesAReaderThatPauses(t *testing.T) {
	s := start(t)
	const size = 64 << 20
	id, sum := s.bigFile(size)
	s.succeed(s.command("program", "read", streamOf(id, "in"), "4096", "64", "2ms")).wrote(fmt.Sprintf("%d %s\n", size, sum))
}

// 4.15 more than 64 KiB at a time, short writes: sizes that fit no buffer
func TestStreamsOfAllSizesArriveWhole(t *testing.T) {
	for _, size := range []int64{0, 1, 4095, 4096, 65535, 65536, 65537, 131073, 1000003} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			s := start(t)
			id, sum := s.bigFile(size)
			s.succeed(s.command("program", "read", streamOf(id, "in"), "4099", "1000000", "0s")).wrote(fmt.Sprintf("%d %s\n", size, sum))
		})
	}
}

// 4.15 a pipe that the container never opens
func TestAPipeThatIsNeverOpenedHoldsUpNothing(t *testing.T) {
	s := start(t)
	id, _ := s.bigFile(1 << 20)
	server := newPosted(t)
	item := s.Girder.Item("of a pipe that nobody opened")
	s.succeed(s.command("echo", streamOf(id, "in"), outputPipe("out"),
		connect(&contracts.NamedOutputPipe{Name: "posted"}, &contracts.ChunkedStream{URL: server.url("/")}),
		upload(&contracts.NamedOutputPipe{Name: "uploaded"}, &contracts.GirderUploadItem{ItemID: item.ID})))
	if post := server.await(s); len(post.body()) > 0 {
		t.Errorf("posted %q", post.body())
	}
	if file, content := s.Girder.Uploaded(item.ID); file.Name != "uploaded" || len(content) > 0 {
		t.Errorf("uploaded %s: %q", file.Name, content)
	}
}

// 4.15 a container that opens but never reads
func TestAnInputPipeThatIsOpenedAndNotReadHoldsUpNothing(t *testing.T) {
	s := start(t)
	id, _ := s.bigFile(1 << 20)
	s.succeed(s.script(`exec 3< "$1"; echo opened`, streamOf(id, "in"))).wrote("opened\n")
}

// 4.15 a container that leaves half-way
func TestAContainerMayStopReadingHalfWay(t *testing.T) {
	for name, script := range map[string]string{
		"and end":   `head -c 100000 "$1" | wc -c`,
		"and go on": `head -c 100000 "$1" | wc -c; sleep 1; echo still here`,
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			id, _ := s.bigFile(4 << 20)
			end := s.succeed(s.script(script, streamOf(id, "in")))
			if !strings.HasPrefix(end.log, "100000\n") {
				t.Errorf("the log is %q", end.log)
			}
		})
	}
}

// 4.15 a container that fails half-way: its own failure, not the stream's
func TestAContainerThatFailsHalfWayFailsWithItsExitCode(t *testing.T) {
	s := start(t)
	id, _ := s.bigFile(4 << 20)
	s.fail(s.script(`head -c 10 "$1" > /dev/null; exit 5`, streamOf(id, "in")), "(5)")
}

// 4.15 data that is unread when the container has ended
func TestWhatAContainerLeavesInAPipeArrives(t *testing.T) {
	s := alone(t, setup.Config{})
	host := folder(t)
	server := newPosted(t)
	task := s.script(`while [ ! -e /data/go ]; do usleep 10000; done; program write "$1" 60 1000 > /dev/null; echo left >&2`,
		connect(&contracts.NamedOutputPipe{Name: "out"}, &contracts.ChunkedStream{URL: server.url("/")}))
	task.Docker.Volumes = []contracts.Volume{bindMount("data", host, "/data", "ro")}
	job := s.submit(task)
	container := s.AwaitEntry(job, contracts.EntryStarted, 1).Data.(*contracts.Started).Container
	transfer := s.Services[setup.Transfer]
	transfer.Pause() // nobody reads while the container writes, and ends
	write(t, filepath.Join(host, "go"), "")
	s.await("the container's end", func() error {
		if text := s.Engine.Inspect(container); !strings.Contains(text, `"Status": "exited"`) {
			return errors.New("it runs")
		}
		return nil
	})
	transfer.Resume()
	s.end(job).succeeded().wrote("left\n")
	want, err := io.ReadAll(pattern.Lines(60000))
	if err != nil {
		t.Fatal(err)
	}
	if body := server.await(s).body(); !bytes.Equal(body, want) {
		t.Errorf("%d bytes were posted, want %d", len(body), len(want))
	}
}

// 4.15 a writer that is slower than its reader
func TestASlowWriterIsWaitedFor(t *testing.T) {
	s := start(t)
	s.succeed(s.script(`exec 3> "$1"; for i in $(seq 5); do echo "$i" >&3; usleep 200000; done`, outputPipe("out"))).wrote(numbers(5))
}

// 4.15 cancel of a task that waits for a pipe, in every state of it
func TestCancelEndsATaskWhateverItsPipesDo(t *testing.T) {
	for name, c := range map[string]struct{ script, ready string }{
		"nobody opens the pipe":     {`echo ready; sleep 1000`, "ready"},
		"the container waits in it": {`echo ready; cat "$2" > /dev/null & cat "$1" > /dev/null; sleep 1000`, "ready"},
		"it reads slowly":           {`echo ready; program read "$1" 1 1 100ms`, "ready"},
		"it was opened and left":    {`head -c 1 "$1" > /dev/null; echo ready; sleep 1000`, "ready"},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			id, _ := s.bigFile(1 << 20)
			job := s.submit(s.script(c.script, streamOf(id, "in"), streamOf(id, "in2"), outputPipe("out")))
			s.AwaitLog(job, c.ready)
			s.revoke(job)
			end := s.end(job)
			if end.entry.Type != contracts.EntryCanceled {
				t.Errorf("the job %s: %+v", end.entry.Type, end.entry.Data)
			}
			end.statuses("RUNNING", "CANCELED")
		})
	}
}

// 4.15 a pipe's name that is there already
func TestAPipeWhosePlaceIsTakenIsAnError(t *testing.T) {
	s := start(t)
	host := folder(t)
	write(t, host+"/out", "precious")
	task := s.script(`echo x > "$1"`, connect(&contracts.NamedOutputPipe{Name: "out", Volume: "data"}, &contracts.HostStdout{}))
	task.Docker.Volumes = []contracts.Volume{bindMount("data", host, "/data", "rw")}
	s.fail(task, "out")
	if got := read(t, host+"/out"); got != "precious" {
		t.Errorf("the file that was there is %q", got)
	}
}
