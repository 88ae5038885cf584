package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
)

// WatchLives calls handle with the last entry of every job's life, then with
// each further entry as it comes, one at a time, until the context ends. After
// an interruption it goes on behind the last entry that it read: none comes
// twice.
//
// begin is called before the last entries, and caughtUp when those that were there
// have come. Where the server has lost entries, it begins anew: of what was said
// before, nobody knows what still holds.
func (b *Bus) WatchLives(ctx context.Context, begin, caughtUp func(), handle func(*Seen)) error {
	watch := &livesWatch{bus: b, begin: begin, caughtUp: caughtUp, handle: handle}
	watch.anew()
	said := "" // what keeps it is told once, not at each try
	for ctx.Err() == nil {
		start := time.Now()
		err := watch.run(ctx)
		if refused := b.Refused(start, "$JS.API.CONSUMER.CREATE."+contracts.StreamJobs); refused != nil {
			return fmt.Errorf("watch lives: %w", refused)
		}
		if errors.Is(err, client.ErrNotPermitted) {
			return err
		}
		if time.Since(start) > 2*requestTimeout {
			said = "" // it worked meanwhile
		}
		if ctx.Err() == nil && !errors.Is(err, errDoubted) && fmt.Sprint(err) != said {
			said = fmt.Sprint(err)
			zerolog.Ctx(ctx).Warn().Err(err).Msg("watch of lives interrupted, going on")
		}
		pause(ctx, redeliverAfter)
	}
	return context.Cause(ctx)
}

type livesWatch struct {
	bus             *Bus
	begin, caughtUp func()
	handle          func(*Seen)
	known           bool // the lives that were there
	read            client.Position
	stored          time.Time // when the entry was that was read last
	doubted         bool      // that it is still there
	target          uint64    // stream sequence of the last entry at the start
}

// anew forgets what was read.
func (w *livesWatch) anew() {
	w.known, w.read, w.stored = false, client.Position{}, time.Time{}
	w.begin()
}

// errSetBack is the end of a reader whose last entry is not there any more: the
// server lost it, or its life was purged.
var errSetBack = errors.New("entries that were read are gone (lost or purged), reading all again")

// errDoubted is errSetBack the first time, which does not count yet: a leader that
// was elected just now may say so of what it has yet to take in.
var errDoubted = errors.New("entries that were read seem to be gone")

// idleCheck is how long no entry comes before it is asked whether there are
// any: the last one may have been purged before it was delivered. What the
// consumer says is still to come is no sign, as it counts entries, too, that
// others have followed since.
const idleCheck = 500 * time.Millisecond

// errStalled is the end of a reader that does not get what there is.
var errStalled = errors.New("entries do not come")

func (w *livesWatch) run(ctx context.Context) error {
	if !w.known {
		target, err := w.bus.LastSeq(ctx, contracts.StreamJobs, contracts.LifeAll)
		if err != nil {
			return fmt.Errorf("watch lives: %w", err)
		}
		w.target = target
		w.look()
	}
	reader, err := w.open(ctx)
	if err != nil {
		return fmt.Errorf("watch lives: %w", err)
	}
	defer reader.Close()
	// Only now: should entries be lost from here on, the reader breaks as well.
	held, err := w.holds(ctx)
	if err != nil {
		return fmt.Errorf("watch lives: %w", err)
	}
	if !held && !w.doubted {
		w.doubted = true
		return errDoubted
	}
	w.doubted = false
	if !held {
		w.anew()
		return fmt.Errorf("watch lives: %w", errSetBack)
	}
	for {
		msg, meta, err := w.next(ctx, reader)
		if errors.Is(err, errIdle) {
			err = w.idle(ctx)
		}
		if err != nil {
			return fmt.Errorf("watch lives: %w", err)
		}
		if msg != nil {
			w.take(ctx, msg, meta)
		}
	}
}

// idle finds out why no entry comes.
func (w *livesWatch) idle(ctx context.Context) error {
	last, err := w.bus.LastSeq(ctx, contracts.StreamJobs, contracts.LifeAll)
	if err != nil {
		return err
	}
	w.target = min(w.target, last) // what was there may have been purged
	w.look()
	if w.read.Seq < last {
		return errStalled
	}
	return nil
}

func (w *livesWatch) open(ctx context.Context) (*client.Reader, error) {
	config := jetstream.ConsumerConfig{
		FilterSubjects: []string{contracts.LifeAll}, DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy,
	}
	if w.read.Seq > 0 {
		config = w.read.Behind(contracts.LifeAll)
	}
	return w.bus.OpenReader(ctx, contracts.StreamJobs, config)
}

// holds reports whether the entry that was read last is where it was. A life that
// was purged since may have had it: then all are read again, too, and for nothing.
func (w *livesWatch) holds(ctx context.Context) (bool, error) {
	if w.read.Seq == 0 {
		return true, nil
	}
	msg, err := w.bus.MessageAt(ctx, contracts.StreamJobs, w.read.Seq)
	if errors.Is(err, ErrNoMessage) {
		return false, nil
	}
	return err == nil && msg.Time.Equal(w.stored), err
}

var errIdle = errors.New("no entry came for a while")

// next returns the next entry; errIdle, until the lives are known that were
// there at the start, when there is none for a while.
func (w *livesWatch) next(ctx context.Context, reader *client.Reader) (jetstream.Msg, *jetstream.MsgMetadata, error) {
	if !w.known {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, idleCheck, errIdle)
		defer cancel()
	}
	return reader.Next(ctx)
}

func (w *livesWatch) take(ctx context.Context, msg jetstream.Msg, meta *jetstream.MsgMetadata) {
	if !w.read.Pass(meta) {
		return
	}
	w.stored = meta.Timestamp
	defer w.look()
	entry, err := contracts.DecodeEntry(msg.Data())
	if err != nil && !errors.Is(err, contracts.ErrUnknownEntry) {
		zerolog.Ctx(ctx).Error().Err(err).Str("subject", msg.Subject()).Msg("entry is not readable")
		return
	}
	w.handle(&Seen{Entry: entry, Seq: meta.Sequence.Stream})
}

// look says when the lives are known that were there at the start.
func (w *livesWatch) look() {
	if !w.known && w.read.Seq >= w.target {
		w.known = true
		w.caughtUp()
	}
}
