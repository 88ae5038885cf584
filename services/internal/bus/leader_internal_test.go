package bus

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gantry-worker/gantry/contracts/client/natstest"
)

// TestLeaderEndsBeforeItsLease: a leader that cannot renew its lease is told so
// a third of it before anybody else gets it.
func TestLeaderEndsBeforeItsLease(t *testing.T) {
	t.Parallel()
	b, err := Open(t.Context(), natstest.Start(t).Config(), "test", "a")
	if err != nil {
		t.Fatal(err)
	}
	link := b.link()
	b.Close() // every renewal fails at once
	<-link.Done()
	synctest.Test(t, func(t *testing.T) {
		const ttl = 15 * time.Second
		began := time.Now()
		l := &lease{bus: b, key: leaderPrefix + "test", id: "a", ttl: ttl, renewed: began}
		err := l.hold(t.Context(), func(ctx context.Context) error {
			<-ctx.Done()
			if !errors.Is(context.Cause(ctx), ErrDeposed) {
				t.Errorf("ended with %v", context.Cause(ctx))
			}
			if led := time.Since(began); led > ttl-ttl/3 || led < ttl/3 {
				t.Errorf("led for %s with a lease of %s", led, ttl)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}
