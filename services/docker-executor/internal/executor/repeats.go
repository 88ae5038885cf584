package executor

import (
	"context"
	"sync"

	"github.com/rs/zerolog"
)

// repeats are failures of what is tried again every now and then. One that comes
// again the next time for the same reason does not pass by itself: somebody is to
// know of it, once.
type repeats struct {
	mu   sync.Mutex
	last map[string]*repeat // by what failed
}

type repeat struct {
	reason string
	told   bool
}

// tell says why something failed, and what comes of it. It forgets what was said
// where err is nil.
func (r *repeats) tell(ctx context.Context, what string, err error, message string) {
	if ctx.Err() != nil {
		return // that fails because it was ended
	}
	log := zerolog.Ctx(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		delete(r.last, what)
		return
	}
	level := zerolog.DebugLevel
	switch last := r.last[what]; {
	case last == nil || last.reason != err.Error():
		if r.last == nil {
			r.last = map[string]*repeat{}
		}
		r.last[what] = &repeat{reason: err.Error()}
	case !last.told:
		last.told, level = true, zerolog.WarnLevel
	}
	log.WithLevel(level).Err(err).Str("of", what).Msg(message)
}
