package bus

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts/client"
)

// saidOnce tells what was said before: what goes on for hours is logged once. The
// zero value is ready.
type saidOnce struct {
	mu   sync.Mutex
	said map[string]bool
}

// maxSaid bounds what is remembered.
const maxSaid = 1000

// first reports whether it is new.
func (s *saidOnce) first(what string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.said[what] {
		return false
	}
	if s.said == nil || len(s.said) >= maxSaid {
		s.said = map[string]bool{}
	}
	s.said[what] = true
	return true
}

func (s *saidOnce) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = nil
}

// report logs what the server says outside of any request, once for as long as a
// connection lasts.
func (b *Bus) report(ctx context.Context, err error) {
	b.NoteError(err)
	log := zerolog.Ctx(ctx)
	kind, refused := b.ExplainRefusal(err)
	switch {
	case refused != nil && b.said.first(kind):
		log.Error().Err(refused).Msg("NATS refuses this service what it needs; it is not ready until its user is given that permission")
	case refused == nil && errors.Is(err, nats.ErrAuthorization):
		// reportTry says more.
	case refused == nil && b.said.first(err.Error()):
		log.Warn().Err(err).Msg("NATS reports an error")
	}
}

// reportTry logs, once, that NATS does not let in again who was connected. That it
// does not answer was said when the connection was lost.
func (b *Bus) reportTry(ctx context.Context, err error) {
	if errors.Is(err, client.ErrNotAuthorized) && b.said.first(err.Error()) {
		zerolog.Ctx(ctx).Error().Err(err).Msg("no connection to NATS, trying on")
	}
}

// sayWait is how long something waits for NATS until that is said.
const sayWait = 30 * time.Second

// waits tells why something waits for NATS: once for all that wait for the same
// reason, and again when none of them does any more.
type waits struct {
	after time.Duration
	log   *zerolog.Logger // the service's: who waits first may have none

	mu   sync.Mutex
	many map[string]int // by reason
}

// wait is one that may take long.
type wait struct {
	all     *waits
	since   time.Time
	reasons []string // that were told, by this one or another
}

// tell says why it waits, once that takes long.
func (w *wait) tell(err error, subjects []string) {
	reason := err.Error()
	if time.Since(w.since) < w.all.after || slices.Contains(w.reasons, reason) {
		return
	}
	w.reasons = append(w.reasons, reason)
	w.all.mu.Lock()
	defer w.all.mu.Unlock()
	if w.all.many == nil {
		w.all.many = map[string]int{}
	}
	if w.all.many[reason]++; w.all.many[reason] == 1 {
		w.all.log.Warn().Err(err).Strs("subjects", subjects).Msg("waiting for NATS")
	}
}

// end says that it goes on, where it does.
func (w *wait) end(goesOn bool) {
	w.all.mu.Lock()
	defer w.all.mu.Unlock()
	for _, reason := range w.reasons {
		if w.all.many[reason]--; w.all.many[reason] > 0 {
			continue
		}
		delete(w.all.many, reason)
		if goesOn {
			w.all.log.Info().Str("waited", reason).Msg("going on with NATS")
		}
	}
}
