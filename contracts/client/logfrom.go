package client

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
)

// LogFrom yields a job's log as [Client.Log] does, each piece with its place, and
// only what is at the given place or behind it. Without follow it reads little
// of what comes before.
func (c *Client) LogFrom(ctx context.Context, job contracts.JobID, from int64, follow bool) iter.Seq2[contracts.LogPiece, error] {
	return func(yield func(contracts.LogPiece, error) bool) {
		if follow || from <= 0 {
			c.logFromBeginning(ctx, job, from, follow, yield)
			return
		}
		begin, err := c.findLog(ctx, job, from)
		if err == nil {
			from, err = c.logFromPlace(ctx, job, begin, from, yield)
		}
		switch {
		case errors.Is(err, errLogOrder):
			c.logFromBeginning(ctx, job, from, follow, yield)
		case err != nil:
			yield(contracts.LogPiece{}, err)
		}
	}
}

func (c *Client) logFromBeginning(ctx context.Context, job contracts.JobID, from int64, follow bool, yield func(contracts.LogPiece, error) bool) {
	var places contracts.LogPlaces
	for chunk, err := range c.Log(ctx, job, follow) {
		if err != nil {
			yield(contracts.LogPiece{}, err)
			return
		}
		piece, some := contracts.LogPiece{Place: places.Place(chunk), LogChunk: *chunk}.From(from)
		if some && !yield(piece, nil) {
			return
		}
	}
}

// errLogOrder says that only who reads a log from its beginning can tell what is
// where in it: its pieces do not say it, or are not in their order.
var errLogOrder = errors.New("the log is to be read from its beginning")

// logBegin is where a log is read from, not from its beginning.
type logBegin struct {
	seq   uint64 // stream sequence
	start int64  // place where the log of the attempt begins that is read there
}

// logFromPlace yields the pieces behind begin. It returns the place up to which
// it has yielded all, with [errLogOrder] where it cannot tell what follows.
func (c *Client) logFromPlace(ctx context.Context, job contracts.JobID, begin logBegin, from int64, yield func(contracts.LogPiece, error) bool) (int64, error) {
	var places contracts.LogPlaces
	var before storedLog
	for stored, err := range c.storedLog(ctx, job, begin.seq) {
		switch {
		case err != nil:
			return from, err
		case before.repeats(stored):
			continue
		case !before.leadsTo(stored):
			return from, errLogOrder
		}
		before = stored
		piece, some := contracts.LogPiece{Place: begin.start + places.Place(stored.LogChunk), LogChunk: *stored.LogChunk}.From(from)
		if !some {
			continue
		}
		if !yield(piece, nil) {
			return from, nil
		}
		from = piece.Place + int64(len(piece.Bytes()))
	}
	return from, nil
}

// storedLog is a piece of log as the stream has it.
type storedLog struct {
	*contracts.LogChunk
	seq     uint64 // stream sequence
	subject string
}

// repeats reports whether next is a piece that was shipped again.
func (s storedLog) repeats(next storedLog) bool {
	return s.LogChunk != nil && next.Attempt == s.Attempt && next.Seq <= s.Seq
}

// leadsTo reports whether next comes right behind, where pieces of the tail may
// have been dropped in between.
func (s storedLog) leadsTo(next storedLog) bool {
	return s.LogChunk == nil || next.Attempt > s.Attempt ||
		next.Attempt == s.Attempt && (next.Seq == s.Seq+1 || next.subject != s.subject)
}

// end returns how many bytes the attempt's log has up to the end of the piece.
func (s storedLog) end() int64 { return s.Offset + int64(len(s.Bytes())) }

// storedLog yields what is there of a job's log, from a stream sequence on. What
// was shipped again comes again.
func (c *Client) storedLog(ctx context.Context, job contracts.JobID, from uint64) iter.Seq2[storedLog, error] {
	return func(yield func(storedLog, error) bool) {
		last, err := c.lastLog(ctx, job)
		if err != nil {
			yield(storedLog{}, err)
			return
		}
		if last.Seq < from {
			return
		}
		var read Position
		for msg, err := range c.Messages(ctx, contracts.StreamLive, from, contracts.LogFilter(job)) {
			if err != nil {
				yield(storedLog{}, err)
				return
			}
			event, err := decodeEvent(msg)
			if err != nil {
				yield(storedLog{}, err)
				return
			}
			meta, err := msg.Metadata()
			if err != nil {
				yield(storedLog{}, err)
				return
			}
			read.Pass(meta)
			if !yield(storedLog{event.Log, meta.Sequence.Stream, msg.Subject()}, nil) || read.reaches(last) {
				return
			}
		}
	}
}

// lastLog returns the position of a job's last log message, before all for none.
func (c *Client) lastLog(ctx context.Context, job contracts.JobID) (Position, error) {
	msg, err := c.lastMessage(ctx, contracts.StreamLive, contracts.LogFilter(job))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return Position{}, nil
	}
	if err != nil {
		return Position{}, fmt.Errorf("read log of %s: %w", job, err)
	}
	return Position{Seq: msg.Sequence, Time: msg.Time}, nil
}

// findLog finds the piece that is at a place of a job's log, or the first one
// behind it, by few of them: each says how much of its attempt's log comes
// before it.
func (c *Client) findLog(ctx context.Context, job contracts.JobID, place int64) (logBegin, error) {
	s := logSearch{c, contracts.LogFilter(job)}
	last, err := s.read(c.lastMessage(ctx, contracts.StreamLive, s.filter))
	if err != nil {
		return logBegin{}, fmt.Errorf("read log of %s: %w", job, err)
	}
	begin, err := s.find(ctx, last, place)
	if err != nil {
		return logBegin{}, fmt.Errorf("read log of %s: %w", job, err)
	}
	return begin, nil
}

// logSearch looks for a piece of a job's log.
type logSearch struct {
	client *Client
	filter string
}

// find goes from one attempt to the next until the place is in its log.
func (s logSearch) find(ctx context.Context, last storedLog, place int64) (logBegin, error) {
	first, err := s.from(ctx, 1)
	start := int64(0)
	for err == nil {
		end, next := last, last
		if first.Attempt != last.Attempt {
			attempt := first.Attempt
			end, next, err = s.border(ctx, first, last, func(piece storedLog) bool { return piece.Attempt > attempt })
			if err == nil && next.Seq > 1 && next.subject == end.subject {
				err = errLogOrder // this is not how an attempt begins
			}
		}
		switch {
		case err != nil:
			return logBegin{}, err
		case place < start+first.end():
			return logBegin{first.seq, start}, nil
		case place < start+end.end():
			_, at, err := s.border(ctx, first, end, func(piece storedLog) bool { return place < start+piece.end() })
			return logBegin{at.seq, start}, err
		case end.seq == last.seq: // there is nothing yet
			return logBegin{last.seq, start}, nil
		}
		first, start = next, start+end.end()
	}
	return logBegin{}, err
}

// border finds where behind low, for which a condition does not hold, it begins
// to hold, as it does for high.
func (s logSearch) border(ctx context.Context, low, high storedLog, holds func(storedLog) bool) (before, at storedLog, err error) {
	if !holds(high) {
		return low, high, errLogOrder
	}
	before, at = low, high
	for from, to := low.seq+1, high.seq; from < to; {
		middle := from + (to-from)/2
		piece, err := s.from(ctx, middle)
		switch {
		case err != nil:
			return before, at, err
		case holds(piece):
			at, to = piece, middle
		default:
			before, from = piece, piece.seq+1
		}
	}
	return before, at, nil
}

// from returns the first piece at or behind a stream sequence.
func (s logSearch) from(ctx context.Context, seq uint64) (storedLog, error) {
	return s.read(s.client.message(ctx, contracts.StreamLive, func(ctx context.Context, stream jetstream.Stream) (*jetstream.RawStreamMsg, error) {
		return stream.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(s.filter))
	}))
}

func (s logSearch) read(msg *jetstream.RawStreamMsg, err error) (storedLog, error) {
	if errors.Is(err, jetstream.ErrMsgNotFound) { // there is no log, or it was removed just now
		return storedLog{}, errLogOrder
	}
	if err != nil {
		return storedLog{}, err
	}
	piece := storedLog{new(contracts.LogChunk), msg.Sequence, msg.Subject}
	if err := json.Unmarshal(msg.Data, piece.LogChunk); err != nil {
		return storedLog{}, err
	}
	if piece.Offset == 0 && piece.Seq > 1 { // it does not say where it is
		return storedLog{}, errLogOrder
	}
	return piece, nil
}
