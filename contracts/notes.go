package contracts

import (
	"slices"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// NoteType names what a note says.
type NoteType string

// The note types.
const (
	NoteProgress NoteType = "progress"
	NotePhase    NoteType = "phase"
	NoteTransfer NoteType = "transfer"
)

// Note is a hint about a running attempt, on [NotesSubject]. Readers are
// idempotent by attempt and seq; nobody waits on a note alone.
type Note struct {
	Version int      `json:"version"`
	Type    NoteType `json:"type"`
	Attempt int      `json:"attempt"`
	// Seq grows within one source and attempt.
	Seq  uint64         `json:"seq"`
	Time time.Time      `json:"time"`
	Data jsontext.Value `json:"data"`
}

// Progress is what a task says of itself. Absent numbers are not known.
type Progress struct {
	Total   *float64 `json:"total,omitempty"`
	Current *float64 `json:"current,omitempty"`
	Message string   `json:"message,omitempty"`
}

// PhaseName names what an attempt is busy with.
type PhaseName string

// The phases.
const (
	PhasePulling       PhaseName = "pulling"
	PhaseFetchingInput PhaseName = "fetching_input"
	PhaseRunning       PhaseName = "running"
	PhasePushingOutput PhaseName = "pushing_output"
)

// Phase says what an attempt is busy with, and how far it is: Bytes of Of.
type Phase struct {
	Phase PhaseName `json:"phase"`
	What  string    `json:"what,omitempty"`
	Bytes int64     `json:"bytes,omitzero"`
	Of    int64     `json:"of,omitzero"` // 0: not known
	// Rate is how many bytes a second are moved at present; 0: not known, or none.
	Rate int64 `json:"rate,omitzero"`
	// Waiting says in a few words why nothing moves at present: "Girder answers
	// 503 Service Unavailable". Empty while it does.
	Waiting string `json:"waiting,omitempty"`
}

// Left returns how long a phase takes at its present rate, or false where that
// is not known.
func (p *Phase) Left() (time.Duration, bool) {
	if p.Rate <= 0 || p.Of <= 0 || p.Bytes > p.Of {
		return 0, false
	}
	return time.Duration(float64(p.Of-p.Bytes) / float64(p.Rate) * float64(time.Second)), true
}

// TransferNote says how far a step of transfer is, or that its result is there.
type TransferNote struct {
	// ID is the step's name.
	ID        string   `json:"id"`
	Direction StepKind `json:"direction"`
	// What is the name of the file on its way.
	What  string `json:"what,omitempty"`
	Bytes int64  `json:"bytes"`
	Total int64  `json:"total"` // 0: not known; grows while a folder is listed
	// Rate is how many bytes a second are moved at present; 0: not known, or none.
	Rate int64 `json:"rate,omitzero"`
	// Waiting says in a few words why nothing moves at present, as in [Phase].
	Waiting string `json:"waiting,omitempty"`
	Done    bool   `json:"done,omitzero"`
	Error   string `json:"error,omitempty"`
}

// NewNote returns a note of the given type at the present time. Text of a task
// that is not valid UTF-8 is made so.
func NewNote(kind NoteType, attempt int, seq uint64, data any) (*Note, error) {
	body, err := json.Marshal(data, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return nil, err
	}
	return &Note{Version: Version, Type: kind, Attempt: attempt, Seq: seq, Time: time.Now().UTC(), Data: body}, nil
}

// LogStream names where a piece of log came from.
type LogStream string

// The log streams.
const (
	LogStdout LogStream = "stdout"
	LogStderr LogStream = "stderr"
)

// MaxLogChunk is the largest piece of log in one message, in bytes.
const MaxLogChunk = 64 << 10

// LogChunk is a piece of a job's log, on [LogHeadSubject] or [LogTailSubject].
// Readers are idempotent by attempt and seq.
type LogChunk struct {
	Version int   `json:"version"`
	Job     JobID `json:"job"`
	Attempt int   `json:"attempt"`
	// Seq is numbered from 1 in each attempt.
	Seq uint64 `json:"seq"`
	// Offset is how many bytes of the attempt's log come before the piece, those
	// too that were dropped since; 0 in the first piece, and where it is not known.
	Offset int64 `json:"offset,omitzero"`
	// Time is the engine's timestamp of the last frame in the piece.
	Time   time.Time `json:"time"`
	Stream LogStream `json:"stream"`
	// Data is the text where it is valid UTF-8, else DataB64 has the bytes.
	Data    string `json:"data,omitempty"`
	DataB64 []byte `json:"data_b64,omitempty"`
}

// Bytes returns the exact bytes of the piece.
func (c *LogChunk) Bytes() []byte {
	if c.DataB64 != nil {
		return c.DataB64
	}
	return []byte(c.Data)
}

// SetBytes stores the bytes in the field that keeps them exact.
func (c *LogChunk) SetBytes(b []byte) {
	c.Data, c.DataB64 = "", nil
	if utf8.Valid(b) {
		c.Data = string(b)
		return
	}
	c.DataB64 = slices.Clone(b)
}
