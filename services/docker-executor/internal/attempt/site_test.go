package attempt_test

import (
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/attempt"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/folder"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/policy"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// site has what an executor gives to its attempts: a NATS server and a fake engine.
type site struct {
	t      *testing.T
	bus    *bus.Bus
	engine *fake.Engine
	tools  *attempt.Tools
}

func newSite(t *testing.T) *site {
	t.Helper()
	b, err := bus.Open(t.Context(), natstest.Start(t).Config(), "test", "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	eng := fake.New()
	t.Cleanup(eng.Close)
	rules, err := policy.New(policy.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return &site{t, b, eng, &attempt.Tools{
		Bus: b, Engine: &engine.Watched{Engine: eng}, Images: engine.NewImages(eng, engine.PullLimits{}), Policy: rules, Node: "n", Executor: "ex",
		MaxGrace: time.Hour, LogLimit: 1 << 20,
	}}
}

// live writes the life of a task, and returns its last entry.
func (s *site) live(task *contracts.Task, further ...contracts.EntryData) (last *bus.Seen) {
	s.t.Helper()
	for _, data := range append([]contracts.EntryData{&contracts.Submitted{Task: task}, &contracts.Queued{}}, further...) {
		var err error
		if last, err = s.bus.Append(s.t.Context(), task.ID, last, data); err != nil {
			s.t.Fatal(err)
		}
	}
	return last
}

// claim makes a task the executor's: its last entry, and the folder of its attempt.
func (s *site) claim(task *contracts.Task) (*bus.Seen, *folder.Folder) {
	s.t.Helper()
	last := s.live(task, &contracts.Claimed{Node: "n", Executor: "ex"})
	f, err := folder.Create(s.t.TempDir(), folder.About{Job: task.ID, Attempt: last.Attempt, Container: "gantry-job-1"})
	if err != nil {
		s.t.Fatal(err)
	}
	return last, f
}
