package mirror

import (
	"context"
	"sync"

	"github.com/go-json-experiment/json"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// heard is one message about a running job, a piece of log or progress, or the
// error that the reading ended with.
type heard struct {
	err      error
	seq      uint64 // of the stream
	chunk    *contracts.LogChunk
	attempt  int // of progress
	progress *contracts.Progress
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
			h.attempt, h.progress = decodeProgress(msg.Data())
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

func decodeProgress(data []byte) (int, *contracts.Progress) {
	note, progress := new(contracts.Note), new(contracts.Progress)
	if json.Unmarshal(data, note) != nil || note.Type != contracts.NoteProgress || json.Unmarshal(note.Data, progress) != nil {
		return 0, nil
	}
	return note.Attempt, progress
}
