package mirror

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/job-tracker/internal/transcript"
)

const (
	// updateInterval is the least time between two updates of log or progress.
	updateInterval = 500 * time.Millisecond
	// pollInterval is how often Girder is asked whether it cancels a job, where
	// no update was answered in the meantime.
	pollInterval = 2 * time.Second
	// restartPause is the pause after an error of ours.
	restartPause = 5 * time.Second
)

// mirror is one job's way to Girder. Fields below "own" belong to the goroutine
// that runs it.
type mirror struct {
	manager *Manager
	bus     *bus.Bus
	job     contracts.JobID
	wake    chan struct{}

	// attached is closed when the next three are set for good.
	attached chan struct{}
	client   *girder.JobClient // nil if there is no way to the Girder job
	host     *host
	refused  string // why Girder will not create the job

	passed  atomic.Bool // the gate opened without an answer of Girder
	revoked atomic.Bool

	// own
	task    *contracts.Task
	http    *http.Client // see reach
	release func()
	life    life
	handler contracts.GirderHandler
	status  contracts.GirderStatus
	text    *transcript.Transcript
	box     *transcript.Outbox
	noted   contracts.GirderMirror // as the projection has it
	ref     contracts.GirderJobRef // the last word on the job's Girder job
	refSeq  uint64                 // its stream sequence
	problem string
	// logProblem says why Girder gets no more log.
	logProblem string
	live       *live
	readSeq    uint64              // stream sequence of the last message heard
	reread     transcript.Position // where a gap was met and the log read again
	bar        bar
	// As the projection had it when this run began: the attempt, and whether its
	// task says how far it is.
	attempt int
	said    bool
	flushAt time.Time
	poll    pollTime
}

func newMirror(m *Manager, job contracts.JobID) *mirror {
	return &mirror{
		manager: m, bus: m.bus, job: job, wake: make(chan struct{}, 1), attached: make(chan struct{}),
	}
}

// wakeUp says that the job's life went on.
func (m *mirror) wakeUp() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (m *mirror) isAttached() bool {
	select {
	case <-m.attached:
		return true
	default:
		return false
	}
}

func (m *mirror) runUntilDone(ctx context.Context) {
	defer m.letGo()
	for {
		err := m.run(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		zerolog.Ctx(ctx).Error().Err(err).Msg("mirror interrupted, going on")
		pause(ctx, restartPause)
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// run mirrors the job to its end. An error is one of ours; Girder's end in a
// problem that the projection shows.
func (m *mirror) run(ctx context.Context) error {
	projection, err := m.bus.Projection(ctx, m.job)
	if errors.Is(err, bus.ErrNoProjection) {
		err = m.awaitWake(ctx) // the gate asked before the projection was there
		if err == nil {
			projection, err = m.bus.Projection(ctx, m.job)
		}
	}
	if err != nil {
		return err
	}
	if projection.Girder == nil || projection.Girder.Done {
		return nil
	}
	m.noted = *projection.Girder
	m.attempt, m.said = projection.Attempt, projection.Progress != nil
	if err := m.readRef(ctx); err != nil {
		return err
	}
	if err := m.awaitSubmission(ctx); err != nil {
		return err
	}
	err = m.attach(ctx)
	if err == nil && m.refused != "" {
		return m.standRefused(ctx)
	}
	if err == nil {
		defer m.hush()
		err = m.follow(ctx)
	}
	if err != nil && isGirder(err) && ctx.Err() == nil {
		return m.giveUp(ctx, err)
	}
	return err
}

// isGirder tells Girder's refusals and silence from errors of ours.
func isGirder(err error) bool {
	var refusal *girder.Error
	var silence *girder.Unreachable
	var broken *badTaskError
	return errors.As(err, &refusal) || errors.As(err, &silence) || errors.As(err, &broken)
}

// badTaskError says that a task, as it is stored, leads to no Girder job.
type badTaskError struct{ err error }

func (e *badTaskError) Error() string { return e.err.Error() }
func (e *badTaskError) Unwrap() error { return e.err }

func (m *mirror) giveUp(ctx context.Context, cause error) error {
	zerolog.Ctx(ctx).Error().Err(cause).Msg("mirror given up")
	if !m.isAttached() {
		close(m.attached)
	}
	return m.note(ctx, func(g *contracts.GirderMirror) {
		g.Done, g.Problem = true, "given up: "+cause.Error()
	})
}

func (m *mirror) awaitWake(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-m.wake:
		return nil
	}
}

// awaitSubmission waits until the job's secrets are there: the dispatcher
// stores them behind the first entry and before the second.
func (m *mirror) awaitSubmission(ctx context.Context) error {
	for {
		if err := m.catchUp(ctx); err != nil {
			return err
		}
		if m.life.last != nil && m.life.last.Type != contracts.EntrySubmitted {
			return nil
		}
		if err := m.awaitWake(ctx); err != nil {
			return err
		}
	}
}

// catchUp reads on in the job's life, or all of it again where the server has lost
// what was read last.
func (m *mirror) catchUp(ctx context.Context) error {
	held, err := m.bus.Holds(ctx, m.job, m.life.seq, func(entry *contracts.Entry) bool { return entry.Entry == m.life.last.Entry })
	if err != nil {
		return err
	}
	if !held {
		m.life = life{}
	}
	for {
		next, err := m.bus.EntryAfter(ctx, m.job, m.life.seq)
		if err != nil {
			return err
		}
		if next == nil {
			return nil
		}
		if submitted, ok := next.Data.(*contracts.Submitted); ok {
			m.task = submitted.Task
		}
		m.life.add(next.Entry, next.Seq)
	}
}

// standRefused waits for the end of a job that Girder will not create. The gate
// fails it; an attempt that passed the gate while Girder was silent is revoked.
func (m *mirror) standRefused(ctx context.Context) error {
	for {
		if err := m.catchUp(ctx); err != nil {
			return err
		}
		if m.life.terminal != nil {
			return m.note(ctx, func(g *contracts.GirderMirror) { g.Done, g.Problem = true, m.refused })
		}
		if m.life.started() || m.passed.Load() {
			m.revoke(ctx, m.refused)
		}
		if err := m.awaitWake(ctx); err != nil {
			return err
		}
	}
}

// follow sends what is new until the job has ended and Girder knows it.
func (m *mirror) follow(ctx context.Context) error {
	m.poll.start()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for woken := true; ; {
		if woken {
			if err := m.step(ctx); err != nil {
				return err
			}
			if m.life.terminal != nil {
				return m.finish(ctx)
			}
			woken = false
		}
		timer.Reset(time.Until(m.nextDue()))
		var err error
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-m.wake:
			woken = true
		case h := <-m.heard():
			err = m.hear(ctx, h)
		case <-timer.C:
			err = m.due(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// step does what a job's life asks for, up to its end.
func (m *mirror) step(ctx context.Context) error {
	if err := m.catchUp(ctx); err != nil {
		return err
	}
	m.endAttempts()
	if target, ok := m.life.target(m.handler); ok {
		if err := m.sendStatus(ctx, target); err != nil {
			return err
		}
	}
	if m.life.attempted() && m.life.terminal == nil && m.live == nil {
		m.live = listen(ctx, m.bus, m.job)
	}
	return nil
}

func (m *mirror) nextDue() time.Time {
	if m.flushAt.IsZero() || m.poll.at.Before(m.flushAt) {
		return m.poll.at
	}
	return m.flushAt
}

func (m *mirror) due(ctx context.Context) error {
	now := time.Now()
	if !m.flushAt.IsZero() && !m.flushAt.After(now) {
		return m.flush(ctx, false)
	}
	if m.poll.at.After(now) || !m.poll.turn(m.host, m.life.attempted()) {
		return nil
	}
	m.askStatus(ctx)
	return nil
}

// note changes what the projection says of the mirror.
func (m *mirror) note(ctx context.Context, change func(*contracts.GirderMirror)) error {
	next := m.noted
	change(&next)
	if next == m.noted {
		return nil
	}
	if next.Done {
		if err := m.tell(ctx, func(ref *contracts.GirderJobRef) { ref.Mirror = &next }); err != nil {
			return err
		}
	}
	_, err := m.bus.UpdateProjection(ctx, m.job, func(job *contracts.Job) bool {
		if job.Girder == nil || job.Girder.Done {
			return false
		}
		*job.Girder = next
		return true
	})
	if err != nil {
		return fmt.Errorf("note state of mirror: %w", err)
	}
	m.noted = next
	return nil
}

// revoke ends the job, once.
func (m *mirror) revoke(ctx context.Context, reason string) {
	if !m.revoked.CompareAndSwap(false, true) {
		return
	}
	if err := m.bus.Revoke(ctx, contracts.Revoke{Job: m.job, By: "girder", Reason: reason}); err != nil {
		m.revoked.Store(false) // the next answer of Girder says it again
		zerolog.Ctx(ctx).Warn().Err(err).Msg("job not revoked")
		return
	}
	zerolog.Ctx(ctx).Info().Str("reason", reason).Msg("job revoked")
}

// gate says whether an attempt may begin.
func (m *mirror) gate(ctx context.Context) contracts.GateReply {
	select {
	case <-m.attached:
	case <-ctx.Done():
		if m.isAttached() { // both at once: what is known counts
			break
		}
		m.passed.Store(true)
		m.wakeUp()
		return contracts.GateReply{Verdict: contracts.GateOpen, Message: "Girder does not answer"}
	}
	if m.refused != "" {
		return contracts.GateReply{Verdict: contracts.GateRefused, Message: m.refused}
	}
	if m.client == nil {
		return contracts.GateReply{Verdict: contracts.GateOpen, Message: "there is no Girder job"}
	}
	job, err := m.once(ctx, m.client.Get)
	if err != nil {
		return contracts.GateReply{Verdict: contracts.GateOpen, Message: "Girder does not answer"}
	}
	if isCancel(job.Status) {
		m.revoke(ctx, canceledInGirder)
		return contracts.GateReply{Verdict: contracts.GateRevoked, Message: canceledInGirder}
	}
	return contracts.GateReply{Verdict: contracts.GateOpen}
}

// canceledInGirder is the reason of a revoke.
const canceledInGirder = "canceled in Girder"

func isCancel(status contracts.GirderStatus) bool {
	return status == contracts.GirderCanceling || status == contracts.GirderCanceled
}
