package service_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/job-tracker/service"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// tooLarge answers updates whose body is larger as a proxy does.
func tooLarge(limit int64) func(*http.Request) *girdersim.Fault {
	return func(r *http.Request) *girdersim.Fault {
		if r.Method != http.MethodPut || r.ContentLength <= limit {
			return nil
		}
		return &girdersim.Fault{Status: http.StatusRequestEntityTooLarge, Body: "<h1>413</h1>", ContentType: "text/html"}
	}
}

func TestProxyThatTakesOnlySmallEntries(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.sim.SetFault(tooLarge(20 << 10))
	s.start()
	r := s.submit(s.create())
	r.begin()
	want := strings.Repeat("0123456789abcde\n", 10<<10)
	for rest := want; rest != ""; rest = rest[32<<10:] {
		r.print(contracts.LogStdout, rest[:32<<10])
	}
	r.succeed()
	job := r.mirrored()
	s.wantStatuses(job, girdersim.Running, girdersim.Success)
	s.wantLog(job, want)
}

// A log that Girder does not take, because the job's document is full or
// whatever stands before it objects, costs the log alone.
func TestLogThatIsRefusedCostsNoStatus(t *testing.T) {
	t.Parallel()
	for name, refuse := range map[string]func(*http.Request) *girdersim.Fault{
		"too large": tooLarge(60),
		"the database objects": func(r *http.Request) *girdersim.Fault {
			if r.Method != http.MethodPut || r.ContentLength <= 60 {
				return nil
			}
			return &girdersim.Fault{Status: http.StatusInternalServerError}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.sim.SetFault(refuse)
			s.start()
			r := s.submit(s.create())
			r.begin()
			r.print(contracts.LogStdout, strings.Repeat("a line of some length\n", 10))
			r.projected(func(job *contracts.Job) bool { return strings.Contains(job.Girder.Problem, "takes no more of the log") })
			r.print(contracts.LogStdout, "more\n")
			r.tell(10, 10, "all")
			r.entry(&contracts.Failed{Kind: contracts.FailureTask, Message: "exit code 3", LogSeq: r.seq})
			projected := r.projected(func(job *contracts.Job) bool { return job.Girder.Done })
			if !strings.Contains(projected.Girder.Problem, "'gantry logs "+string(r.id)+"' shows all of it") {
				t.Errorf("problem %q", projected.Girder.Problem)
			}
			job := r.girder()
			s.wantStatuses(job, girdersim.Running, girdersim.Error)
			s.wantLog(job, "")
			if job.Progress == nil || *job.Progress.Current != 10 {
				t.Errorf("progress %+v", job.Progress)
			}
		})
	}
}

// A server that answers everything with 500 is waited for: the log is not to
// blame, and none of it is lost.
func TestServerErrorsOfEverythingAreWaitedFor(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	r := s.submit(s.create())
	r.begin()
	r.awaitStatus(girdersim.Running)
	refused := make(chan struct{}, 1000)
	s.sim.SetFault(func(*http.Request) *girdersim.Fault {
		refused <- struct{}{}
		return &girdersim.Fault{Status: http.StatusInternalServerError}
	})
	r.print(contracts.LogStdout, "line\n")
	for range 9 {
		<-refused
	}
	s.sim.SetFault(nil)
	r.succeed()
	job := r.mirrored()
	s.wantStatuses(job, girdersim.Running, girdersim.Success)
	s.wantLog(job, "line\n")
}

func TestWarningsFollowTheLog(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	r := s.submit(s.create())
	r.begin()
	r.print(contracts.LogStdout, "first")
	r.entry(&contracts.Failed{Kind: contracts.FailureTask, Message: "no", Warnings: []string{"a\n b"}, WillRetry: true, LogSeq: r.seq})
	r.entry(&contracts.Queued{Lane: contracts.LaneNormal, Queue: contracts.DefaultQueue, Kind: contracts.KindDocker, Reason: contracts.QueuedRetry})
	r.begin()
	r.print(contracts.LogStdout, "second")
	r.entry(&contracts.Succeeded{Warnings: []string{"c", "d"}, LogSeq: r.seq})
	job := r.mirrored()
	s.wantStatuses(job, girdersim.Running, girdersim.Success)
	s.wantLog(job, "first\nno (will be tried again)\nWarning: a b\nsecond\nWarning: c\nWarning: d\n")
	projected := r.projected(func(job *contracts.Job) bool { return job.Status == contracts.StatusSucceeded })
	if len(projected.Warnings) != 2 || projected.Warnings[0] != "c" {
		t.Errorf("warnings %q", projected.Warnings)
	}
}

// The cancel comes between the last of the log and the status: both the
// warnings and what became of the cancel are said.
func TestCancelBehindTheWarnings(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	r := s.submit(s.create())
	r.begin()
	id := r.awaitStatus(girdersim.Running).ID
	s.sim.SetFault(func(*http.Request) *girdersim.Fault {
		job, err := s.sim.Job(id)
		if err == nil && strings.Contains(logOf(job), "Warning: w") && job.Status == girdersim.Running {
			_, _ = s.sim.CancelJob(id) // what the job is in the end shows whether it worked
		}
		return nil
	})
	r.entry(&contracts.Succeeded{Warnings: []string{"w"}})
	job := r.mirrored()
	s.wantStatuses(job, girdersim.Running, girdersim.Canceling, girdersim.Canceled)
	s.wantLog(job, "Warning: w\nThe task had succeeded before the cancel reached it.\n")
}

// A line of 10 MB without an end, in pieces that end within characters.
func TestOneLineOfTenMegabytes(t *testing.T) {
	t.Parallel()
	const limit = 1 << 20
	s := newSite(t)
	s.start(func(cfg *service.Config) { cfg.GirderLogLimit = limit })
	r := s.submit(s.create())
	r.begin()
	line := strings.Repeat("äö€😀", 10<<20/11)
	for rest := line; rest != ""; {
		n := min(len(rest), contracts.MaxLogChunk-1)
		r.print(contracts.LogStdout, rest[:n])
		rest = rest[n:]
	}
	r.succeed()
	job := r.mirrored()
	s.wantStatuses(job, girdersim.Running, girdersim.Success)
	text := logOf(job)
	head, tail, cut := strings.Cut(text, "\n[gantry: ")
	said, tail, ended := strings.Cut(tail, "]\n")
	missing, err := strconv.Atoi(strings.Fields(said)[0])
	if !cut || !ended || err != nil || len(head)+missing+len(tail) != len(line) {
		t.Errorf("%d bytes, then %q, then %d bytes, of %d", len(head), said, len(tail), len(line))
	}
	if !strings.HasPrefix(line, head) || !strings.HasSuffix(line, tail) || len(head) < limit/2-4 || len(tail) < limit/2-4 {
		t.Errorf("head of %d and tail of %d bytes are none of the line", len(head), len(tail))
	}
	for _, entry := range job.Log {
		if len(entry) > 64<<10 || !utf8.ValidString(entry) {
			t.Errorf("an entry of %d bytes, valid UTF-8: %t", len(entry), utf8.ValidString(entry))
		}
	}
}
