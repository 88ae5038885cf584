package mirror

import (
	"context"
	"sync"

	"github.com/go-json-experiment/json"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// heard is one message about a running job, a piece of log, its progress or its
// phase, or the error that the reading ended with.
type heard struct {
	err      error
	seq      uint64 // of the stream
	chunk    *contracts.LogChunk
	attempt  int // of progress or phase
	progress *contracts.Progress
	phase    *contracts.Phase
}

// live reads a job's log and notes from the beginning, and follows them.
type live struct {
	heard chan heard
	stop  func() // ends the reading and waits for that
}

func listen(ctx context.Context, b *bus.Bus, job contracts.JobID) *live {
	ctx, cancel := context.WithCancel(ctx)
	l := &live{heard: make(chan heard)}
	var reading sync.WaitGroup
	reading.Go(func() { l.read(ctx, b, job) })
	l.stop = func() {
		cancel()
		reading.Wait()
	}
	return l
}

func (l *live) read(ctx context.Context, b *bus.Bus, job contracts.JobID) {
	subjects := []string{contracts.LogFilter(job), contracts.NotesSubject(job)}
	for msg, err := range b.Messages(ctx, contracts.StreamLive, 1, subjects...) {
		if err != nil {
			l.pass(ctx, heard{err: err})
			return
		}
		meta, err := msg.Metadata()
		if err != nil {
			continue
		}
		h := heard{seq: meta.Sequence.Stream}
		if msg.Subject() == contracts.NotesSubject(job) {
			h.attempt, h.progress, h.phase = decodeNote(msg.Data())
		} else if chunk := new(contracts.LogChunk); json.Unmarshal(msg.Data(), chunk) == nil {
			h.chunk = chunk
		}
		l.pass(ctx, h)
	}
}

func (l *live) pass(ctx context.Context, h heard) {
	select {
	case l.heard <- h:
	case <-ctx.Done():
	}
}

// decodeNote returns what a note says of an attempt, nothing for one of another kind.
func decodeNote(data []byte) (int, *contracts.Progress, *contracts.Phase) {
	note := new(contracts.Note)
	if json.Unmarshal(data, note) != nil {
		return 0, nil, nil
	}
	switch note.Type {
	case contracts.NoteProgress:
		if progress := new(contracts.Progress); json.Unmarshal(note.Data, progress) == nil {
			return note.Attempt, progress, nil
		}
	case contracts.NotePhase:
		if phase := new(contracts.Phase); json.Unmarshal(note.Data, phase) == nil {
			return note.Attempt, nil, phase
		}
	case contracts.NoteTransfer: // the executor sums them up
	}
	return 0, nil, nil
}
