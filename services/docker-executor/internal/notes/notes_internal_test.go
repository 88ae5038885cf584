package notes

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gantry-worker/gantry/contracts"
)

// heard is what a teller published, and when.
type heard struct {
	*Teller
	t     *testing.T
	began time.Time
	mu    sync.Mutex
	all   []note
}

type note struct {
	after time.Duration
	phase contracts.Phase
	is    contracts.NoteType
}

// run has a teller run until the returned function is called.
func run(t *testing.T) (h *heard, stop func()) {
	h = &heard{t: t, began: time.Now()}
	h.Teller = newTeller(func(_ context.Context, kind contracts.NoteType, data any) {
		h.mu.Lock()
		defer h.mu.Unlock()
		n := note{after: time.Since(h.began), is: kind}
		if phase, ok := data.(*contracts.Phase); ok {
			n.phase = *phase
		}
		h.all = append(h.all, n)
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h.Run(ctx, t.Context())
	}()
	return h, func() {
		cancel()
		<-ended
	}
}

func (h *heard) notes() []note {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.all)
}

func fetching(bytes, rate int64) contracts.Phase {
	return contracts.Phase{Phase: contracts.PhaseFetchingInput, Bytes: bytes, Of: 1000, Rate: rate}
}

func TestTheSamePhaseIsToldTwiceASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, stop := run(t)
		for i := range int64(100) {
			h.Phase(fetching(i, 0))
			time.Sleep(50 * time.Millisecond)
		}
		if all := h.notes(); len(all) < 9 || len(all) > 11 {
			t.Errorf("%d notes in five seconds: %+v", len(all), all)
		}
		h.Phase(fetching(1000, 0))
		stop()
		all := h.notes()
		if last := all[len(all)-1]; last.phase.Bytes != 1000 {
			t.Errorf("the last is %+v", last)
		}
	})
}

func TestAnotherPhaseAndProgressDoNotWaitForIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, stop := run(t)
		defer stop()
		h.Phase(fetching(1, 0))
		time.Sleep(300 * time.Millisecond)
		h.Progress(contracts.Progress{}) // first: the teller may be at work before the next line
		h.Phase(fetching(2, 0))
		if all := h.notes(); len(all) != 2 || all[1].is != contracts.NoteProgress || all[1].after != 300*time.Millisecond {
			t.Errorf("told %+v", all)
		}
		h.Phase(contracts.Phase{Phase: contracts.PhaseRunning})
		time.Sleep(time.Minute)
		if all := h.notes(); len(all) != 3 || all[2].phase.Phase != contracts.PhaseRunning || all[2].after != 500*time.Millisecond {
			t.Errorf("told %+v", all)
		}
	})
}

func TestARateThatNobodyToldOfForLongIsNone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, stop := run(t)
		defer stop()
		h.Phase(fetching(1, 7))
		time.Sleep(time.Hour)
		all := h.notes()
		if len(all) != 2 || all[1].phase != fetching(1, 0) || all[1].after != silence {
			t.Errorf("told %+v", all)
		}
		h.Phase(fetching(2, 7))
		for range 10 { // said again, it is alive
			time.Sleep(silence / 2)
			h.Phase(fetching(2, 7))
		}
		if all = h.notes(); len(all) != 3 {
			t.Errorf("told %+v", all)
		}
	})
}
