// Package notes tells what an attempt is doing: its phase and its progress, as
// notes, at most a few a second and always the last.
package notes

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

const (
	// interval is the time between two notes of one type.
	interval = 200 * time.Millisecond
	// phaseInterval is that of two notes about the same phase.
	phaseInterval = 500 * time.Millisecond
	// silence is how long nothing may be heard of a phase until its rate is 0:
	// whoever moves the bytes may have died.
	silence = 10 * time.Second
)

// Teller publishes the notes of one attempt.
type Teller struct {
	send func(ctx context.Context, kind contracts.NoteType, data any)
	wake chan struct{}

	mu       sync.Mutex
	phase    *contracts.Phase
	progress *contracts.Progress
	told     contracts.Phase // the last one that was published
	toldAt   time.Time
}

// New returns a teller; Run publishes what it is told.
func New(b *bus.Bus, job contracts.JobID, attempt int) *Teller {
	seq := uint64(0)
	return newTeller(func(ctx context.Context, kind contracts.NoteType, data any) {
		seq++
		note, err := contracts.NewNote(kind, attempt, seq, data)
		if err == nil {
			err = b.Publish(ctx, contracts.NotesSubject(job), "", note)
		}
		if err != nil {
			zerolog.Ctx(ctx).Debug().Err(err).Msg("note not published")
		}
	})
}

func newTeller(send func(ctx context.Context, kind contracts.NoteType, data any)) *Teller {
	return &Teller{send: send, wake: make(chan struct{}, 1)}
}

// Phase says what the attempt is busy with.
func (t *Teller) Phase(phase contracts.Phase) {
	t.mu.Lock()
	t.phase = &phase
	t.mu.Unlock()
	t.signal()
}

// Progress says how far the task is.
func (t *Teller) Progress(progress contracts.Progress) {
	t.mu.Lock()
	t.progress = &progress
	t.mu.Unlock()
	t.signal()
}

func (t *Teller) signal() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// Run publishes until ctx ends, and then once more what is left. When it returns
// the last of each type is stored, unless lifetime has ended.
func (t *Teller) Run(ctx, lifetime context.Context) {
	var due <-chan time.Time // when there is something to say without being told
	for {
		select {
		case <-ctx.Done():
			t.publish(lifetime, true)
			return
		case <-t.wake:
		case <-due:
		}
		due = t.publish(lifetime, false)
		select {
		case <-ctx.Done():
		case <-time.After(interval):
		}
	}
}

// publish publishes what is due, or all there is, and returns when it is to be
// called again.
func (t *Teller) publish(ctx context.Context, all bool) (due <-chan time.Time) {
	phase, progress, wait := t.take(time.Now(), all)
	if phase != nil {
		t.send(ctx, contracts.NotePhase, phase)
	}
	if progress != nil {
		t.send(ctx, contracts.NoteProgress, progress)
	}
	if wait == 0 {
		return nil
	}
	return time.After(wait)
}

// take returns what is due, and after which time something else is, 0 for never.
func (t *Teller) take(now time.Time, all bool) (phase *contracts.Phase, progress *contracts.Progress, wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	phase, progress, t.progress = t.phase, t.progress, nil
	since := now.Sub(t.toldAt)
	switch {
	case phase == nil && t.told.Rate > 0 && since >= silence:
		quiet := t.told
		quiet.Rate = 0
		phase = &quiet
	case phase == nil:
	case phase.Phase == t.told.Phase && since < phaseInterval && !all:
		return nil, progress, phaseInterval - since
	case *phase == t.told:
		phase = nil
		t.toldAt = now
	}
	if phase != nil {
		t.told, t.toldAt = *phase, now
	}
	t.phase = nil
	if t.told.Rate > 0 {
		wait = max(silence-now.Sub(t.toldAt), interval)
	}
	return phase, progress, wait
}
