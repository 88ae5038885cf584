package contracts

// LogPlaces finds where in a job's log its pieces are, given each once and in
// order. The log is that of all attempts, one behind the other, and a place in
// it is a number of bytes; bytes that were dropped since count as well.
type LogPlaces struct {
	attempt int
	start   int64 // where the attempt's log begins
	end     int64 // behind the last piece
}

// Place returns where a piece begins.
func (p *LogPlaces) Place(chunk *LogChunk) int64 {
	if chunk.Attempt != p.attempt {
		p.attempt, p.start = chunk.Attempt, p.end
	}
	place := max(p.end, p.start+chunk.Offset)
	p.end = place + int64(len(chunk.Bytes()))
	return place
}

// LogPiece is a piece of a job's log in its place.
type LogPiece struct {
	// Place is how many bytes of the job's log come before the piece, those of
	// earlier attempts and those that were dropped since too.
	Place int64 `json:"place"`
	LogChunk
}

// From returns the piece from a place in the job's log on, or false where
// nothing of it is there.
func (p LogPiece) From(place int64) (LogPiece, bool) {
	skip := place - p.Place
	data := p.Bytes()
	switch {
	case skip <= 0:
		return p, true
	case skip >= int64(len(data)):
		return p, false
	}
	p.SetBytes(data[skip:])
	p.Place, p.Offset = place, p.Offset+skip
	return p, true
}

// LogRequest asks, on [JobsLogSubject], for a part of a job's log.
type LogRequest struct {
	Job JobID `json:"job"`
	// From is the place in the job's log where the part begins.
	From int64 `json:"from,omitzero"`
	// Limit is about how many bytes are wanted; [DefaultLogPage] if 0, and at most
	// [MaxLogPage].
	Limit int `json:"limit,omitzero"`
}

// LogPage answers a [LogRequest].
type LogPage struct {
	Pieces []LogPiece `json:"pieces"`
	// Next is the place behind the last piece, to ask from for what follows.
	Next int64 `json:"next"`
	// Complete says that the job has ended and no log follows.
	Complete bool `json:"complete,omitzero"`
}

// Sizes of a [LogPage], in bytes of log.
const (
	DefaultLogPage = 128 << 10
	MaxLogPage     = 512 << 10
)
