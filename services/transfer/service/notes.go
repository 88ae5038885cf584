package service

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/internal/pace"
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

// meter is the progress of one step, told in notes. Where nothing moves any more
// it says so by itself, until the step is done or end is called.
type meter struct {
	send func(contracts.TransferNote)
	now  func() time.Time

	mu    sync.Mutex
	sent  time.Time
	told  contracts.TransferNote // what was sent then
	note  contracts.TransferNote
	pace  pace.Pace
	quiet *time.Timer // runs out when there is something to be told
	ended bool
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
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	m.pace.At(now, bytes)
	if bytes > m.note.Bytes {
		m.note.Waiting = ""
	}
	m.note.What, m.note.Bytes, m.note.Total = what, bytes, total
	if now.Sub(m.sent) >= noteEvery {
		m.tell(now)
	}
}

// found says that so many of the bytes that are told of next were there already.
func (m *meter) found(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pace.Found(bytes)
}

// waits says why nothing moves from now on. It is told at once, or as soon as
// another note may follow the last; when something moves it is no longer true.
func (m *meter) waits(why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended || m.note.Done || m.note.Waiting == why {
		return
	}
	m.note.Waiting = why
	now := m.now()
	if left := noteEvery - now.Sub(m.sent); left > 0 {
		m.lookAfter(left)
		return
	}
	m.tell(now)
}

// goesOn says that the step waits for its turn no more.
func (m *meter) goesOn() {
	m.mu.Lock()
	waited := m.note.Waiting == itsTurn
	m.mu.Unlock()
	if waited {
		m.waits("")
	}
}

// tell sends the note as it is, and looks again when nothing has moved since.
func (m *meter) tell(now time.Time) {
	m.note.Rate = m.pace.Rate(now)
	m.sent, m.told = now, m.note
	m.send(m.note)
	if m.note.Done || m.ended {
		m.stop()
		return
	}
	m.lookAfter(m.pace.Patience())
}

func (m *meter) lookAfter(wait time.Duration) {
	m.stop()
	m.quiet = time.AfterFunc(wait, m.silence)
}

func (m *meter) stop() {
	if m.quiet != nil {
		m.quiet.Stop()
	}
}

// silence tells what came after the last note, and that nothing follows.
func (m *meter) silence() {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	if m.note.Done || m.ended || now.Sub(m.sent) < noteEvery {
		return
	}
	if m.note.Rate > 0 || m.note.Bytes != m.told.Bytes || m.note.Waiting != m.told.Waiting {
		m.tell(now)
	}
}

// end has the meter say nothing more by itself. Nothing is being said when it
// returns.
func (m *meter) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended = true
	m.stop()
}

// taken says that the step is in somebody's hands, who may have to wait. It is
// told at once, and told again to whoever asks for the step again.
func (m *meter) taken() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.ended && !m.note.Done {
		m.tell(m.now())
	}
}

// ready says that the step has begun, at once.
func (m *meter) ready(what string, total int64) {
	m.mu.Lock()
	m.sent = time.Time{}
	m.mu.Unlock()
	m.progress(what, 0, total)
}

// done says that the step's result is there.
func (m *meter) done(result *contracts.StepResult) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.note.Done, m.note.Error, m.note.Waiting = true, result.Message, ""
	if result.Outcome == contracts.StepDone {
		m.note.Bytes, m.note.Total = result.Bytes, result.Bytes
	}
	m.tell(m.now())
}
