package mirror

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/internal/girder"
)

// Config of a [Manager].
type Config struct {
	// GirderAPIURL replaces the base of every Girder URL in a task, if set.
	GirderAPIURL string
	// SessionFiles are the folders of which a task's session may name files.
	SessionFiles []string
	// LogLimit is how much log Girder gets of one job, in bytes.
	LogLimit int64
	// SecretsRetention is how long the secrets of a failed job are kept.
	SecretsRetention time.Duration
	// Patience is how long a Girder that does not answer is asked again.
	Patience time.Duration
	// LogPatience is how long the end of a log is waited for, from the last message
	// on, that is not there when its job has ended. An owner that was cut off ships
	// it again in this time.
	LogPatience time.Duration
	// Sweep is the time between two looks for secrets to delete.
	Sweep time.Duration
}

// Manager runs the mirrors of all jobs. One instance leads at a time.
type Manager struct {
	bus   *bus.Bus
	cfg   Config
	hosts hosts
	// clients and traffic are shared by all mirrors.
	clients *girder.Clients
	traffic *girder.Traffic

	mu      sync.Mutex
	mirrors map[contracts.JobID]*mirror
	running *errgroup.Group
	ctx     context.Context // of the running mirrors; nil while not leading
}

// NewManager returns a manager that does nothing yet.
func NewManager(b *bus.Bus, cfg Config) *Manager {
	return &Manager{
		bus: b, cfg: cfg, hosts: hosts{byName: map[string]*host{}}, mirrors: map[contracts.JobID]*mirror{},
		clients: girder.NewClients(girder.ClientLimits{SessionFiles: cfg.SessionFiles}), traffic: girder.NewTraffic(girder.TrafficLimits{}),
	}
}

// Run mirrors jobs until the context ends. What is under way is then left as it
// is: whoever leads next goes on with it.
func (m *Manager) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	m.mu.Lock()
	m.running, m.ctx = group, ctx
	m.mu.Unlock()
	group.Go(func() error { return m.watch(ctx) })
	group.Go(func() error { return m.sweep(ctx) })
	group.Go(func() error {
		<-ctx.Done()
		m.mu.Lock()
		defer m.mu.Unlock()
		m.ctx = nil // from here on no mirror starts
		return nil
	})
	err := group.Wait()
	m.clients.Close()
	return err
}

func (m *Manager) watch(ctx context.Context) error {
	caughtUp := false
	for job, err := range m.bus.Projections(ctx) {
		switch {
		case err != nil:
			return err
		case job == nil:
			caughtUp = true
		case job.Girder != nil && !job.Girder.Done:
			m.mirror(job.ID).wakeUp()
		case caughtUp && job.Status.Terminal():
			// Those that ended before are the sweep's.
			m.retire(ctx, job)
		}
	}
	return context.Cause(ctx)
}

// mirror returns the mirror of a job, starting it if need be.
func (m *Manager) mirror(job contracts.JobID) *mirror {
	m.mu.Lock()
	defer m.mu.Unlock()
	if running, ok := m.mirrors[job]; ok {
		return running
	}
	started := newMirror(m, job)
	if m.ctx == nil {
		return started
	}
	m.mirrors[job] = started
	ctx := zerolog.Ctx(m.ctx).With().Str("job", string(job)).Logger().WithContext(m.ctx)
	m.running.Go(func() error {
		started.runUntilDone(ctx)
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.mirrors, job)
		return nil
	})
	return started
}

// gatePatience is how long the gate waits for Girder before it opens.
const gatePatience = 1500 * time.Millisecond

// Gate says whether an attempt of a job may begin: Girder is asked whether the
// job was canceled there. A Girder that does not answer in time stops nobody.
func (m *Manager) Gate(ctx context.Context, request contracts.GateRequest) (contracts.GateReply, error) {
	ctx, cancel := context.WithTimeout(ctx, gatePatience)
	defer cancel()
	first, err := m.bus.EntryAfter(ctx, request.Job, 0)
	if err != nil || first == nil {
		return contracts.GateReply{}, errors.Join(&contracts.RequestError{Code: contracts.CodeNotFound, Message: "no such job"}, err)
	}
	submitted, ok := first.Data.(*contracts.Submitted)
	if !ok || !submitted.Task.HasGirderJob() {
		return contracts.GateReply{Verdict: contracts.GateOpen}, nil
	}
	return m.mirror(request.Job).gate(ctx), nil
}
