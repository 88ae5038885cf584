package service

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// noteEvery is the least time between two notes of one step. The last one is always sent.
const noteEvery = 500 * time.Millisecond

// notes tells of transfers. Their numbers grow with the clock, so that they go
// on growing in the next process.
type notes struct {
	bus *bus.Bus

	mu   sync.Mutex
	last uint64
}

func newNotes(b *bus.Bus) *notes { return &notes{bus: b} }

func (n *notes) next() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.last = max(n.last+1, uint64(time.Now().UnixMicro()))
	return n.last
}

// send publishes one note. Notes are hints: a lost one costs nothing but time.
func (n *notes) send(ctx context.Context, step *contracts.Step, data contracts.TransferNote) {
	note, err := contracts.NewNote(contracts.NoteTransfer, step.Attempt, n.next(), data)
	if err == nil {
		err = n.bus.Hint(step.Job, note)
	}
	if err != nil {
		zerolog.Ctx(ctx).Debug().Err(err).Msg("note not sent")
	}
}

// meter is the progress of one step. It is used by one goroutine at a time.
type meter struct {
	send func(contracts.TransferNote)
	now  func() time.Time
	sent time.Time
	note contracts.TransferNote
}

func (n *notes) meter(ctx context.Context, step *contracts.Step) *meter {
	return &meter{
		send: func(note contracts.TransferNote) { n.send(ctx, step, note) },
		now:  time.Now,
		note: contracts.TransferNote{ID: step.Step, Direction: step.Kind},
	}
}

// progress is a [stage.Progress].
func (m *meter) progress(what string, bytes, total int64) {
	m.note.What, m.note.Bytes, m.note.Total = what, bytes, total
	if now := m.now(); now.Sub(m.sent) >= noteEvery {
		m.sent = now
		m.send(m.note)
	}
}

// ready says that the step has begun, at once.
func (m *meter) ready(what string, total int64) {
	m.sent = time.Time{}
	m.progress(what, 0, total)
}

// done says that the step's result is there.
func (m *meter) done(result *contracts.StepResult) {
	m.note.Done, m.note.Error = true, result.Message
	if result.Outcome == contracts.StepDone {
		m.note.Bytes, m.note.Total = result.Bytes, result.Bytes
	}
	m.send(m.note)
}
