package service_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/leaktest"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/contracts/client/testport"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/job-tracker/service"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		runChild()
	}
	leaktest.Main(m)
}

// patience bounds every step of a test, and so every wait for an event: a test
// that runs into it has failed.
const patience = 3 * time.Minute

// lease is that of every tracker here: one that stands still for a while is to
// lead all the same.
const lease = 30 * time.Second

// site is a NATS server, a Girder, and a connection that plays dispatcher and
// executor.
type site struct {
	t    *testing.T
	ctx  context.Context
	end  *time.Timer // ends ctx
	nats natstest.NATS
	sim  *girdersim.Server
	bus  *bus.Bus
}

func newSite(t *testing.T) *site {
	t.Helper()
	return newSiteAt(t, natstest.Start(t))
}

func newSiteAt(t *testing.T, nats natstest.NATS) *site {
	t.Helper()
	s := &site{t: t, nats: nats}
	var cancel context.CancelFunc
	s.ctx, cancel = context.WithCancel(context.Background())
	t.Cleanup(cancel)
	s.end = time.AfterFunc(patience, cancel)
	sim, err := girdersim.Start(girdersim.Options{Addr: testport.Address(t)})
	s.must(err)
	t.Cleanup(func() { _ = sim.Close() })
	s.sim = sim
	s.bus, err = bus.Open(s.ctx, s.nats.Config(), "test", "a")
	s.must(err)
	t.Cleanup(s.bus.Close)
	return s
}

// restartNATS stops all servers and starts them again with the same data.
func (s *site) restartNATS() {
	s.nats.Stop()
	s.nats.Start()
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
	s.end.Reset(patience)
}

// start runs a tracker until the returned function is called, which ends it
// wherever it is. It waits for the end of a log as long as a test does.
func (s *site) start(options ...func(*service.Config)) (stop func()) {
	s.t.Helper()
	cfg := service.Config{NATS: s.nats.Config(), SweepInterval: 50 * time.Millisecond, LogPatience: patience, LeaseTTL: lease}
	ready := make(chan struct{})
	cfg.OnReady = func() { close(ready) }
	for _, option := range options {
		option(&cfg)
	}
	ctx, cancel := context.WithCancel(zerolog.New(zerolog.NewTestWriter(s.t)).Level(zerolog.WarnLevel).WithContext(context.Background()))
	ended := make(chan error, 1)
	go func() { ended <- service.Run(ctx, cfg) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			s.t.Errorf("tracker: %v", err)
		}
	}
	s.t.Cleanup(stop)
	select {
	case <-ready:
	case <-s.ctx.Done():
		s.t.Fatal("the tracker is not ready")
	}
	return stop
}

// run is one job as dispatcher and executor drive it.
type run struct {
	*site
	id   contracts.JobID
	last *bus.Seen
	seq  uint64 // of the log
	note uint64

	places bool  // pieces of log say where in it they are
	offset int64 // of the next one
}

func task(girder *contracts.Girder) *contracts.Task {
	return &contracts.Task{
		Version: 1, Name: contracts.TaskDockerRun, Docker: &contracts.DockerRun{Image: "demo/image:1"},
		Girder: girder, Labels: map[string]string{"project": "lung"},
	}
}

// create is a task that asks for a Girder job.
func (s *site) create() *contracts.Task {
	s.t.Helper()
	user, err := s.sim.CreateUser("user"+strings.ToLower(contracts.NewToken()[:6]), "password")
	s.must(err)
	token, err := s.sim.UserToken(user.ID, "jobs.rest.create_job")
	s.must(err)
	return task(&contracts.Girder{APIURL: s.sim.APIURL(), Job: &contracts.GirderJob{Token: contracts.Secret(token), Title: "Segment"}})
}

// takeOver is a task for a Girder job that exists.
func (s *site) takeOver(job girdersim.Job) *contracts.Task {
	return task(&contracts.Girder{JobInfo: &contracts.GirderJobInfo{
		Method: "PUT", URL: job.URL, Reference: job.ID, Headers: map[string]contracts.Secret{"Girder-Token": contracts.Secret(job.Token)},
	}})
}

// write appends to the log of a Girder job, as somebody else may.
func (s *site) write(job girdersim.Job, text string) {
	s.t.Helper()
	client, err := girder.NewJobClient(girder.JobSpec{URL: job.URL, Headers: map[string]string{"Girder-Token": job.Token}}, girder.Options{})
	s.must(err)
	defer client.CloseIdle()
	_, err = client.Update(s.ctx, girder.JobUpdate{Log: text})
	s.must(err)
}

func (s *site) submit(task *contracts.Task) *run {
	s.t.Helper()
	r := &run{site: s, id: contracts.NewJobID()}
	redacted, secrets, err := task.Redact()
	s.must(err)
	r.entry(&contracts.Submitted{Task: redacted, Submission: 1, SubmittedAt: time.Now().UTC()})
	for kind, values := range secrets {
		s.must(s.bus.PutSecrets(s.ctx, r.id, kind, values))
	}
	r.entry(&contracts.Queued{Lane: contracts.LaneNormal, Queue: contracts.DefaultQueue, Kind: contracts.KindDocker, Reason: contracts.QueuedSubmit})
	return r
}

func (r *run) entry(data contracts.EntryData) {
	r.t.Helper()
	next, err := r.bus.Append(r.ctx, r.id, r.last, data)
	r.must(err)
	r.last = next
}

func (r *run) claim() {
	r.t.Helper()
	r.seq, r.offset = 0, 0
	r.entry(&contracts.Claimed{Node: "node", Executor: "executor"})
}

func (r *run) begin() {
	r.t.Helper()
	r.claim()
	r.entry(&contracts.Started{Container: "0123456789abcdef"})
}

func (r *run) print(stream contracts.LogStream, data string) {
	r.t.Helper()
	r.seq++
	chunk := &contracts.LogChunk{Version: 1, Job: r.id, Attempt: r.last.Attempt, Seq: r.seq, Time: time.Now().UTC(), Stream: stream}
	chunk.SetBytes([]byte(data))
	if r.places {
		chunk.Offset = r.offset
	}
	r.offset += int64(len(data))
	r.must(r.bus.Publish(r.ctx, contracts.LogHeadSubject(r.id), "", chunk))
}

func (r *run) tell(total, current float64, message string) {
	r.t.Helper()
	r.note++
	note, err := contracts.NewNote(contracts.NoteProgress, r.last.Attempt, r.note, contracts.Progress{Total: &total, Current: &current, Message: message})
	r.must(err)
	r.must(r.bus.Publish(r.ctx, contracts.NotesSubject(r.id), "", note))
}

func (r *run) succeed() {
	r.t.Helper()
	r.entry(&contracts.Succeeded{LogSeq: r.seq})
}

// projected waits until the projection is as the condition wants it.
func (r *run) projected(condition func(*contracts.Job) bool) *contracts.Job {
	r.t.Helper()
	for job, err := range r.bus.Projections(r.ctx) {
		if err != nil {
			r.t.Fatal(err)
		}
		if job != nil && job.ID == r.id && condition(job) {
			r.end.Reset(patience)
			return job
		}
	}
	r.t.Fatal("the projection does not get there")
	return nil
}

// mirrored waits until the mirror is done and returns the Girder job.
func (r *run) mirrored() girdersim.Job {
	r.t.Helper()
	job := r.projected(func(job *contracts.Job) bool { return job.Girder != nil && job.Girder.Done })
	if job.Girder.Problem != "" {
		r.t.Errorf("problem: %s", job.Girder.Problem)
	}
	return r.girder()
}

// girder waits until the Girder job is known and returns it.
func (r *run) girder() girdersim.Job {
	r.t.Helper()
	job := r.projected(func(job *contracts.Job) bool { return job.Girder.ID != "" })
	found, err := r.sim.Job(job.Girder.ID)
	r.must(err)
	return found
}

func (r *run) awaitGirder(condition func(girdersim.Job) bool) girdersim.Job {
	r.t.Helper()
	job, err := r.sim.AwaitJob(r.ctx, r.girder().ID, condition)
	r.must(err)
	return job
}

func (r *run) awaitStatus(status int) girdersim.Job {
	r.t.Helper()
	return r.awaitGirder(func(job girdersim.Job) bool { return job.Status == status })
}

func logOf(job girdersim.Job) string { return strings.Join(job.Log, "") }

// used returns the Girder jobs that anything was told, without those that were
// created in vain: nobody can find a job whose creation got no answer.
func (s *site) used() (used []girdersim.Job) {
	for _, job := range s.sim.Jobs() {
		if job.Status != 0 || logOf(job) != "" || len(job.Statuses()) > 0 {
			used = append(used, job)
		}
	}
	return used
}

func (s *site) wantStatuses(job girdersim.Job, want ...int) {
	s.t.Helper()
	if diff := cmp.Diff(want, job.Statuses()); diff != "" {
		s.t.Errorf("statuses: %s", diff)
	}
}

func (s *site) wantLog(job girdersim.Job, want string) {
	s.t.Helper()
	if got := logOf(job); got != want {
		s.t.Errorf("log has %d bytes, want %d; %s", len(got), len(want), difference(got, want))
	}
}

// difference shows where two long texts part.
func difference(got, want string) string {
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	window := func(s string) string { return s[max(0, min(len(s), at)-40):min(len(s), at+60)] }
	return cmp.Diff(window(want), window(got))
}

// awaitNoSecrets waits until a job has no secrets. A purge is no message that
// could be awaited, so it looks again and again.
func (r *run) awaitNoSecrets() {
	r.t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for r.ctx.Err() == nil {
		left := 0
		for _, kind := range contracts.SecretKinds {
			secrets, err := r.bus.Secrets(r.ctx, r.id, kind)
			if err != nil {
				r.t.Fatal(err)
			}
			left += len(secrets)
		}
		if left == 0 {
			return
		}
		<-ticker.C
	}
	r.t.Fatal("secrets are left")
}
