package transfer

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
)

// killings say who dies while a stream flows, and whether the container's
// attempt can outlive it: only the one that moves the bytes is missed.
var killings = []struct {
	name     string
	services []string
	outlived bool
}{
	{"transfer is killed", []string{setup.Transfer}, false},
	{"the executor is killed", []string{setup.Executor}, true},
	{"both are killed", []string{setup.Transfer, setup.Executor}, false},
}

const streamed = 64 * mebibyte

// TestAReaderInFullFlowNeverTakesAPartForTheWhole kills while a container reads
// a stream of Girder as fast as it comes. What each container took to its end is
// in a file of the host.
func TestAReaderInFullFlowNeverTakesAPartForTheWhole(t *testing.T) {
	t.Parallel()
	for _, kill := range killings {
		t.Run(kill.name, func(t *testing.T) {
			t.Parallel()
			g := startWithFolder(t)
			file := addFile(g.Gantry, "stream", streamed)
			sum := sha256.New()
			if _, err := io.Copy(sum, noise("stream", streamed)); err != nil {
				t.Fatal(err)
			}
			task := g.Shell(`sha256sum < "$1" | cut -d ' ' -f 1 | tee -a /data/taken`, &contracts.Connect{
				Input:  contracts.Endpoint{Transform: &contracts.GirderFileStream{ID: file.ID}},
				Output: contracts.Endpoint{Transform: &contracts.NamedInputPipe{Name: "in"}},
			})
			g.Gate.Answers.HoldAt(streamed * 3 / 4)
			job := g.submitAgain(task)
			g.Gate.Answers.Await(g.Context(), streamed/4)
			g.restart(kill.services, g.Gate.Answers.Open)
			g.checkAttempts(job, kill.outlived)
			want := hex.EncodeToString(sum.Sum(nil))
			if log, _ := g.JobLog(job); !strings.HasSuffix(log, want+"\n") {
				t.Errorf("the log is %q, and the checksum %s", log, want)
			}
			if len(kill.services) == 2 {
				return // with nobody left a container may see an end: its attempt never counts
			}
			taken, err := os.ReadFile(filepath.Join(g.host, "taken"))
			if err != nil || !slices.Equal(strings.Fields(string(taken)), []string{want}) {
				t.Errorf("containers took %q for the whole, want %s once (%v)", taken, want, err)
			}
		})
	}
}

// TestAServerIsNeverToldThatAPartIsTheWhole kills while a container writes a
// stream that is posted: no request but the one with everything is complete.
func TestAServerIsNeverToldThatAPartIsTheWhole(t *testing.T) {
	t.Parallel()
	for _, kill := range killings {
		t.Run(kill.name, func(t *testing.T) {
			t.Parallel()
			g := startWithFolder(t)
			sink := newSink(t, streamed/4)
			task := g.Shell(fmt.Sprintf(`yes 0123456789abcde | head -c %d > "$1"`, streamed), &contracts.Connect{
				Input:  contracts.Endpoint{Transform: &contracts.NamedOutputPipe{Name: "out"}},
				Output: contracts.Endpoint{Transform: &contracts.ChunkedStream{URL: sink.url}},
			})
			job := g.submitAgain(task)
			sink.awaitHeld(g.Gantry)
			g.restart(kill.services, sink.open)
			g.checkAttempts(job, kill.outlived)
			if whole := sink.whole(); !slices.Equal(whole, []int64{streamed}) {
				t.Errorf("complete requests had %d bytes, want one with %d", whole, streamed)
			}
		})
	}
}

// flowing is a Gantry with a folder of the host for its tasks.
type flowing struct {
	*setup.Gantry
	host string
}

func startWithFolder(t *testing.T) *flowing {
	t.Helper()
	return &flowing{start(t, setup.Config{Gate: true, Env: allowBind()}), hostFolder(t)}
}

// submitAgain submits a task that is run again soon, with the folder at /data.
func (f *flowing) submitAgain(task *contracts.Task) contracts.JobID {
	f.T.Helper()
	task.Docker.Volumes = []contracts.Volume{atData(f.host)}
	task.Retry = &contracts.Retry{Backoff: contracts.Duration(1e8)}
	task.Girder = f.Girder.Of(f.T.Name())
	return f.MustSubmit(task)
}

// restart kills services and starts them again when the stream may flow.
func (f *flowing) restart(services []string, flow func()) {
	f.T.Helper()
	for _, name := range services {
		f.Services[name].Kill()
	}
	flow()
	for _, name := range services {
		f.Services[name].Start()
	}
}

// checkAttempts waits for success, in the first attempt or after one that failed
// by our fault.
func (f *flowing) checkAttempts(job contracts.JobID, first bool) {
	f.T.Helper()
	f.AwaitSuccess(job)
	life, err := f.Life(f.Context(), job)
	if err != nil {
		f.T.Fatal(err)
	}
	if last := life[len(life)-1].Attempt; (last == 1) != first {
		f.T.Errorf("it succeeded in attempt %d; its life is %s", last, f.Types(job))
	}
	for _, entry := range life {
		if failed, ok := entry.Data.(*contracts.Failed); ok && failed.Kind != contracts.FailureInfrastructure {
			f.T.Errorf("an attempt ended as %+v", failed)
		}
	}
}

// sink is a server that takes posts. The first one is held up in its middle.
type sink struct {
	url        string
	held, free chan struct{}
	open       func()
	ended      chan int64 // complete requests, by their size
}

func newSink(t *testing.T, middle int64) *sink {
	t.Helper()
	s := &sink{held: make(chan struct{}), free: make(chan struct{}), ended: make(chan int64, 16)}
	first := make(chan bool, 1)
	first <- true
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var begin int64
		select {
		case <-first:
			var err error
			if begin, err = io.CopyN(io.Discard, r.Body, middle); err != nil {
				return
			}
			close(s.held)
			<-s.free
		default:
		}
		if rest, err := io.Copy(io.Discard, r.Body); err == nil {
			s.ended <- begin + rest
		}
	}))
	s.url = server.URL
	s.open = sync.OnceFunc(func() { close(s.free) })
	t.Cleanup(func() {
		s.open()
		server.Close()
	})
	return s
}

// awaitHeld waits until the first post is in its middle.
func (s *sink) awaitHeld(g *setup.Gantry) {
	g.T.Helper()
	select {
	case <-s.held:
	case <-g.Context().Done():
		g.T.Fatal("nothing was posted")
	}
}

// whole are the sizes of the complete requests.
func (s *sink) whole() []int64 {
	var sizes []int64
	for {
		select {
		case size := <-s.ended:
			sizes = append(sizes, size)
		default:
			return sizes
		}
	}
}
