package bus

import (
	"context"
	"time"
)

// AnswerWithin sets how long a lane may take to say that it has nothing.
func (p *Puller) AnswerWithin(d time.Duration) { p.answer = d }

// TellWaitsAfter sets how long something waits for NATS until that is told. It is
// called before anything waits.
func (b *Bus) TellWaitsAfter(d time.Duration) { b.waits.after = d }

// Persist does what it is given as any method does that waits out an outage.
func (b *Bus) Persist(ctx context.Context, do func(context.Context) error) error {
	return b.persist(ctx, do)
}

// Lease is a lease that a test renews when it likes.
type Lease struct{ lease lease }

// Lease returns one that can be acquired.
func (b *Bus) Lease(service, id string, ttl time.Duration) *Lease {
	return &Lease{lease{bus: b, key: leaderPrefix + service, id: id, ttl: ttl}}
}

// Acquire reports whether the lease was free.
func (l *Lease) Acquire(ctx context.Context) bool { return l.lease.acquire(ctx) }

// Renew reports whether the lease is still held.
func (l *Lease) Renew(ctx context.Context) bool { return l.lease.renew(ctx) }

// Over makes the lease be renewed over another connection.
func (l *Lease) Over(b *Bus) { l.lease.bus = b }
