package bus

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/gantry-worker/gantry/contracts"
)

const (
	nodesStream = "KV_" + contracts.BucketNodes
	nodesPrefix = "$KV." + contracts.BucketNodes + "."
)

// Presence remembers when each service instance was last seen in the bucket of
// nodes. It counts no time in which it could have seen nobody: before it
// began, without a connection, while JetStream stored nothing, or while its own
// process stood still. It tells that by its own instance, which must be
// announced, see [Bus.Announce]: of a bucket that works, news comes at least as
// often as that is renewed.
type Presence struct {
	bus *Bus

	mu    sync.Mutex
	seen  map[string]time.Time // by key
	heard time.Time            // when the last news came, of anybody
	since time.Time            // since when it has come without a gap
}

// NewPresence returns a Presence that has seen nothing. Run makes it see.
func NewPresence(b *Bus) *Presence {
	return &Presence{bus: b, seen: map[string]time.Time{}}
}

// Run follows the bucket of nodes until the context ends.
func (p *Presence) Run(ctx context.Context) error {
	for msg, err := range p.bus.Messages(ctx, nodesStream, 1, nodesPrefix+">") {
		if err != nil {
			return fmt.Errorf("watch instances: %w", err)
		}
		// What has no body says that a key was removed or has expired.
		p.hear(strings.TrimPrefix(msg.Subject(), nodesPrefix), len(msg.Data()) > 0, time.Now())
	}
	return context.Cause(ctx)
}

func (p *Presence) hear(key string, present bool, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.heard) > contracts.InstanceTTL {
		p.since = now
		clear(p.seen) // all of it is older
	}
	p.heard = now
	if present {
		p.seen[key] = now
	}
}

// Unseen returns for how long an instance has not been seen by one who would
// have seen it: 0 if that is not known.
func (p *Presence) Unseen(service, id string) time.Duration {
	return p.unseen(contracts.InstanceKey(service, id), p.bus.ConnectedSince(), time.Now())
}

func (p *Presence) unseen(key string, connected, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.heard) > contracts.InstanceTTL {
		return 0
	}
	last := p.since
	for _, later := range []time.Time{connected, p.seen[key]} {
		if later.After(last) {
			last = later
		}
	}
	return max(0, now.Sub(last))
}
