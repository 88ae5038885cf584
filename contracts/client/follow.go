package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
)

// Event is one thing that happened to a job: exactly one field is set.
type Event struct {
	Entry *contracts.Entry
	Log   *contracts.LogChunk
	Note  *contracts.Note
}

// ErrNoJob is returned for a job that has no life: never submitted, or purged.
var ErrNoJob = errors.New("no such job")

// Life returns the entries of a job's life, oldest first, or [ErrNoJob].
func (c *Client) Life(ctx context.Context, job contracts.JobID) ([]*contracts.Entry, error) {
	subject := contracts.LifeSubject(job)
	last, err := c.lastMessage(ctx, contracts.StreamJobs, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, fmt.Errorf("%w: %s", ErrNoJob, job)
	}
	if err != nil {
		return nil, fmt.Errorf("read life of %s: %w", job, err)
	}
	var life []*contracts.Entry
	for seq := uint64(1); seq <= last.Sequence; {
		msg, err := c.message(ctx, contracts.StreamJobs, func(ctx context.Context, stream jetstream.Stream) (*jetstream.RawStreamMsg, error) {
			return stream.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(subject))
		})
		if err != nil {
			return nil, fmt.Errorf("read life of %s: %w", job, err)
		}
		entry, err := contracts.DecodeEntry(msg.Data)
		if err != nil && !errors.Is(err, contracts.ErrUnknownEntry) {
			return nil, fmt.Errorf("read life of %s: %w", job, err)
		}
		life = append(life, entry)
		seq = msg.Sequence + 1
	}
	return life, nil
}

// Wait returns the terminal entry of a job, waiting for it if need be, also
// for a job that is yet to be submitted.
func (c *Client) Wait(ctx context.Context, job contracts.JobID) (*contracts.Entry, error) {
	for msg, err := range c.Messages(ctx, contracts.StreamJobs, 1, contracts.LifeSubject(job)) {
		if err != nil {
			return nil, fmt.Errorf("wait for %s: %w", job, err)
		}
		entry, err := contracts.DecodeEntry(msg.Data())
		if err != nil && !errors.Is(err, contracts.ErrUnknownEntry) {
			return nil, fmt.Errorf("wait for %s: %w", job, err)
		}
		if entry.Terminal() {
			return entry, nil
		}
	}
	return nil, context.Cause(ctx)
}

// Follow yields everything that happened and happens to a job, from its first
// entry to its terminal one, and after that what is left of its log. Order is
// kept within lives, logs and notes, not between them. The iteration ends
// after an error, which is yielded.
func (c *Client) Follow(ctx context.Context, job contracts.JobID) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		var readers sync.WaitGroup
		defer readers.Wait()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		type message struct {
			jetstream.Msg
			err error
		}
		merged := make(chan message)
		read := func(stream string, subjects ...string) {
			for msg, err := range c.Messages(ctx, stream, 1, subjects...) {
				select {
				case merged <- message{msg, err}:
				case <-ctx.Done():
					return
				}
			}
		}
		readers.Go(func() { read(contracts.StreamJobs, contracts.LifeSubject(job)) })
		readers.Go(func() { read(contracts.StreamLive, contracts.LogFilter(job), contracts.NotesSubject(job)) })

		var (
			seen    = newLogOrder()
			ended   bool
			lastLog Position // up to which the log is to be read
			readLog Position
		)
		for {
			var msg message
			select {
			case msg = <-merged:
			case <-ctx.Done():
				yield(Event{}, context.Cause(ctx))
				return
			}
			if msg.err != nil {
				yield(Event{}, msg.err)
				return
			}
			event, err := decodeEvent(msg.Msg)
			if err != nil {
				yield(Event{}, err)
				return
			}
			if event.Entry == nil {
				if meta, err := msg.Metadata(); err == nil {
					readLog.Pass(meta)
				}
			}
			if event.Log == nil || seen.isNew(event.Log) {
				if !yield(event, nil) {
					return
				}
			}
			if event.Entry != nil && event.Entry.Terminal() {
				ended = true
				if lastLog, err = c.lastLog(ctx, job); err != nil {
					yield(Event{}, err)
					return
				}
			}
			if ended && readLog.reaches(lastLog) {
				return
			}
		}
	}
}

// Log yields a job's log in order, without repeats. With follow it goes on
// until the job has ended and its log is complete; without, it ends at what is
// there.
func (c *Client) Log(ctx context.Context, job contracts.JobID, follow bool) iter.Seq2[*contracts.LogChunk, error] {
	return func(yield func(*contracts.LogChunk, error) bool) {
		if follow {
			for event, err := range c.Follow(ctx, job) {
				if err != nil {
					yield(nil, err)
					return
				}
				if event.Log != nil && !yield(event.Log, nil) {
					return
				}
			}
			return
		}
		seen := newLogOrder()
		for stored, err := range c.storedLog(ctx, job, 1) {
			if err != nil {
				yield(nil, err)
				return
			}
			if seen.isNew(stored.LogChunk) && !yield(stored.LogChunk, nil) {
				return
			}
		}
	}
}

// retryPause is the pause before a broken read of a stream goes on.
const retryPause = 200 * time.Millisecond

// openTimeout bounds the opening of a stream: an answer that was lost with its
// connection never comes, however long the caller's context lasts.
const openTimeout = 5 * time.Second

// Messages yields the messages of a stream on the given subjects, from the
// stream sequence from, until the context ends. It survives reconnects and restarts of the
// server without gap or repeat; only a missing stream is an error.
func (c *Client) Messages(ctx context.Context, stream string, from uint64, subjects ...string) iter.Seq2[jetstream.Msg, error] {
	return c.MessagesBehind(ctx, stream, Position{Seq: max(from, 1) - 1}, subjects...)
}

// MessagesBehind is [Client.Messages] for what comes behind a position.
func (c *Client) MessagesBehind(ctx context.Context, stream string, at Position, subjects ...string) iter.Seq2[jetstream.Msg, error] {
	return func(yield func(jetstream.Msg, error) bool) {
		at := at // where an iteration begins is the same for each
		for ctx.Err() == nil {
			start := time.Now()
			err := c.read(ctx, stream, subjects, &at, func(msg jetstream.Msg) bool { return yield(msg, nil) })
			refused := c.Refused(start, "$JS.API.CONSUMER.CREATE."+stream, "$JS.API.CONSUMER.MSG.NEXT."+stream)
			switch {
			case err == nil || ctx.Err() != nil:
				return
			case refused != nil:
				yield(nil, fmt.Errorf("read %s: %w", stream, refused))
				return
			case errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, nats.ErrConnectionClosed):
				yield(nil, fmt.Errorf("read %s: %w", stream, err))
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(retryPause):
			}
		}
	}
}

// Position is how far a stream was read. A server that crashed, or was given an
// older copy of its data, may have lost the last messages of a stream, and then
// uses their sequences again: only with their time are the new ones known.
type Position struct {
	Seq  uint64    // of the last message
	Time time.Time // the latest of all; zero before the first message
}

// PositionOf returns the position of a message.
func PositionOf(meta *jetstream.MsgMetadata) Position {
	return Position{Seq: meta.Sequence.Stream, Time: meta.Timestamp}
}

// Behind says for [Client.OpenReader] what to read behind a position.
func (p Position) Behind(subjects ...string) jetstream.ConsumerConfig {
	config := jetstream.ConsumerConfig{FilterSubjects: subjects, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: p.Seq + 1}
	if !p.Time.IsZero() {
		config.OptStartTime = &p.Time
	}
	return config
}

// Pass moves the position on to a message, or reports false for one that was
// read before.
func (p *Position) Pass(meta *jetstream.MsgMetadata) bool {
	if meta.Sequence.Stream <= p.Seq && !meta.Timestamp.After(p.Time) {
		return false
	}
	p.Seq = meta.Sequence.Stream
	if meta.Timestamp.After(p.Time) { // the clocks of a cluster's members differ
		p.Time = meta.Timestamp
	}
	return true
}

// reaches reports whether all was read up to the message at last. A sequence alone
// does not say it: it may be that of a message that was read and lost.
func (p Position) reaches(last Position) bool {
	return p.Seq >= last.Seq && !last.Time.After(p.Time)
}

// read passes messages on until each says to stop, which returns nil, or
// something breaks.
func (c *Client) read(ctx context.Context, stream string, subjects []string, at *Position, each func(jetstream.Msg) bool) error {
	permitted, stop := c.UntilRefused(ctx, "$JS.API.CONSUMER.CREATE."+stream)
	defer stop()
	reader, err := c.OpenReader(permitted, stream, at.Behind(subjects...))
	if err != nil {
		return err
	}
	defer reader.Close()
	for {
		msg, meta, err := reader.Next(ctx)
		if err != nil {
			return err
		}
		if at.Pass(meta) && !each(msg) {
			return nil
		}
	}
}

func decodeEvent(msg jetstream.Msg) (Event, error) {
	var event Event
	var err error
	switch subject := msg.Subject(); {
	case subject == contracts.NotesSubject(contracts.JobOfSubject(subject)):
		event.Note = new(contracts.Note)
		err = json.Unmarshal(msg.Data(), event.Note)
	case subject == contracts.LifeSubject(contracts.JobOfSubject(subject)):
		event.Entry, err = contracts.DecodeEntry(msg.Data())
		if errors.Is(err, contracts.ErrUnknownEntry) {
			err = nil
		}
	default:
		event.Log = new(contracts.LogChunk)
		err = json.Unmarshal(msg.Data(), event.Log)
	}
	if err != nil {
		return Event{}, fmt.Errorf("decode message on %s: %w", msg.Subject(), err)
	}
	return event, nil
}

// logOrder recognizes log messages that were read before: a server that
// crashed may have lost the last ones, and then the owner ships them again.
type logOrder struct {
	last map[int]uint64 // by attempt
}

func newLogOrder() *logOrder { return &logOrder{last: map[int]uint64{}} }

func (o *logOrder) isNew(chunk *contracts.LogChunk) bool {
	if chunk.Seq <= o.last[chunk.Attempt] {
		return false
	}
	o.last[chunk.Attempt] = chunk.Seq
	return true
}
