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

// interval is the time between two notes of one type.
const interval = 200 * time.Millisecond

// Teller publishes the notes of one attempt.
type Teller struct {
	bus     *bus.Bus
	job     contracts.JobID
	attempt int
	wake    chan struct{}

	mu       sync.Mutex
	phase    *contracts.Phase
	progress *contracts.Progress
	seq      uint64
}

// New returns a teller; Run publishes what it is told.
func New(b *bus.Bus, job contracts.JobID, attempt int) *Teller {
	return &Teller{bus: b, job: job, attempt: attempt, wake: make(chan struct{}, 1)}
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
	for {
		select {
		case <-ctx.Done():
			t.publish(lifetime)
			return
		case <-t.wake:
		}
		t.publish(lifetime)
		select {
		case <-ctx.Done():
		case <-time.After(interval):
		}
	}
}

func (t *Teller) publish(ctx context.Context) {
	t.mu.Lock()
	phase, progress := t.phase, t.progress
	t.phase, t.progress = nil, nil
	t.mu.Unlock()
	if phase != nil {
		t.tell(ctx, contracts.NotePhase, phase)
	}
	if progress != nil {
		t.tell(ctx, contracts.NoteProgress, progress)
	}
}

func (t *Teller) tell(ctx context.Context, kind contracts.NoteType, data any) {
	t.seq++
	note, err := contracts.NewNote(kind, t.attempt, t.seq, data)
	if err == nil {
		err = t.bus.Publish(ctx, contracts.NotesSubject(t.job), "", note)
	}
	if err != nil {
		zerolog.Ctx(ctx).Debug().Err(err).Msg("note not published")
	}
}
