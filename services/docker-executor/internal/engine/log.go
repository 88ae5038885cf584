package engine

import "time"

// Stream is one of a container's two outputs.
type Stream int

// The two outputs. Each is a bit of Streams.
const (
	Stdout Stream = 1
	Stderr Stream = 2
)

// String returns the stream's name on the wire, "stdout" or "stderr".
func (s Stream) String() string {
	if s == Stderr {
		return "stderr"
	}
	return "stdout"
}

// Streams are the outputs that somebody reads.
type Streams uint8

// The sets of outputs.
const (
	StdoutOnly = Streams(Stdout)
	StderrOnly = Streams(Stderr)
	Both       = StdoutOnly | StderrOnly
)

// Has reports whether s is among the streams.
func (ss Streams) Has(s Stream) bool { return ss&Streams(s) != 0 }

// Frame is one record of a container's log: a line, a part of a long line, or
// what was left without a newline at the end. Its bytes are exactly the
// container's, so joining the frames of a stream gives back what was written.
type Frame struct {
	Stream Stream
	Time   time.Time // when the engine read it
	Data   []byte    // valid until emit returns
}

// Position is a place in a container's log that survives the process that was
// reading. The zero value is the beginning.
type Position struct {
	Stdout Mark `json:"stdout"`
	Stderr Mark `json:"stderr"`
}

// Mark is the place in one stream: the time of the last record that was taken,
// and how many records with exactly that time were. The parts of a long line
// share one time, so a time alone would not do.
type Mark struct {
	Time    time.Time `json:"time,omitzero"`
	Records int       `json:"records,omitempty"`
}

// Mark returns the place in one stream.
func (p Position) Mark(s Stream) Mark {
	if s == Stderr {
		return p.Stderr
	}
	return p.Stdout
}

// Advance moves the position behind a frame.
func (p *Position) Advance(f Frame) {
	m := &p.Stdout
	if f.Stream == Stderr {
		m = &p.Stderr
	}
	if !m.Time.Equal(f.Time) {
		*m = Mark{Time: f.Time}
	}
	m.Records++
}

// Resume tells, for the records of a log that is read again, which of them lie
// behind a position. The records have to come in the log's order and must not
// begin in the middle of those that a mark counts.
type Resume struct {
	from           Position
	stdout, stderr int     // records with the mark's time seen so far
	passed         [2]bool // a stream's first new record was seen: all after it are new
}

// NewResume returns a Resume that goes on behind from.
func NewResume(from Position) *Resume { return &Resume{from: from} }

// New reports whether the frame lies behind the position.
func (r *Resume) New(f Frame) bool {
	seen, passed := &r.stdout, &r.passed[0]
	if f.Stream == Stderr {
		seen, passed = &r.stderr, &r.passed[1]
	}
	if *passed {
		return true
	}
	m := r.from.Mark(f.Stream)
	if f.Time.Before(m.Time) {
		return false
	}
	if f.Time.Equal(m.Time) && *seen < m.Records {
		*seen++
		return false
	}
	*passed = true
	return true
}
