// Package sweep looks after the jobs that have not ended. What moves one on is a
// message in another stream than its life: the submission, the ready message, or
// the schedule of its retry. It may be missing: a dispatcher died between the
// two, or the server lost what it had stored last. Then nobody would ever come for
// the job, and the sweep puts in its place what its life asks for.
//
// That a message is missing is decided by the server, or on the life's last entry:
// none is ever beside one that is there or in somebody's hands.
package sweep

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/cancel"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/offer"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/retry"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// Sweeper knows the jobs that have not ended, and looks at each that has stood
// still for long.
//
// What it found to be there is looked at again ever less often, as nothing
// removes it but who goes on with the job: there may be a hundred thousand.
type Sweeper struct {
	Bus *bus.Bus
	// Interval is how often it looks, and how long a job has stood still then.
	Interval time.Duration

	mu     sync.Mutex
	jobs   map[contracts.JobID]still
	queued int // of them
}

// maxPause is how many intervals lie at most between two looks at a job.
const maxPause = 64

// still is a job as its last entry left it.
type still struct {
	job    contracts.JobID
	seq    uint64 // of the entry
	queued bool   // in its queue, also when it was given back
	// ready is the subject of its ready message, where the entry says it.
	ready string
	next  time.Time
	pause time.Duration // after next
}

// Observe takes note of the last entry of a job's life.
func (s *Sweeper) Observe(last *bus.Seen) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.observe(last)
}

func (s *Sweeper) observe(last *bus.Seen) {
	s.drop(last.Job)
	if last.Terminal() || last.Data == nil { // it ended, or a newer version knows what is next
		return
	}
	job := still{job: last.Job, seq: last.Seq, next: time.Now().Add(s.Interval), pause: 2 * s.Interval}
	switch data := last.Data.(type) {
	case *contracts.Queued:
		job.queued, job.ready = true, contracts.ReadySubject(data.Lane, data.Queue, data.Kind, last.Job, last.Offer)
	case *contracts.Released:
		job.queued = true
	case *contracts.Failed:
		if due := data.RetryAt.Add(s.Interval); due.After(job.next) {
			job.next = due
		}
	}
	if s.jobs == nil {
		s.jobs = map[contracts.JobID]still{}
	}
	s.jobs[last.Job] = job
	if job.queued {
		s.queued++
	}
}

func (s *Sweeper) drop(job contracts.JobID) {
	if s.jobs[job].queued {
		s.queued--
	}
	delete(s.jobs, job)
}

// Forget drops all that was observed.
func (s *Sweeper) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.jobs, s.queued = nil, 0
}

// Queued returns how many jobs wait in queues.
func (s *Sweeper) Queued() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queued
}

// Run sweeps until the context ends.
func (s *Sweeper) Run(ctx context.Context) error {
	ticker := time.NewTicker(s.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
			s.sweep(ctx)
		}
	}
}

func (s *Sweeper) sweep(ctx context.Context) {
	for _, job := range s.overdue(time.Now()) {
		if !s.stands(job) {
			continue
		}
		err := s.look(ctx, job)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			zerolog.Ctx(ctx).Warn().Err(err).Str("job", string(job.job)).Msg("job that stands still not looked at")
			continue
		}
		s.found(job)
	}
}

// overdue returns the jobs that are to be looked at, those first whose last entry
// is older. Until they are found in order they are to be looked at again.
func (s *Sweeper) overdue(now time.Time) []still {
	s.mu.Lock()
	defer s.mu.Unlock()
	var overdue []still
	for _, job := range s.jobs {
		if !now.Before(job.next) {
			overdue = append(overdue, job)
		}
	}
	slices.SortFunc(overdue, func(a, b still) int { return cmp.Compare(a.seq, b.seq) })
	return overdue
}

// stands reports whether the entry is still the last that was observed of the
// job's life.
func (s *Sweeper) stands(job still) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	present, ok := s.jobs[job.job]
	return ok && present.seq == job.seq
}

// found puts off the next look at a job.
func (s *Sweeper) found(job still) {
	s.mu.Lock()
	defer s.mu.Unlock()
	present, ok := s.jobs[job.job]
	if !ok || present.seq != job.seq {
		return
	}
	present.next, present.pause = time.Now().Add(present.pause), min(2*present.pause, maxPause*s.Interval)
	s.jobs[job.job] = present
}

// correct takes note of what the server says of a job, unless something else was
// observed since.
func (s *Sweeper) correct(job still, last *bus.Seen) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.jobs[job.job].seq != job.seq {
		return
	}
	if last == nil {
		s.drop(job.job)
		return
	}
	s.observe(last)
}

// look puts in its place what is missing for a job to go on. The usual look, at a
// queued job whose ready message is there, is one request.
func (s *Sweeper) look(ctx context.Context, job still) error {
	if job.ready != "" {
		ready, err := s.Bus.LastSeq(ctx, contracts.StreamReady, job.ready)
		if err != nil || ready > 0 {
			return err
		}
	}
	last, err := s.Bus.Last(ctx, job.job)
	if err != nil {
		return err
	}
	if last == nil || last.Seq != job.seq {
		s.correct(job, last)
		return nil
	}
	submitted, err := s.Bus.Submitted(ctx, job.job)
	if err != nil || submitted == nil {
		return err
	}
	missing, err := s.replace(ctx, last, submitted)
	if err != nil || !missing {
		return err
	}
	zerolog.Ctx(ctx).Info().Str("job", string(last.Job)).Str("after", string(last.Type)).Int("offer", last.Offer).Msg("job stood still, moved on")
	return cancel.IfRevoked(ctx, s.Bus, last.Job)
}

// replace publishes what is to follow on a job's last entry, and reports whether
// it was missing. Should the entry be the last no more by then, whoever gets the
// message finds it to be of no use.
//
// A ready message is missed also where the job has an owner: should the owner, or
// what it knew, be gone, others learn from the message that the job is there.
func (s *Sweeper) replace(ctx context.Context, last *bus.Seen, submitted *contracts.Submitted) (missing bool, err error) {
	switch last.Type {
	case contracts.EntrySubmitted:
		return s.takeUp(ctx, last, submitted)
	case contracts.EntryFailed:
		return s.planAgain(ctx, last)
	default:
		return offer.PublishMissing(ctx, s.Bus, last, submitted.Task)
	}
}

// takeUp queues a job whose submission is gone before intake was through with it.
// Secrets that were not stored by then are gone, too: who needs one says so.
//
// A server that lost its last messages uses their sequences again: with another
// time than the life keeps it is another submission.
func (s *Sweeper) takeUp(ctx context.Context, last *bus.Seen, submitted *contracts.Submitted) (missing bool, err error) {
	msg, err := s.Bus.MessageAt(ctx, contracts.StreamSubmit, submitted.Submission)
	if err == nil && (submitted.SubmittedAt.IsZero() || submitted.SubmittedAt.Equal(msg.Time)) {
		return false, nil // it is there, for intake
	}
	if err != nil && !errors.Is(err, bus.ErrNoMessage) {
		return false, err
	}
	_, err = offer.Queue(ctx, s.Bus, last, submitted.Task, contracts.QueuedSubmit)
	if errors.Is(err, bus.ErrOvertaken) {
		return false, nil
	}
	return err == nil, err
}

// planAgain plans the retry of a failed attempt that should have come by now.
func (s *Sweeper) planAgain(ctx context.Context, failed *bus.Seen) (missing bool, err error) {
	for _, subject := range []string{ // in the order in which the one becomes the other
		contracts.LaterSubject(failed.Job, contracts.LaterRetry), contracts.DueSubject(failed.Job, contracts.LaterRetry),
	} {
		there, err := s.Bus.LastSeq(ctx, contracts.StreamLater, subject)
		if err != nil || there > 0 {
			return false, err
		}
	}
	return true, retry.Plan(ctx, s.Bus, failed)
}
