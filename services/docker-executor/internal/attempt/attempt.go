// Package attempt is one try at a docker_run task, from the claim to its end:
//
//	revoke read, gate asked, policy checked
//	image pulled, inputs staged in by transfer   side by side
//	container created, started, its log shipped, waited for
//	outputs staged out by transfer
//	end written on top of the job's life, container and folder removed
//
// An attempt whose executor died, or was stopped while the container ran, is
// adopted: begun again from what the engine, the folder and the job's life say
// of it. What was done is not done again.
//
// The attempt's context carries why it is to stop ([Revoked], [ErrSuperseded],
// [ErrStopping], [ErrLeaseLost]); what has to happen even then (writing the end,
// stopping the container, cleaning up) has contexts of its own.
package attempt

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/folder"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/notes"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/policy"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// Revoked is the cause of a context that ends because the job was revoked.
type Revoked struct {
	contracts.Revoke
}

func (r *Revoked) Error() string { return "revoked" }

var (
	// ErrSuperseded is the cause when somebody else owns the job now: the
	// attempt cleans up and says nothing.
	ErrSuperseded = errors.New("another attempt owns the job")
	// ErrStopping is the cause when the executor ends. A container that runs is
	// left to whoever adopts the attempt.
	ErrStopping = errors.New("the executor is stopping")
	// ErrLeaseLost is the cause when the executor was without NATS for so long
	// that its container is to stop.
	ErrLeaseLost = errors.New("the executor lost its lease: it was without NATS for too long")
)

// Tools are what all attempts of an executor share.
type Tools struct {
	Bus          *bus.Bus
	Engine       *engine.Watched
	Images       *engine.Images
	Policy       *policy.Policy
	Node         contracts.NodeID
	Executor     contracts.ExecutorID
	Installation string
	// Draining is closed when the executor stops: from then on no attempt begins
	// a container, and those that have begun one go on for a while.
	Draining <-chan struct{}
	// MaxGrace bounds the grace that a revoke asks for.
	MaxGrace time.Duration
	// LogLimit is how many bytes of a log are kept.
	LogLimit int64
	// GatePatience is how long the gate may be silent, HoldPatience how long transfer
	// may take to hold the pipes; 0 means 2 seconds.
	GatePatience, HoldPatience time.Duration
	// GirderAPIURL replaces the base of a task's Girder URLs, where it is set.
	GirderAPIURL string
	// Self is the executor's own container, nil where it runs in none.
	Self *engine.Self
	// Network is what containers are connected to that name no network, empty for
	// the engine's own choice.
	Network string
}

// OnHost returns what the engine calls a path of this executor, which may run in
// a container itself.
func (t *Tools) OnHost(path string) (string, error) {
	host, ok := t.Self.HostPath(path)
	if !ok {
		return "", errors.New("the executor runs in a container, and the path is on none of the folders that are mounted into it")
	}
	return host, nil
}

// Attempt is one try, claimed or adopted.
type Attempt struct {
	tools  *Tools
	task   *contracts.Task
	folder *folder.Folder
	log    zerolog.Logger
	notes  *notes.Teller

	last      *bus.Seen // the last entry of the job's life that we know of
	lastAt    time.Time // when that was known to be the last
	plan      *plan
	ways      []engine.Spec // to create the container, the one that is tried now and those after it
	image     engine.Image  // the zero value while it is not known
	container string        // empty while there is none
	begun     bool          // the container may have run
	exited    bool          // it was seen to have ended
	created   bool          // it was found only created: its start may be under way
	timedOut  bool          // it was killed for its time limit
	givenBack error         // why it is released
	logSeq    uint64        // of the log's last piece, once all of it is stored
	shippedOn time.Time     // the connection to NATS that the log was last shipped or verified on

	// What the life says of the attempt: that the container runs, that it is
	// being stopped, that it ended well and outputs are on their way, and those
	// that are in Girder.
	started   bool
	canceling *contracts.Canceling
	pushing   bool
	pushed    int
	outputs   []contracts.GirderSent
	warnings  []string // for people, of the steps

	streaming
}

// New returns the attempt of a claimed entry. The folder is the attempt's, with
// its lock held.
func New(tools *Tools, task *contracts.Task, claimed *bus.Seen, f *folder.Folder, log zerolog.Logger) *Attempt {
	f.Timings.Claimed = claimed.Time
	return &Attempt{
		tools: tools, task: task, folder: f, log: log, last: claimed, lastAt: time.Now(),
		notes: notes.New(tools.Bus, claimed.Job, claimed.Attempt),
	}
}

// Run tries. It returns when the end of the attempt is in the job's life, or is
// not ours to write; Clean removes what is left then. lifetime outlives ctx and
// bounds the writing of the end.
//
// done says that the ready message has served its purpose and is to be
// acknowledged; else it is to be offered to somebody else. After
// [ErrSuperseded] it is the new owner's, and to be left alone. After
// [ErrStopping] the attempt goes on as soon as somebody adopts it: nothing of it
// may be removed.
func (a *Attempt) Run(ctx, lifetime context.Context) (done bool, err error) {
	defer a.closeSpools()
	telling, stopTelling := context.WithCancel(lifetime)
	told := make(chan struct{})
	go func() {
		defer close(told)
		a.notes.Run(telling, lifetime)
	}()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var end contracts.EntryData
	if err = a.heed(lifetime, cancel); err == nil {
		end, err = a.try(ctx, lifetime)
	}
	stopTelling()
	<-told
	if err != nil {
		end, err = a.endOf(ctx, lifetime, err)
	}
	if err == nil {
		err = a.salvage(ctx, lifetime, end)
	}
	if err == nil {
		done, err = a.write(ctx, lifetime, end)
	}
	switch {
	case errors.Is(err, bus.ErrOvertaken), errors.Is(err, ErrSuperseded):
		a.log.Warn().Msg("another attempt owns the job, this one is dropped")
		return false, ErrSuperseded
	case errors.Is(err, ErrStopping):
		a.log.Info().Str("container", a.container).Msg("attempt left to whoever adopts it")
		return false, ErrStopping
	}
	return done, err
}

// heed reads the revoke that came before the job was registered with the revoke
// listener. Every later one is heard there, and does not cut the reading short:
// the container of an adopted attempt is to be followed to its end all the same.
func (a *Attempt) heed(lifetime context.Context, cancel context.CancelCauseFunc) error {
	revoke, err := a.tools.Bus.LastRevoke(lifetime, a.last.Job)
	if err != nil {
		return err
	}
	if revoke == nil && a.canceling != nil { // Girder's word, that came by the gate
		revoke = &contracts.Revoke{Job: a.last.Job, By: a.canceling.By, Reason: a.canceling.Reason}
	}
	if revoke != nil {
		cancel(&Revoked{*revoke})
	}
	return nil
}

// try does all the work, and returns how the attempt ended.
func (a *Attempt) try(ctx, lifetime context.Context) (contracts.EntryData, error) {
	var err error
	switch {
	case !a.begun && a.container == "":
		err = a.open(ctx)
	case len(a.folder.Volumes) == 0: // there always is one
		err = &Infrastructure{"what was noted of the attempt is lost: its host went down while the container ran"}
	default:
		a.plan, err = makePlan(a.task, a.folder)
	}
	if err != nil {
		return nil, err
	}
	exit, err := a.follow(ctx, lifetime)
	if err != nil {
		return nil, err
	}
	if failure := a.failureOf(exit); failure != nil {
		return failure, nil
	}
	if err := a.push(ctx, lifetime); err != nil {
		return nil, err
	}
	return &contracts.Succeeded{ExitCode: exit.Code, Outputs: a.outputs}, nil
}

// open does all that comes before the container starts. It is given up where
// the executor stops, or the engine falls silent, since somebody else can do it
// as well.
func (a *Attempt) open(ctx context.Context) error {
	answering, release := a.tools.Engine.WhileAnswering(ctx)
	defer release()
	opening, cancel := context.WithCancelCause(answering)
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-a.tools.Draining:
			cancel(ErrStopping)
		case <-opening.Done():
		}
	})
	defer watch.Wait()
	defer cancel(nil)
	err := a.begin(opening)
	if err == nil {
		err = a.prepare(opening)
	}
	if cause := context.Cause(opening); cause != nil {
		return cause
	}
	return err
}

// append writes the next entry of the job's life. It is not cut short by a
// revoke: whether the entry is there has to be known.
func (a *Attempt) append(lifetime context.Context, data contracts.EntryData) error {
	next, err := a.tools.Bus.Append(lifetime, a.last.Job, a.last, data)
	if err != nil {
		return err
	}
	a.last, a.lastAt = next, time.Now()
	return nil
}

// note writes into the folder how far the attempt is.
func (a *Attempt) note() error {
	if err := a.folder.Note(); err != nil {
		return &Infrastructure{err.Error()}
	}
	return nil
}

// begin makes sure that the attempt may begin at all.
func (a *Attempt) begin(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if a.task.HasGirderJob() {
		if err := a.passGate(ctx); err != nil {
			return err
		}
	}
	if a.last.Attempt > 1 {
		if err := a.tools.removeOlder(ctx, a.last.Job, a.last.Attempt); err != nil {
			return err
		}
	}
	if err := a.makeVolumes(); err != nil {
		return err
	}
	var err error
	if a.plan, err = makePlan(a.task, a.folder); err != nil {
		return err
	}
	return a.makePipes()
}

// gatePatience is how long the gate may be silent: a Girder that is down delays
// no task that can run without it.
const gatePatience = 2 * time.Second

func (a *Attempt) passGate(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, cmp.Or(a.tools.GatePatience, gatePatience))
	defer cancel()
	reply, err := bus.Ask[contracts.GateReply](asking, a.tools.Bus, contracts.JobsGateSubject, contracts.GateRequest{Job: a.last.Job})
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		a.log.Info().Err(err).Msg("gate is silent, going on")
		return nil
	case reply.Verdict == contracts.GateRevoked:
		return &Revoked{contracts.Revoke{Job: a.last.Job, By: "girder", Reason: reply.Message}}
	case reply.Verdict == contracts.GateRefused:
		return &Failure{Message: reply.Message}
	default:
		return nil
	}
}
