package conformance

// Section 4.15: cancel in every phase of a task, and things that go wrong on the
// way that nobody need know of.

import (
	"net/http"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// 4.15 cancel during pull
func TestCancelDuringAPull(t *testing.T) {
	s := start(t)
	r := newRegistry(t, s.Engine, "x")
	job := s.submit(s.pull(r.ref("slow/image"), contracts.PullAlways))
	r.awaitSlow(s)
	s.revoke(job)
	s.end(job).canceled().wrote("")
	if types := s.Types(job); types != "submitted queued claimed canceling canceled" {
		t.Errorf("life: %s", types)
	}
}

// 4.15 cancel during download and upload
func TestCancelDuringATransfer(t *testing.T) {
	for name, c := range map[string]struct {
		of    func(*http.Request) bool
		types string
	}{
		"download": {
			func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/download") },
			"submitted queued claimed canceling canceled",
		},
		"upload": {
			func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/file/chunk") },
			"submitted queued claimed started pushing canceling canceled",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := alone(t, setup.Config{})
			hang, hung := make(chan struct{}), make(chan struct{}, 1)
			s.Girder.SetFault(func(r *http.Request) *girdersim.Fault {
				if !c.of(r) {
					return nil
				}
				select {
				case hung <- struct{}{}:
				default:
				}
				return &girdersim.Fault{Hang: hang}
			})
			t.Cleanup(func() { close(hang) })
			file, item := s.Girder.File("in", make([]byte, 1<<20)), s.Girder.Item("out")
			task := s.script(`cp "$1" "$2"`, &contracts.GirderFile{ID: file.ID}, volumePath("out"))
			task.Outputs = []contracts.Output{uploadTo(item, "out")}
			job := s.submit(task)
			select {
			case <-hung:
			case <-s.Context().Done():
				t.Fatal("Girder was not asked")
			}
			s.revoke(job)
			s.end(job).canceled().wrote("")
			if types := s.Types(job); types != c.types {
				t.Errorf("life: %s, want %s", types, c.types)
			}
			if files := s.Girder.Files(item.ID); len(files) > 0 {
				t.Errorf("uploaded %v", files)
			}
			s.Girder.SetFault(nil)
			s.awaitNothing("uploads", func() []string { return make([]string, s.Girder.OpenUploads()) })
		})
	}
}

// 4.15 a connection that breaks in the middle of a stream: it goes on where it
// broke, and the container notices nothing
func TestAStreamOutlivesAConnectionThatBreaks(t *testing.T) {
	s := alone(t, setup.Config{})
	const size = 8 << 20
	id, sum := s.bigFile(size)
	broken := make(chan struct{}, 3)
	s.Girder.SetFault(func(r *http.Request) *girdersim.Fault {
		if !strings.HasSuffix(r.URL.Path, "/"+id+"/download") {
			return nil
		}
		select {
		case broken <- struct{}{}:
			return &girdersim.Fault{CutAfter: 1 << 20}
		default:
			return nil
		}
	})
	end := s.succeed(s.command("program", "read", streamOf(id, "in"), "4096", "1000000", "0s"))
	if !strings.HasSuffix(end.log, " "+sum+"\n") {
		t.Errorf("the log is %q, and the checksum %s", end.log, sum)
	}
	if len(broken) != 3 {
		t.Errorf("the connection broke %d times", len(broken))
	}
}
