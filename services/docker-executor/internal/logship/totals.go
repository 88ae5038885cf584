package logship

import (
	"time"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

const (
	// purgeStep is how much the tail goes over its limit before its oldest part
	// is dropped, in bytes.
	purgeStep = 1 << 20
	// blocks is how many parts the tail is counted in, about.
	blocks = 64
)

// totals is what a log's pieces up to one of them come to. They follow from the
// pieces' sizes and times alone, so whoever adds up the same pieces has the same
// head and the same tail.
type totals struct {
	Half int64  `json:"half"` // bytes for the head, and for the tail
	Seq  uint64 `json:"seq"`  // of the last piece
	Out  place  `json:"out"`
	Err  place  `json:"err"`
	// Spools has how many bytes of each spool are shipped.
	Spools [len(spooled)]int64 `json:"spools,omitzero"`

	Head int64 `json:"head"` // bytes in the head
	Full bool  `json:"full"` // the head is complete, also where a smaller piece would fit
	// Tail is what is kept behind the head, in blocks from the oldest on.
	Tail []block `json:"tail,omitempty"`
	Kept int64   `json:"kept"` // bytes in it
	Back bool    `json:"back,omitempty"`
}

// place is how far one of the engine's streams is shipped.
type place struct {
	Bytes int64     `json:"bytes"` // all of them
	Time  time.Time `json:"time,omitzero"`
	At    int64     `json:"at"` // bytes of the records with exactly that time
	// Waiting is the time of the first record, if it was read and none of it is
	// shipped.
	Waiting time.Time `json:"waiting,omitzero"`
}

type block struct {
	Pieces uint64 `json:"pieces"`
	Bytes  int64  `json:"bytes"`
}

func newTotals(half int64) totals { return totals{Half: half} }

// place returns how far one of the engine's streams is shipped.
func (t *totals) place(s Source) *place {
	if s == EngineStderr {
		return &t.Err
	}
	return &t.Out
}

// bytes returns how many there are, of all sources.
func (t *totals) bytes() int64 {
	n := t.Out.Bytes + t.Err.Bytes
	for _, spooled := range t.Spools {
		n += spooled
	}
	return n
}

// isHead reports whether a piece of this size would be part of the head.
func (t *totals) isHead(size int) bool { return !t.Full && t.Head+int64(size) <= t.Half }

// add counts a piece. drop says that the tail grew so long that all but its
// last keep pieces are to be dropped.
func (t *totals) add(e entry) (keep uint64, drop bool) {
	t.Seq = e.Seq
	if e.Source.isEngine() {
		p := t.place(e.Source)
		p.Bytes += int64(e.Bytes)
		p.Time, p.At, p.Waiting = e.Time, e.At, time.Time{}
		if o := t.place(other(e.Source)); o.Bytes == 0 {
			o.Waiting = e.Waiting
		}
	} else {
		t.Spools[e.Source.spool()] += int64(e.Bytes)
	}
	t.Back = t.Back || e.Back
	if t.isHead(e.Bytes) {
		t.Head += int64(e.Bytes)
		return 0, false
	}
	t.Full = true
	return t.addTail(int64(e.Bytes))
}

func (t *totals) addTail(size int64) (keep uint64, drop bool) {
	if n := len(t.Tail); n == 0 || t.Tail[n-1].Bytes >= t.Half/blocks {
		t.Tail = append(t.Tail, block{})
	}
	last := &t.Tail[len(t.Tail)-1]
	last.Pieces++
	last.Bytes += size
	t.Kept += size
	if t.Kept <= t.Half+purgeStep {
		return 0, false
	}
	old := 0
	for t.Kept-t.Tail[old].Bytes >= t.Half {
		t.Kept -= t.Tail[old].Bytes
		old++
	}
	t.Tail = append([]block(nil), t.Tail[old:]...)
	for _, b := range t.Tail {
		keep += b.Pieces
	}
	return keep, old > 0
}

// position is where the engine's log is to be read from, and skip how many
// bytes of each stream are shipped already of what comes from there.
func (t *totals) position() (at engine.Position, skip [2]int64) {
	if t.Back {
		return engine.Position{}, [2]int64{t.Out.Bytes, t.Err.Bytes}
	}
	return engine.Position{Stdout: t.Out.mark(), Stderr: t.Err.mark()}, [2]int64{t.Out.At, t.Err.At}
}

func (p place) mark() engine.Mark {
	if p.Bytes == 0 {
		return engine.Mark{Time: p.Waiting}
	}
	return engine.Mark{Time: p.Time}
}

// other returns the engine's other stream.
func other(s Source) Source {
	if s == EngineStdout {
		return EngineStderr
	}
	return EngineStdout
}
