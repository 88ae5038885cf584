package service_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/job-tracker/service"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// lines prints n lines and returns them.
func (r *run) lines(what string, n int) string {
	r.t.Helper()
	var all strings.Builder
	for i := range n {
		line := fmt.Sprintf("%s %d äöü\n", what, i)
		r.print(contracts.LogStdout, line)
		all.WriteString(line)
	}
	return all.String()
}

func TestGirderIsDownForAWhile(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	other := s.submit(s.create())
	r := s.submit(s.create())
	r.begin()
	want := r.lines("before", 20)
	r.awaitGirder(func(job girdersim.Job) bool { return logOf(job) == want })
	s.sim.Down()
	want += r.lines("meanwhile", 20)
	r.projected(func(job *contracts.Job) bool { return job.Girder.Problem != "" })
	other.claim()
	other.entry(&contracts.Started{Container: "c"})
	s.must(s.sim.Up())
	want += r.lines("after", 20)
	r.succeed()
	other.succeed()
	job := r.mirrored()
	s.wantStatuses(job, girdersim.Running, girdersim.Success)
	s.wantLog(job, want)
	s.wantStatuses(other.mirrored(), girdersim.Running, girdersim.Success)
}

func TestGirderIsDownFromTheBeginning(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	wanted := s.create()
	s.sim.Down()
	r := s.submit(wanted)
	r.begin()
	want := r.lines("line", 5)
	r.succeed()
	r.projected(func(job *contracts.Job) bool { return job.Girder.Problem != "" })
	s.must(s.sim.Up())
	job := r.mirrored()
	s.wantStatuses(job, girdersim.Running, girdersim.Success)
	s.wantLog(job, want)
}

// Every update is carried out once, but its answer is lost the first time.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var puts atomic.Int32
	s.sim.SetFault(func(r *http.Request) *girdersim.Fault {
		if r.Method != http.MethodPut || puts.Add(1)%2 == 0 {
			return nil
		}
		return &girdersim.Fault{Perform: true, Close: true}
	})
	s.start()
	r := s.submit(s.create())
	r.begin()
	want := r.lines("same", 3)
	r.awaitGirder(func(job girdersim.Job) bool { return logOf(job) == want })
	want += r.lines("same", 3)
	r.awaitGirder(func(job girdersim.Job) bool { return logOf(job) == want })
	want += r.lines("same", 3)
	r.succeed()
	job := r.mirrored()
	s.wantStatuses(job, girdersim.Running, girdersim.Success)
	s.wantLog(job, want)
}

// The Girder job is made, but the answer is lost, twice: one job is used, and
// two stay that nobody can find.
func TestLostAnswersToTheCreation(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var posts atomic.Int32
	s.sim.SetFault(func(r *http.Request) *girdersim.Fault {
		if r.Method != http.MethodPost || posts.Add(1) > 2 {
			return nil
		}
		return &girdersim.Fault{Perform: true, Close: true}
	})
	s.start()
	r := s.submit(s.create())
	r.begin()
	want := r.lines("line", 3)
	r.succeed()
	job := r.mirrored()
	s.wantStatuses(job, girdersim.Running, girdersim.Success)
	s.wantLog(job, want)
	if used, all := s.used(), s.sim.Jobs(); len(used) != 1 || len(all) != 3 || posts.Load() != 3 {
		t.Errorf("%d Girder jobs, %d of them used, after %d requests", len(all), len(used), posts.Load())
	}
}

// The tracker ends right after Girder has carried out the k-th update and
// before anything of that was noted; another one goes on.
func TestRestartAfterEachUpdate(t *testing.T) {
	t.Parallel()
	for k := range int32(7) {
		t.Run(fmt.Sprint(k+1), func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			var puts atomic.Int32
			reached, never := make(chan struct{}), make(chan struct{})
			s.sim.SetFault(func(r *http.Request) *girdersim.Fault {
				switch n := puts.Load(); {
				case n > k:
					return &girdersim.Fault{Hang: never}
				case r.Method != http.MethodPut:
					return nil
				}
				if puts.Add(1) <= k {
					return nil
				}
				close(reached)
				return &girdersim.Fault{Perform: true, Close: true}
			})
			stop := s.start()
			r := s.submit(s.create())
			r.begin()
			want := ""
			for range 3 {
				want += r.lines("line", 7)
				r.awaitLogOr(want, reached)
			}
			r.print(contracts.LogStdout, "half a character \xc3")
			r.print(contracts.LogStderr, "x\n")
			r.print(contracts.LogStdout, "\xa4\n")
			r.entry(&contracts.Failed{Kind: contracts.FailureTask, Message: "exit code 3", Warnings: []string{"no artifacts"}, LogSeq: r.seq})
			want += "half a character x\nä\nexit code 3\nWarning: no artifacts\n"
			<-reached
			stop()
			s.sim.SetFault(nil)
			s.start()
			job := r.mirrored()
			s.wantStatuses(job, girdersim.Running, girdersim.Error)
			s.wantLog(job, want)
		})
	}
}

// awaitLogOr waits until Girder has the log, or for the other event.
func (r *run) awaitLogOr(want string, other <-chan struct{}) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	id := r.girder().ID
	shown := make(chan error, 1)
	go func() {
		_, err := r.sim.AwaitJob(ctx, id, func(job girdersim.Job) bool { return logOf(job) == want })
		shown <- err
	}()
	select {
	case err := <-shown:
		r.must(err)
	case <-other:
		cancel()
		<-shown
	}
}

func TestLeaderChange(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	first := s.start()
	r := s.submit(s.create())
	r.begin()
	want := r.lines("first", 10)
	r.awaitGirder(func(job girdersim.Job) bool { return logOf(job) == want })
	s.start() // while the first one leads
	first()
	want += r.lines("second", 10)
	r.awaitGirder(func(job girdersim.Job) bool { return logOf(job) == want })
	r.succeed()
	job := r.mirrored()
	s.wantStatuses(job, girdersim.Running, girdersim.Success)
	s.wantLog(job, want)
	s.awaitTotal(contracts.JobFilter{}, 1)
}

func TestNATSRestarts(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	r := s.submit(s.create())
	r.begin()
	want := r.lines("before", 10)
	r.awaitGirder(func(job girdersim.Job) bool { return logOf(job) == want })
	s.restartNATS()
	want += r.lines("after", 10)
	r.succeed()
	job := r.mirrored()
	s.wantStatuses(job, girdersim.Running, girdersim.Success)
	s.wantLog(job, want)
}

func TestTextThatIsNotUTF8(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	r := s.submit(s.create())
	r.begin()
	r.print(contracts.LogStdout, "a\xe2\x82")
	r.print(contracts.LogStderr, "[e\xff]")
	r.print(contracts.LogStdout, "\xac;b\n")
	r.print(contracts.LogStdout, "end \xf0\x9f")
	r.succeed()
	s.wantLog(r.mirrored(), "a[e\ufffd]€;b\nend \ufffd")
}

func TestLongLog(t *testing.T) {
	t.Parallel()
	const limit = 1 << 20
	s := newSite(t)
	stop := s.start(func(cfg *service.Config) { cfg.GirderLogLimit = limit })
	r := s.submit(s.create())
	r.begin()
	var shipped strings.Builder
	line := 0
	ship := func(bytes int) {
		for end := shipped.Len() + bytes; shipped.Len() < end; {
			var piece strings.Builder
			for piece.Len() < 60<<10 {
				fmt.Fprintf(&piece, "line %d of a long log\n", line)
				line++
			}
			r.print(contracts.LogStdout, piece.String())
			shipped.WriteString(piece.String())
		}
	}
	ship(limit)
	head := shipped.String()[:limit/2]
	r.awaitGirder(func(job girdersim.Job) bool { return logOf(job) == head })
	stop()
	s.start(func(cfg *service.Config) { cfg.GirderLogLimit = limit })
	ship(limit)
	r.succeed()
	all := shipped.String()
	missing := len(all) - limit
	s.wantLog(r.mirrored(), fmt.Sprintf("%s\n[gantry: %d bytes of the log are left out here, behind the first %d]\n%s",
		head, missing, limit/2, all[len(all)-limit/2:]))
}

func TestNineMebibytes(t *testing.T) {
	t.Parallel()
	const limit = 8 << 20
	s := newSite(t)
	s.start()
	r := s.submit(s.create())
	r.begin()
	piece := strings.Repeat("0123456789abcde\n", contracts.MaxLogChunk/16)
	for range 9 << 20 / len(piece) {
		r.print(contracts.LogStdout, piece)
	}
	r.succeed()
	job := r.mirrored()
	half := strings.Repeat("0123456789abcde\n", limit/2/16)
	s.wantLog(job, fmt.Sprintf("%s\n[gantry: %d bytes of the log are left out here, behind the first %d]\n%s", half, 1<<20, limit/2, half))
	for _, entry := range job.Log {
		if len(entry) > 64<<10 {
			t.Errorf("an entry of %d bytes", len(entry))
		}
	}
	s.wantStatuses(job, girdersim.Running, girdersim.Success)
}

func TestQueries(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	jobs := make([]*run, 5)
	for i := range jobs {
		jobs[i] = s.submit(task(nil))
	}
	jobs[0].begin()
	jobs[0].succeed()
	s.awaitTotal(contracts.JobFilter{Statuses: []contracts.Status{contracts.StatusSucceeded}}, 1)
	s.awaitTotal(contracts.JobFilter{Statuses: []contracts.Status{contracts.StatusQueued}}, 4)
	list, err := s.bus.Jobs(s.ctx, contracts.JobFilter{Statuses: []contracts.Status{contracts.StatusQueued}, Label: "project=lung", Limit: 3})
	s.must(err)
	ids := func(list *contracts.JobList) (ids []contracts.JobID) {
		for _, job := range list.Jobs {
			ids = append(ids, job.ID)
		}
		return ids
	}
	if diff := cmp.Diff([]contracts.JobID{jobs[4].id, jobs[3].id, jobs[2].id}, ids(list)); diff != "" || list.Total != 4 {
		t.Errorf("first page of %d: %s", list.Total, diff)
	}
	list, err = s.bus.Jobs(s.ctx, contracts.JobFilter{Statuses: []contracts.Status{contracts.StatusQueued}, Before: jobs[2].id})
	if err != nil || cmp.Diff([]contracts.JobID{jobs[1].id}, ids(list)) != "" {
		t.Errorf("second page %v, %v", ids(list), err)
	}
	if _, err := s.bus.Job(s.ctx, "unknown"); err == nil || !strings.Contains(err.Error(), "there is no job unknown") {
		t.Errorf("unknown job: %v", err)
	}
	var workers []contracts.Instance
	for len(workers) == 0 { // it announces itself meanwhile
		workers, err = s.bus.Workers(s.ctx)
		s.must(err)
	}
	if len(workers) != 1 || workers[0].Service != "job-tracker" {
		t.Errorf("workers %+v", workers)
	}
}

func TestSecretsOfAFailedJobGoLater(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(func(cfg *service.Config) { cfg.SecretsRetention = time.Nanosecond })
	r := s.submit(s.create())
	r.entry(&contracts.Failed{Kind: contracts.FailureRejected, Message: "no"})
	s.wantLog(r.mirrored(), "no\n")
	r.awaitNoSecrets()
}

func TestGirderThatNeverAnswersIsGivenUp(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	wanted := s.create()
	s.sim.Down()
	s.start(func(cfg *service.Config) { cfg.GirderPatience = time.Second })
	r := s.submit(wanted)
	r.begin()
	r.succeed()
	job := r.projected(func(job *contracts.Job) bool { return job.Girder.Done && job.Status.Terminal() })
	if !strings.HasPrefix(job.Girder.Problem, "given up: ") {
		t.Errorf("problem %q", job.Girder.Problem)
	}
	r.awaitNoSecrets()
}

// Pieces 3 and 4 are lost for good; the log says so, at the end too.
func TestLostPiecesAreSaid(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(func(cfg *service.Config) { cfg.LogPatience = 100 * time.Millisecond })
	r := s.submit(s.create())
	r.begin()
	r.print(contracts.LogStdout, "1\n2\n")
	r.seq += 2
	r.print(contracts.LogStdout, "5\n")
	r.seq++
	r.succeed()
	s.wantLog(r.mirrored(), "1\n2\n[gantry: the log has a gap here, 2 pieces of it are lost]\n5\n"+
		"[gantry: the log has a gap here, 1 pieces of it are lost]\n")
}

// The owner ships again what the server lost: some of it comes twice.
func TestPiecesThatComeAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	r := s.submit(s.create())
	r.begin()
	want := r.lines("line", 5)
	r.awaitGirder(func(job girdersim.Job) bool { return logOf(job) == want })
	r.seq = 0
	want = r.lines("line", 8)
	r.succeed()
	s.wantLog(r.mirrored(), want)
}

func TestProjectionAfterAStandstill(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	stop := s.start()
	r := s.submit(task(nil))
	r.projected(func(job *contracts.Job) bool { return job.Status == contracts.StatusQueued })
	stop()
	r.begin()
	r.tell(4, 1, "a")
	r.tell(4, 3, "b")
	s.start()
	r.projected(func(job *contracts.Job) bool {
		return job.Status == contracts.StatusRunning && job.Progress != nil && *job.Progress.Current == 3
	})
	r.succeed()
	job := r.projected(func(job *contracts.Job) bool { return job.Status.Terminal() })
	var types []contracts.EntryType
	for _, line := range job.History {
		types = append(types, line.Type)
	}
	want := []contracts.EntryType{"submitted", "queued", "claimed", "started", "succeeded"}
	if diff := cmp.Diff(want, types); diff != "" {
		t.Errorf("history: %s", diff)
	}
}
