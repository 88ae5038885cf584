// Package attempt is one try at a docker_run task, from the claim to its end:
//
//	revoke read, gate asked, policy checked
//	image pulled, inputs staged in by transfer   side by side
//	container created, started, its log shipped, waited for
//	outputs staged out by transfer
//	end written on top of the job's life, container and folder removed
//
// The attempt's context carries why it is to stop ([Revoked], [ErrSuperseded],
// [ErrStopping]); what has to happen even then (writing the end, stopping the
// container, cleaning up) has contexts of its own.
package attempt

import (
	"context"
	"errors"
	"fmt"
	"strconv"
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
	// ErrStopping is the cause when the executor ends.
	ErrStopping = errors.New("the executor is stopping")
)

// Tools are what all attempts of an executor share.
type Tools struct {
	Bus          *bus.Bus
	Engine       engine.Engine
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
}

// Attempt is one claimed try.
type Attempt struct {
	tools  *Tools
	task   *contracts.Task
	folder *folder.Folder
	log    zerolog.Logger
	notes  *notes.Teller

	last    *bus.Seen // the last entry of the job's life that we know of
	timings contracts.Timings
	// plan and container are nil and empty until the attempt came to them.
	plan      *plan
	container string
	begun     bool // the container may have run
	logSeq    uint64
	outputs   []contracts.GirderSent
}

// New returns the attempt of a claimed entry. The folder is the attempt's, with
// its lock held.
func New(tools *Tools, task *contracts.Task, claimed *bus.Seen, f *folder.Folder, log zerolog.Logger) *Attempt {
	return &Attempt{
		tools: tools, task: task, folder: f, log: log, last: claimed,
		notes:   notes.New(tools.Bus, claimed.Job, claimed.Attempt),
		timings: contracts.Timings{Claimed: claimed.Time},
	}
}

// Run tries. It returns when the end of the attempt is in the job's life, or is
// not ours to write; Clean removes what is left then. lifetime outlives ctx and
// bounds the writing of the end.
//
// done says that the ready message has served its purpose and is to be
// acknowledged; else it is to be offered to somebody else. After
// [ErrSuperseded] it is the new owner's, and to be left alone.
func (a *Attempt) Run(ctx, lifetime context.Context) (done bool, err error) {
	telling, stopTelling := context.WithCancel(lifetime)
	told := make(chan struct{})
	go func() {
		defer close(told)
		a.notes.Run(telling, lifetime)
	}()
	end, err := a.try(ctx, lifetime)
	stopTelling()
	<-told
	if err != nil {
		end, err = a.endOf(ctx, lifetime, err)
	}
	if err == nil {
		done, err = a.write(ctx, lifetime, end)
	}
	if errors.Is(err, bus.ErrOvertaken) || errors.Is(err, ErrSuperseded) {
		a.log.Warn().Msg("another attempt owns the job, this one is dropped")
		return false, ErrSuperseded
	}
	return done, err
}

// try does all the work, and returns how the attempt ended.
func (a *Attempt) try(ctx, lifetime context.Context) (contracts.EntryData, error) {
	image, err := a.open(ctx)
	if err != nil {
		return nil, err
	}
	exit, err := a.runContainer(ctx, lifetime, image)
	if err != nil {
		return nil, err
	}
	a.timings.Exited = time.Now().UTC()
	if failure := a.failureOf(exit); failure != nil {
		return failure, nil
	}
	if err := a.push(ctx, lifetime); err != nil {
		return nil, err
	}
	return &contracts.Succeeded{ExitCode: exit.Code, Outputs: a.outputs}, nil
}

// open does all that comes before the container starts. It is given up where
// the executor stops, since somebody else can do it as well.
func (a *Attempt) open(ctx context.Context) (engine.Image, error) {
	opening, cancel := context.WithCancelCause(ctx)
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
	var image engine.Image
	if err == nil {
		image, err = a.prepare(opening)
	}
	if cause := context.Cause(opening); cause != nil {
		return image, cause
	}
	return image, err
}

// append writes the next entry of the job's life. It is not cut short by a
// revoke: whether the entry is there has to be known.
func (a *Attempt) append(lifetime context.Context, data contracts.EntryData) error {
	next, err := a.tools.Bus.Append(lifetime, a.last.Job, a.last, data)
	if err != nil {
		return err
	}
	a.last = next
	return nil
}

// begin makes sure that the attempt may begin at all.
func (a *Attempt) begin(ctx context.Context) error {
	// The job was registered with the revoke listener before it was claimed, so
	// a revoke is heard there or stands here.
	revoke, err := a.tools.Bus.LastRevoke(ctx, a.last.Job)
	if err != nil {
		return err
	}
	if revoke != nil {
		return &Revoked{*revoke}
	}
	if a.task.HasGirderJob() {
		if err := a.passGate(ctx); err != nil {
			return err
		}
	}
	if a.last.Attempt > 1 {
		if err := a.tools.Remove(ctx, a.last.Job, 0); err != nil {
			return err // two attempts of a job never run side by side
		}
	}
	a.plan, err = makePlan(a.task, a.tools, a.folder)
	return err
}

// gatePatience is how long the gate may be silent: a Girder that is down delays
// no task that can run without it.
const gatePatience = 2 * time.Second

func (a *Attempt) passGate(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, gatePatience)
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

// Clean removes everything of the attempt that is on the node.
func (a *Attempt) Clean(ctx context.Context) error {
	var err error
	if a.container != "" {
		err = a.tools.Engine.Remove(ctx, a.container)
	} else {
		err = a.tools.Remove(ctx, a.last.Job, a.folder.Attempt)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("clean up: %w", err), a.folder.Close())
	}
	if err := RemovePipes(a.folder); err != nil {
		a.log.Warn().Err(err).Msg("named pipe left on a volume, the next attempt takes it over")
	}
	if err := a.folder.Remove(); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	return nil
}

// Remove removes the containers that an attempt of a job has on this engine,
// those of all its attempts for attempt 0.
func (t *Tools) Remove(ctx context.Context, job contracts.JobID, attempt int) error {
	labels := map[string]string{LabelInstallation: t.Installation, LabelJob: string(job)}
	if attempt != 0 {
		labels[LabelAttempt] = strconv.Itoa(attempt)
	}
	found, err := t.Engine.List(ctx, labels)
	if err != nil {
		return err
	}
	for _, container := range found {
		if err := t.Engine.Remove(ctx, container.ID); err != nil {
			return err
		}
	}
	return nil
}
