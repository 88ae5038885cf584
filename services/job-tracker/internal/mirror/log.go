package mirror

import (
	"context"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/job-tracker/internal/transcript"
)

// heard is where log and notes arrive, nil while nobody listens.
func (m *mirror) heard() <-chan heard {
	if m.live == nil {
		return nil
	}
	return m.live.heard
}

func (m *mirror) hush() {
	if m.live != nil {
		m.live.stop()
		m.live = nil
	}
}

// listenAgain reads log and notes from the beginning.
func (m *mirror) listenAgain(ctx context.Context) {
	m.hush()
	m.readSeq = 0
	m.live = listen(ctx, m.bus, m.job)
}

// hear takes in a message about the running job.
func (m *mirror) hear(ctx context.Context, h heard) error {
	if h.err != nil {
		return h.err
	}
	m.readSeq = max(m.readSeq, h.seq)
	m.bar.hear(h.attempt, h.progress, h.phase)
	if h.chunk != nil {
		if err := m.takeChunk(ctx, h.chunk); err != nil {
			return err
		}
	}
	if m.flushAt.IsZero() && (m.bar.news() || !m.box.Empty()) {
		m.flushAt = time.Now().Add(updateInterval)
	}
	return nil
}

func (m *mirror) takeChunk(ctx context.Context, chunk *contracts.LogChunk) error {
	if m.text.Place(chunk) == transcript.Further {
		// The life says how the attempts before ended: it is ahead of the log.
		if err := m.catchUp(ctx); err != nil {
			return err
		}
		m.endAttemptsBefore(chunk.Attempt)
	}
	switch m.text.Place(chunk) {
	case transcript.Old:
		m.text.Recall(chunk)
		return nil
	case transcript.Ahead:
		// A server that crashed may have used a sequence twice, and the reader
		// passed it. What is missing in a second reading is lost, or was
		// dropped because the log is too long.
		if m.reread != m.text.At() {
			m.reread = m.text.At()
			m.listenAgain(ctx)
			return nil
		}
	}
	m.box.Miss(m.text.Missing(chunk))
	m.add(m.text.Take(chunk))
	m.endAttempts()
	return nil
}

func (m *mirror) add(text string) { m.box.Add(text, m.text.At(), m.text.Clean()) }

// endAttempts ends those of which the log is complete.
func (m *mirror) endAttempts() {
	for {
		end, over := m.life.ends[m.text.At().Attempt]
		if !over || !end.known || m.text.At().Seq < end.logSeq {
			break
		}
		m.add(m.text.EndAttempt(end.line))
	}
	if m.flushAt.IsZero() && !m.box.Empty() {
		m.flushAt = time.Now().Add(updateInterval)
	}
}

func (m *mirror) endAttemptsBefore(attempt int) {
	for at := m.text.At().Attempt; at < attempt; at++ {
		m.add(m.text.EndAttempt(m.life.ends[at].line))
	}
}

// completeLog takes in the rest of the log of a job that has ended.
func (m *mirror) completeLog(ctx context.Context) error {
	attempt, need := m.life.terminal.Attempt, lastLogSeq(m.life.terminal)
	last, err := m.lastLive(ctx)
	if err != nil {
		return err
	}
	enough := func() bool {
		at := m.text.At()
		return need == 0 || at.Attempt > attempt || at.Attempt == attempt && at.Seq >= need
	}
	if m.live == nil && (last > 0 || !enough()) {
		m.live = listen(ctx, m.bus, m.job)
	}
	silence := time.NewTimer(m.manager.cfg.LogPatience)
	defer silence.Stop()
	again := false
	for m.readSeq < last || !enough() {
		if m.readSeq >= last && !again {
			again = true
			m.listenAgain(ctx)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case h := <-m.heard():
			err = m.hear(ctx, h)
		case <-silence.C:
			// What was to be read may be gone by now.
			if last, err = m.lastLive(ctx); m.readSeq >= last {
				need = 0
			} else {
				m.listenAgain(ctx)
			}
		}
		if err != nil {
			return err
		}
		silence.Reset(m.manager.cfg.LogPatience)
	}
	m.endAttemptsBefore(attempt)
	if need = lastLogSeq(m.life.terminal); !enough() {
		m.add(m.text.Miss(need))
	}
	return nil
}

// lastLive returns the stream sequence of the job's last message in LIVE.
func (m *mirror) lastLive(ctx context.Context) (uint64, error) {
	var last uint64
	for _, subject := range []string{contracts.LogFilter(m.job), contracts.NotesSubject(m.job)} {
		seq, err := m.bus.LastSeq(ctx, contracts.StreamLive, subject)
		if err != nil {
			return 0, err
		}
		last = max(last, seq)
	}
	return last, nil
}
