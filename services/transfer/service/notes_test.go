package service

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gantry-worker/gantry/contracts"
)

// metered is the progress of a step, and what was told of it.
type metered struct {
	*meter
	bytes int64
	notes []contracts.TransferNote
}

// meterOf returns one whose clock is that of its bubble.
func meterOf() *metered {
	m := &metered{}
	m.meter = &meter{now: time.Now, send: func(note contracts.TransferNote) { m.notes = append(m.notes, note) }}
	return m
}

// move moves pieces of a megabyte, one each ten milliseconds.
func (m *metered) move(pieces int) {
	for range pieces {
		time.Sleep(10 * time.Millisecond)
		m.bytes += 1e6
		m.progress("big.tif", m.bytes, 2e9)
	}
}

// all are the notes that were sent until now.
func (m *metered) all() []contracts.TransferNote {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.notes)
}

func (m *metered) last() contracts.TransferNote {
	all := m.all()
	return all[len(all)-1]
}

func TestNotesTellTheRateOfWhatMoves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := meterOf()
		m.found(1e9)
		m.bytes = 1e9
		m.progress("big.tif", m.bytes, 2e9)
		m.move(1000)
		if n := m.last(); n.Rate < 99e6 || n.Rate > 101e6 || n.What != "big.tif" || n.Total != 2e9 {
			t.Errorf("told %+v", n)
		}
		for _, n := range m.all() {
			if n.Rate > 101e6 {
				t.Errorf("what was there already is in the rate: %+v", n)
			}
		}
		if len(m.all()) > 21 {
			t.Errorf("%d notes in ten seconds", len(m.all()))
		}
		m.done(&contracts.StepResult{Outcome: contracts.StepDone, Bytes: m.bytes})
		if n := m.last(); !n.Done || n.Bytes != 2e9 || n.Total != 2e9 {
			t.Errorf("the last is %+v", n)
		}
		before := len(m.all())
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(m.all()) != before {
			t.Errorf("told after its end: %+v", m.all()[before:])
		}
	})
}

func TestNotesTellWhenNothingMovesAnyMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := meterOf()
		m.progress("big.tif", 0, 2e9)
		m.move(220)
		before := len(m.all())
		if m.last().Bytes == m.bytes {
			t.Fatal("the note of the last bytes is not held back, this shows nothing")
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := m.last(); n.Rate != 0 || n.Bytes != m.bytes || len(m.all()) > before+2 {
			t.Errorf("told %+v", m.all()[before:])
		}
		m.move(100)
		if n := m.last(); n.Rate < 80e6 {
			t.Errorf("it moves again, told %+v", n)
		}
	})
}

func TestNotesEndWithTheirStep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := meterOf()
		m.progress("big.tif", 0, 2e9)
		m.move(220)
		before := len(m.all())
		m.end()
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(m.all()) != before {
			t.Errorf("told %+v", m.all()[before:])
		}
	})
}

// A stream's step is told of at once, and its upload begins at nothing again.
func TestNotesOfAStreamAndOfItsUpload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := meterOf()
		m.ready("out", 0)
		m.move(100)
		m.ready("out", 1e8)
		if n := m.last(); n.Bytes != 0 || n.Total != 1e8 || n.Rate != 0 {
			t.Errorf("the upload begins with %+v", n)
		}
		m.bytes = 0
		m.move(60)
		if n := m.last(); n.Rate < 99e6 || n.Rate > 101e6 {
			t.Errorf("the upload is told of as %+v", n)
		}
		m.done(&contracts.StepResult{Outcome: contracts.StepFailure, Message: "no"})
	})
}
