package bus

import (
	"context"
	"errors"
	"sync"

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
