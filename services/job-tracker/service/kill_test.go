package service_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/services/job-tracker/service"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// childEnv has the NATS server's address where the test binary is to be a
// job-tracker of its own, until its standard input ends.
const childEnv = "JOB_TRACKER_TEST_NATS"

// childLease is long for one that stands still to lead all the same, and short
// for one that stands by to look again soon.
const childLease = 20 * time.Second

func runChild() {
	var cfg service.Config
	if err := json.Unmarshal([]byte(os.Getenv(childEnv)), &cfg.NATS); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	cfg.LeaseTTL, cfg.LogPatience = childLease, patience
	ctx, cancel := context.WithCancel(zerolog.New(os.Stderr).Level(zerolog.ErrorLevel).WithContext(context.Background()))
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	if err := service.Run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// process is a job-tracker in a process of its own.
type process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	once  sync.Once
}

func (s *site) spawn(nats client.Config) *process {
	s.t.Helper()
	text, err := json.Marshal(nats)
	s.must(err)
	self, err := os.Executable()
	s.must(err)
	p := &process{cmd: exec.Command(self, "-test.run=^$")}
	p.cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	p.cmd.Stderr = os.Stderr
	p.stdin, err = p.cmd.StdinPipe()
	s.must(err)
	s.must(p.cmd.Start())
	s.t.Cleanup(p.kill)
	return p
}

// kill ends the process at once and waits for that.
func (p *process) kill() {
	p.once.Do(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	})
}

// killer counts a tracker's requests to NATS and Girder together, and kills the
// tracker before the fatal one is carried out.
type killer struct {
	fatal int // 0: none

	mu      sync.Mutex
	count   int
	victim  *process
	wire    *wire
	last    string
	dead    chan struct{} // closed with the victim's end
	stopped bool          // the test has seen all that it wants
}

func (k *killer) asks(what string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopped || k.isDead() {
		return
	}
	k.count++
	if k.count != k.fatal {
		return
	}
	k.last = what
	k.victim.kill()
	close(k.dead)
}

func (k *killer) isDead() bool {
	select {
	case <-k.dead:
		return true
	default:
		return false
	}
}

func (k *killer) stop() (count int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stopped = true
	return k.count
}

// ofTheService are requests that go on whatever jobs there are.
func ofTheService(subject string) bool {
	for _, prefix := range []string{"$JS.API.CONSUMER.MSG.NEXT.", "$KV.nodes.", "$JS.FC.", "$JS.API.INFO"} {
		if strings.HasPrefix(subject, prefix) {
			return true
		}
	}
	return false
}

// killedBefore runs three jobs, kills their tracker before the request with that
// number, 0 for none, and returns how many there were. Another tracker goes on:
// one that stands by, or one that is started then.
func killedBefore(t *testing.T, fatal int, standby bool) int {
	s := newSite(t)
	existing, err := s.sim.CreateJob(girdersim.JobSpec{})
	s.must(err)
	s.write(existing, "before\n")
	k := &killer{fatal: fatal, dead: make(chan struct{})}
	leads := make(chan struct{})
	lead := sync.OnceFunc(func() { close(leads) })
	k.mu.Lock()
	k.wire = newWire(t, s.nats.Config().URL, func(subject string) {
		if subject == "$KV.nodes."+leaseKey {
			lead()
		}
		if !ofTheService(subject) {
			k.asks(subject)
		}
	})
	cfg := s.nats.Config()
	cfg.URL = k.wire.url()
	s.sim.SetFault(func(r *http.Request) *girdersim.Fault {
		before := k.isDead()
		k.asks(r.Method + " " + r.URL.Path)
		if !before && k.isDead() {
			return &girdersim.Fault{Close: true} // it was the fatal one
		}
		return nil
	})
	k.victim = s.spawn(cfg)
	k.mu.Unlock()
	var successor sync.WaitGroup
	defer successor.Wait()
	over := make(chan struct{})
	defer close(over)
	successor.Go(func() {
		select {
		case <-k.dead:
			k.wire.cut()
			s.expireLease()
			if !standby {
				s.spawn(s.nats.Config())
			}
		case <-over:
		}
	})

	if standby {
		select {
		case <-leads:
		case <-k.dead:
		}
		s.spawn(s.nats.Config())
	}
	created, taken, canceled := s.submit(s.create()), s.submit(s.takeOver(existing)), s.submit(s.create())
	created.begin()
	taken.begin()
	first := created.lines("created", 30)
	created.awaitGirder(func(job girdersim.Job) bool { return logOf(job) == first })
	created.tell(10, 4, "four")
	created.entry(&contracts.Failed{Kind: contracts.FailureInfrastructure, Message: "engine gone", Warnings: []string{"early"}, WillRetry: true, LogSeq: created.seq})
	canceled.begin()
	canceled.lines("canceled", 3)
	before := taken.lines("taken", 20)
	taken.awaitGirder(func(job girdersim.Job) bool { return logOf(job) == "before\n"+before })
	created.entry(&contracts.Queued{Lane: contracts.LaneNormal, Queue: contracts.DefaultQueue, Kind: contracts.KindDocker, Reason: contracts.QueuedRetry})
	canceled.awaitStatus(girdersim.Running)
	_, err = s.sim.CancelJob(canceled.girder().ID)
	s.must(err)
	canceled.awaitRevoke(canceledInGirder)
	canceled.entry(&contracts.Canceling{By: "girder"})
	canceled.entry(&contracts.Canceled{By: "girder", LogSeq: canceled.seq})
	created.begin()
	created.tell(10, 10, "ten")
	second := created.lines("again", 30)
	created.entry(&contracts.Succeeded{Warnings: []string{"late"}, LogSeq: created.seq})
	before += taken.lines("more", 20)
	taken.entry(&contracts.Failed{Kind: contracts.FailureTask, Message: "exit code 3", Warnings: []string{"one", "two"}, LogSeq: taken.seq})

	job := created.mirrored()
	s.wantStatuses(job, girdersim.Running, girdersim.Success)
	s.wantLog(job, first+"engine gone (will be tried again)\nWarning: early\n"+second+"Warning: late\n")
	if p := job.Progress; p == nil || *p.Current != 10 || *p.Message != "ten" {
		t.Errorf("progress %+v", p)
	}
	job = taken.mirrored()
	s.wantStatuses(job, girdersim.Running, girdersim.Error)
	s.wantLog(job, "before\n"+before+"exit code 3\nWarning: one\nWarning: two\n")
	job = canceled.mirrored()
	s.wantStatuses(job, girdersim.Running, girdersim.Canceling, girdersim.Canceled)
	s.wantLog(job, "canceled 0 äöü\ncanceled 1 äöü\ncanceled 2 äöü\n")
	if jobs := s.used(); len(jobs) != 3 {
		t.Errorf("%d Girder jobs are used, want 3", len(jobs))
	}
	// Two were to be created, each at the fatal moment perhaps in vain.
	if jobs := s.sim.Jobs(); len(jobs) > 5 {
		t.Errorf("there are %d Girder jobs, want at most two in vain", len(jobs))
	}
	created.awaitNoSecrets()
	if t.Failed() {
		t.Logf("killed before request %d, %s", fatal, k.last)
	}
	return k.stop()
}

// expireLease does what the server does when the lease of a tracker that is dead
// is over.
func (s *site) expireLease() {
	s.t.Helper()
	kv, err := s.bus.JetStream().KeyValue(s.ctx, contracts.BucketNodes)
	s.must(err)
	s.must(kv.Purge(s.ctx, leaseKey))
}

const leaseKey = "leader.job-tracker"

// moments is how many of the moments at which a tracker may die are tried, of
// several hundred.
const moments = 12

// A tracker that is killed between any two of its requests leaves nothing that
// another one does not complete: no line is doubled or missing, and every job
// has one Girder job. JOB_TRACKER_TEST_MOMENTS=all tries all of them.
func TestKilledBetweenAnyTwoRequests(t *testing.T) {
	t.Parallel()
	count := killedBefore(t, 0, false)
	step, begin := max(1, count/moments), 1
	if os.Getenv("JOB_TRACKER_TEST_MOMENTS") == "all" {
		step = 1
	} else {
		begin += rand.IntN(step)
	}
	t.Logf("%d requests", count)
	for fatal := begin; fatal <= count; fatal += step {
		t.Run(fmt.Sprintf("%d", fatal), func(t *testing.T) {
			t.Parallel()
			killedBefore(t, fatal, fatal%2 == 0)
		})
	}
}
