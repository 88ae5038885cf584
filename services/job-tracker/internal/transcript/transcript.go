// Package transcript turns the pieces of a job's log into the text that Girder
// gets, and keeps account of what Girder has.
//
// [Transcript] puts the pieces of all attempts in order and makes them valid
// UTF-8. [Outbox] holds the text that Girder does not have yet, cuts it into
// entries, and leaves out the middle of a log that is too long.
//
// Both start from a cursor, a place in the log that is known to be in Girder.
// The same pieces behind the same cursor give the same text, so that after a
// crash the text that Girder already has is recognized and not sent again.
package transcript

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/gantry-worker/gantry/contracts"
)

// Position is a place in a job's log: behind the piece Seq of an attempt.
type Position struct {
	Attempt int
	Seq     uint64
}

// Place says where a piece of log belongs.
type Place int

// The places.
const (
	Next    Place = iota // right behind what was taken
	Old                  // it was taken before, or its attempt is over
	Ahead                // pieces before it are missing
	Further              // it is of an attempt that follows
)

// Transcript puts a job's log in order.
type Transcript struct {
	at      Position
	bytes   int64                          // of the attempt's log up to there, -1 where that is not known
	carry   map[contracts.LogStream][]byte // the beginning of a character whose rest is to come
	midLine bool
}

// New returns a transcript that goes on behind a position; midLine says whether
// the text before it ends within a line.
func New(at Position, midLine bool) *Transcript {
	t := &Transcript{at: at, midLine: midLine, carry: map[contracts.LogStream][]byte{}}
	if at.Seq > 0 {
		t.bytes = -1
	}
	return t
}

// At returns the position behind what was taken.
func (t *Transcript) At() Position { return t.at }

// Clean reports whether the text so far holds all of what was taken: no stream
// stands within a character.
func (t *Transcript) Clean() bool { return len(t.carry) == 0 }

// Place says where a piece belongs.
func (t *Transcript) Place(chunk *contracts.LogChunk) Place {
	switch {
	case chunk.Attempt > t.at.Attempt:
		return Further
	case chunk.Attempt < t.at.Attempt || chunk.Seq <= t.at.Seq:
		return Old
	case chunk.Seq > t.at.Seq+1:
		return Ahead
	default:
		return Next
	}
}

// Recall looks at a piece that is [Old]: the one that the position is right
// behind says how long the log is up to there.
func (t *Transcript) Recall(chunk *contracts.LogChunk) {
	if (t.at == Position{chunk.Attempt, chunk.Seq}) {
		t.bytes = end(chunk)
	}
}

// end returns how long the attempt's log is with a piece at its end, -1 where
// that is not known.
func end(chunk *contracts.LogChunk) int64 {
	if chunk.Offset == 0 && chunk.Seq > 1 {
		return -1
	}
	return chunk.Offset + int64(len(chunk.Bytes()))
}

// Missing returns how many bytes are missing before a piece that is [Ahead], 0
// where that is not known.
func (t *Transcript) Missing(chunk *contracts.LogChunk) int64 {
	if t.Place(chunk) != Ahead || t.bytes < 0 {
		return 0
	}
	return max(0, chunk.Offset-t.bytes)
}

// Take returns the text that a piece adds. For a piece that is [Ahead] a line
// says what is missing before it.
func (t *Transcript) Take(chunk *contracts.LogChunk) string {
	var text strings.Builder
	if missing := t.Missing(chunk); missing > 0 {
		text.WriteString(t.flush() + t.Line(fmt.Sprintf("[gantry: %d bytes of the log are missing here, behind the first %d]", missing, t.bytes)))
	} else if t.Place(chunk) == Ahead {
		text.WriteString(t.Miss(chunk.Seq - 1))
	}
	t.at, t.bytes = Position{chunk.Attempt, chunk.Seq}, end(chunk)
	data := append(t.carry[chunk.Stream], chunk.Bytes()...)
	delete(t.carry, chunk.Stream)
	valid, rest := toValid(data)
	if len(rest) > 0 {
		t.carry[chunk.Stream] = rest
	}
	text.WriteString(valid)
	return t.wrote(text.String())
}

// Miss passes over the pieces up to seq, which are lost, and returns a line that
// says so.
func (t *Transcript) Miss(seq uint64) string {
	missing := seq - t.at.Seq
	t.at.Seq, t.bytes = seq, -1
	return t.flush() + t.Line(fmt.Sprintf("[gantry: the log has a gap here, %d pieces of it are lost]", missing))
}

// EndAttempt goes on to the next attempt and returns what ends this one: a line
// for people, none if empty.
func (t *Transcript) EndAttempt(line string) string {
	text := t.flush()
	if line != "" {
		text += t.Line(line)
	}
	t.at, t.bytes = Position{Attempt: t.at.Attempt + 1}, 0
	return text
}

// Line returns a text as a line of its own.
func (t *Transcript) Line(line string) string {
	line = strings.ToValidUTF8(strings.TrimRight(line, "\n"), string(utf8.RuneError)) + "\n"
	if t.midLine {
		line = "\n" + line
	}
	return t.wrote(line)
}

// End returns what ends the text for good.
func (t *Transcript) End() string { return t.flush() }

// flush ends the characters whose rest will not come.
func (t *Transcript) flush() string {
	var text strings.Builder
	for range slices.Sorted(maps.Keys(t.carry)) {
		text.WriteRune(utf8.RuneError)
	}
	clear(t.carry)
	return t.wrote(text.String())
}

func (t *Transcript) wrote(text string) string {
	if text != "" {
		t.midLine = !strings.HasSuffix(text, "\n")
	}
	return text
}

// toValid makes bytes valid UTF-8. The beginning of a character at their end is
// returned apart.
func toValid(data []byte) (text string, rest []byte) {
	end := len(data)
	for i := 1; i <= min(utf8.UTFMax-1, len(data)); i++ {
		if at := len(data) - i; utf8.RuneStart(data[at]) {
			if !utf8.FullRune(data[at:]) {
				end = at
			}
			break
		}
	}
	if utf8.Valid(data[:end]) {
		return string(data[:end]), slices.Clone(data[end:])
	}
	var out strings.Builder
	for i := 0; i < end; {
		r, size := utf8.DecodeRune(data[i:end])
		out.WriteRune(r) // one mark for each byte that belongs to no character
		i += size
	}
	return out.String(), slices.Clone(data[end:])
}
