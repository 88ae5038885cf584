// Package logship brings a job's log into the stream LIVE: in order, complete,
// acknowledged, in pieces of a size that a reader likes.
//
// A log has several sources: the container's two streams, which the engine
// keeps, and [Spools], files in the attempt's folder. Each piece is of one
// source and carries the name of the stream that it belongs to.
//
// Each piece is noted in an index in the attempt's folder before it is
// published. Whoever opens a shipper on that folder goes on where the last one
// was cut off: pieces that are noted and not stored, be it that they never got
// there or that the server lost them, are shipped again as they were, with the
// same number and the same bytes, from the engine's log and the spools; then
// come new ones. So readers that take each number once have every byte once.
//
//	shipper, err := logship.Open(ctx, store, dir, job, attempt, config)
//	go shipper.Run(ctx, lifetime)                  // ships what waits too long
//	engine.Logs(ctx, id, streams, shipper.Position(), shipper.Write)
//	last, err := shipper.Close(lifetime)           // or Leave, to be opened again
//
// After [ErrLost], wherever it comes from, that is done once more.
package logship

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// flushAfter is how long a piece may wait for more.
const flushAfter = 100 * time.Millisecond

// ErrLost is returned when pieces that were acknowledged are not stored any
// more. The shipper is of no more use: one that is opened anew ships them again.
var ErrLost = bus.ErrLogLost

// errClosed is returned by a shipper that was closed or left.
var errClosed = errors.New("the log is closed")

// Store keeps log messages.
type Store interface {
	// PublishLog stores a piece on a subject once, whatever happens in between,
	// behind the one with the stream sequence last, and returns its own. It is
	// ErrLost if the job's log does not end there.
	PublishLog(ctx context.Context, subject, generation string, last uint64, chunk *contracts.LogChunk) (uint64, error)
	// LastLog returns the last piece of a job's log and its stream sequence, nil
	// and 0 if there is none.
	LastLog(ctx context.Context, job contracts.JobID) (*contracts.LogChunk, uint64, error)
	// DropLog removes the pieces on a subject but for the last ones.
	DropLog(ctx context.Context, subject string, keep uint64) error
}

// Config says how a log is kept.
type Config struct {
	// Limit is how many bytes of a log are kept, the first half and the last; what
	// lies between is dropped as the log grows. For a log that was begun with
	// another limit, that one counts.
	Limit  int64
	Labels Labels
	Spools *Spools // may be nil
}

// Shipper takes the frames of one attempt's container, and what its spools have.
// Write and Close are called by one goroutine; pieces that wait are flushed by
// another.
type Shipper struct {
	store      Store
	job        contracts.JobID
	attempt    int
	generation string
	start      engine.Position
	log        *zerolog.Logger
	labels     Labels
	spools     *Spools

	// turn is taken by whoever works on what follows. It is kept while a piece is
	// stored, which may take as long as NATS is away.
	turn    turn
	index   *index
	sum     totals // of what is stored
	live    uint64 // the stream sequence of the last piece
	again   []entry
	skip    [2]int64 // bytes to come that are shipped, by the engine's stream
	buffers [2]buffer
	current Source
	first   time.Time               // when the present piece of the engine's began
	since   [len(spooled)]time.Time // when the present piece of a spool began, zero while there is none
	newest  [2]time.Time            // by stream
	back    bool
	closed  bool
	err     error
	wake    chan struct{}
}

type turn chan struct{}

// take waits for the turn and returns what gives it back.
func (t turn) take() func() {
	t <- struct{}{}
	return func() { <-t }
}

// Open returns a shipper that goes on with the log of an attempt, whose folder
// is dir.
func Open(ctx context.Context, store Store, dir string, job contracts.JobID, attempt int, config Config) (*Shipper, error) {
	return open(ctx, store, dir, job, attempt, config, maxIndex)
}

func open(ctx context.Context, store Store, dir string, job contracts.JobID, attempt int, config Config, maxIndex int64) (*Shipper, error) {
	s := &Shipper{
		store: store, job: job, attempt: attempt, generation: contracts.NewToken(), log: zerolog.Ctx(ctx),
		labels: config.Labels, spools: config.Spools,
		current: EngineStdout, wake: make(chan struct{}, 1), turn: make(turn, 1),
	}
	var (
		noted []entry
		err   error
	)
	s.index, s.sum, noted, err = openIndex(dir, max(config.Limit/2, contracts.MaxLogChunk), maxIndex)
	if err == nil {
		err = s.restore(ctx, noted)
	}
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", job, errors.Join(err, s.Leave()))
	}
	return s, nil
}

// restore finds out how far the log is stored, and what of the noted pieces is
// not.
func (s *Shipper) restore(ctx context.Context, noted []entry) error {
	stored, err := s.stored(ctx)
	if err != nil {
		return err
	}
	if stored < s.sum.Seq {
		s.log.Warn().Uint64("stored", stored).Uint64("noted", s.sum.Seq).Msg("pieces of the log are lost for good: its index does not reach back to them")
	}
	var (
		keep uint64
		drop bool
	)
	for i, e := range noted {
		s.back = s.back || e.Back
		if e.Seq <= stored {
			keep, drop = s.sum.add(e)
			s.again = noted[i+1:]
		}
	}
	if len(noted) > 0 && noted[0].Seq > stored {
		s.again = noted
	}
	if stored > s.sum.Seq {
		s.log.Warn().Uint64("stored", stored).Uint64("noted", s.sum.Seq).Msg("part of the log may be repeated: its index has lost its end")
		s.sum.Seq = stored
		if err := s.index.replace(s.sum, nil); err != nil {
			return err
		}
	}
	s.back = s.back || s.sum.Back
	s.sum.Back = s.back
	s.start, s.skip = s.sum.position()
	if drop { // whoever stored that piece may not have come to it
		return s.store.DropLog(ctx, contracts.LogTailSubject(s.job), keep)
	}
	return nil
}

// stored returns the number of the attempt's last piece that is stored.
func (s *Shipper) stored(ctx context.Context) (uint64, error) {
	last, at, err := s.store.LastLog(ctx, s.job)
	if err != nil {
		return 0, err
	}
	s.live = at
	switch {
	case last == nil || last.Attempt < s.attempt:
		return 0, nil
	case last.Attempt > s.attempt:
		return 0, fmt.Errorf("attempt %d has begun to write it, this is attempt %d", last.Attempt, s.attempt)
	}
	return last.Seq, nil
}

// Position returns where the engine's log is to be read from.
func (s *Shipper) Position() engine.Position { return s.start }

// Write takes a frame. It blocks while the store does, which slows the reading
// of the container's log and nothing else.
func (s *Shipper) Write(ctx context.Context, frame engine.Frame) error {
	defer s.turn.take()()
	if err := s.usable(); err != nil {
		return err
	}
	source := Source(frame.Stream)
	i := source - EngineStdout
	s.back = s.back || frame.Time.Before(s.newest[i])
	s.newest[i] = frame.Time
	skip := min(s.skip[i], int64(len(frame.Data)))
	s.skip[i] -= skip
	data := frame.Data[skip:]
	if len(data) == 0 {
		return nil
	}
	if len(s.again) == 0 && source != s.current {
		s.flush(ctx, s.current, false)
	}
	if len(s.buffers[i].data) == 0 || source != s.current {
		s.first = time.Now()
	}
	s.current = source
	s.buffers[i].add(data, frame.Time.UTC())
	s.shipAgain(ctx)
	for len(s.again) == 0 && len(s.buffers[i].data) >= contracts.MaxLogChunk && s.flush(ctx, source, false) {
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return s.err
}

func (s *Shipper) usable() error {
	if s.err == nil && s.closed {
		return errClosed
	}
	return s.err
}

// Verify compares the end of the stored log with what was acknowledged. It is
// ErrLost if the server has lost pieces, as it may in a crash. It may be called
// after Close too.
func (s *Shipper) Verify(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if s.err != nil {
		return s.err
	}
	_, at, err := s.store.LastLog(ctx, s.job)
	if err != nil {
		return fmt.Errorf("verify log of %s: %w", s.job, err)
	}
	if at != s.live {
		s.err = fmt.Errorf("verify log of %s: %w", s.job, ErrLost)
	}
	return s.err
}

// Close ships what is left and returns the number of the last piece. All of the
// log is stored then, or the error says why not. Nothing may be appended to a
// spool any more.
func (s *Shipper) Close(ctx context.Context) (last uint64, err error) {
	defer s.turn.take()()
	if err := s.usable(); err == nil {
		s.shipAgain(ctx)
		s.giveUpAgain(ctx)
		for _, source := range append([]Source{s.current, other(s.current)}, spooled[:]...) {
			for s.flush(ctx, source, true) {
			}
		}
	}
	return s.sum.Seq, errors.Join(s.err, s.closeIndex())
}

// Leave closes the shipper and ships nothing, for the next one to go on. It may
// be called more than once, and after Close.
func (s *Shipper) Leave() error {
	defer s.turn.take()()
	return s.closeIndex()
}

func (s *Shipper) closeIndex() error {
	s.closed = true
	if s.index == nil {
		return nil
	}
	return s.index.close()
}
