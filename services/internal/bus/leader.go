package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
)

// leaderPrefix begins the keys of leases in the bucket of nodes.
const leaderPrefix = "leader."

// isLease tells a lease's key from that of an instance.
func isLease(key string) bool { return strings.HasPrefix(key, leaderPrefix) }

// ErrDeposed is the cause of the end of a leader's context that could not
// renew its lease.
var ErrDeposed = errors.New("no longer the leader")

// standbyPause is the longest time until one who stands by asks again for the
// lease: it may have been given back.
const standbyPause = 5 * time.Second

// Lead calls lead while this instance, named id, is the one of its service
// that holds the lease, again after each loss, until the context ends. Several
// instances may call it: one leads, the others stand by.
//
// The lease is a key with a time to live, renewed under compare-and-set every
// sixth of it. The context of a leader that was not able to renew it ends a third
// before the key expires, or earlier: in what is left lead has to return, for two
// not to lead at once. Lead gives the lease back only after lead has returned.
func (b *Bus) Lead(ctx context.Context, service, id string, ttl time.Duration, lead func(context.Context) error) error {
	lease := lease{bus: b, key: leaderPrefix + service, id: id, ttl: ttl}
	ticker := time.NewTicker(min(ttl/3, standbyPause))
	defer ticker.Stop()
	for ctx.Err() == nil {
		if lease.acquire(ctx) {
			if err := lease.hold(ctx, lead); err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
	return context.Cause(ctx)
}

type lease struct {
	bus      *Bus
	key, id  string
	ttl      time.Duration
	revision uint64
	renewed  time.Time // when the request was sent that the server accepted

	// other is the revision of another instance's lease, and otherSince when it
	// was first seen.
	other      uint64
	otherSince time.Time
}

func (l *lease) acquire(ctx context.Context) bool {
	sent := time.Now()
	ctx, cancel := context.WithTimeout(ctx, l.ttl/2) // a later answer is of little use
	defer cancel()
	err := l.bus.try(ctx, func(ctx context.Context) error {
		kv, err := l.bus.JetStream().KeyValue(ctx, contracts.BucketNodes)
		if err != nil {
			return err
		}
		l.revision, err = kv.Create(ctx, l.key, []byte(l.id), jetstream.KeyTTL(l.ttl))
		if errors.Is(err, jetstream.ErrKeyExists) {
			return l.inherit(ctx, kv)
		}
		return err
	})
	l.renewed = sent
	return err == nil
}

// errHeld is returned for a lease that another instance holds, or took.
var errHeld = errors.New("another instance holds the lease")

// inherit takes a lease that has not been renewed for its time to live: its
// holder does not lead any more by then. A server that was killed may forget
// when a key is to expire, and would keep it for ever. A lease of one's own,
// whose making was not answered, is taken at once.
func (l *lease) inherit(ctx context.Context, kv jetstream.KeyValue) error {
	entry, err := kv.Get(ctx, l.key)
	if err != nil {
		return err
	}
	if entry.Revision() != l.other {
		l.other, l.otherSince = entry.Revision(), time.Now()
	}
	if string(entry.Value()) != l.id && time.Since(l.otherSince) < l.ttl {
		return errHeld
	}
	ack, err := l.put(ctx, l.other)
	if err == nil {
		l.revision = ack.Sequence
	}
	return err
}

// put stores the lease in place of a revision. A plain update would drop the
// key's time to live.
func (l *lease) put(ctx context.Context, revision uint64) (*jetstream.PubAck, error) {
	return l.bus.JetStream().Publish(ctx, nodesPrefix+l.key, []byte(l.id),
		jetstream.WithMsgTTL(l.ttl), jetstream.WithExpectLastSequencePerSubject(revision))
}

// hold runs lead under a context that ends with the lease.
func (l *lease) hold(ctx context.Context, lead func(context.Context) error) error {
	log := zerolog.Ctx(ctx)
	leading, depose := context.WithCancelCause(ctx)
	defer depose(nil)
	done := make(chan error, 1)
	go func() { done <- lead(leading) }()
	log.Info().Msg("leading")
	ticker := time.NewTicker(l.renewal())
	defer ticker.Stop()
	for {
		select {
		case err := <-done:
			l.release(context.WithoutCancel(ctx))
			if leading.Err() == nil {
				return errors.Join(fmt.Errorf("lead %s: ended early", l.key), err)
			}
			return nil
		case <-ticker.C:
		}
		if leading.Err() == nil && !l.renew(leading) {
			log.Warn().Msg("lease lost, standing by")
			depose(ErrDeposed)
		}
	}
}

// renewal is the time between two renewals.
func (l *lease) renewal() time.Duration { return l.ttl / 6 }

// renewPause is the pause before a renewal is tried again.
const renewPause = 100 * time.Millisecond

// renew reports whether this instance may go on leading until the next renewal. It
// tries until the lease is stored anew, another instance has it, or it is late.
func (l *lease) renew(ctx context.Context) bool {
	limited, cancel := context.WithDeadline(ctx, l.renewed.Add(l.ttl-l.ttl/3))
	defer cancel()
	for limited.Err() == nil {
		sent := time.Now()
		err := l.try(limited)
		if err == nil {
			l.renewed = sent
			return true
		}
		if errors.Is(err, errHeld) {
			return false
		}
		pause(limited, renewPause)
	}
	return ctx.Err() != nil
}

// try asks again in time what is not answered.
func (l *lease) try(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, l.ttl/3)
	defer cancel()
	return l.bus.try(ctx, l.extend)
}

// extend stores the lease anew. What is in its place may be one's own, of a renewal
// that was stored and not answered: the next try is made on top of that.
func (l *lease) extend(ctx context.Context) error {
	ack, err := l.put(ctx, l.revision)
	if err == nil {
		l.revision = ack.Sequence
		return nil
	}
	if !isWrongSequence(err) {
		return err
	}
	stream, err := l.bus.stream(ctx, nodesStream)
	if err != nil {
		return err
	}
	last, err := stream.GetLastMsgForSubject(ctx, nodesPrefix+l.key)
	switch {
	case err != nil:
		return err
	case last.Sequence <= l.revision: // of a replica that comes behind
	case string(last.Data) == l.id:
		l.revision = last.Sequence
	default:
		return errHeld
	}
	return errUndecided
}

func (l *lease) release(ctx context.Context) {
	_ = l.bus.try(ctx, func(ctx context.Context) error { // it expires by itself
		kv, err := l.bus.JetStream().KeyValue(ctx, contracts.BucketNodes)
		if err != nil {
			return err
		}
		return kv.Purge(ctx, l.key, jetstream.LastRevision(l.revision), jetstream.PurgeTTL(l.ttl))
	})
}
