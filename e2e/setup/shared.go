package setup

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
)

// Shared is a Gantry that the tests of a package use side by side. The first
// test that wants it starts it; [Main] closes it after the last one, with all
// the checks that [Start] promises.
type Shared struct {
	Config Config
	// Patience bounds everything that one test waits for; ten minutes if 0.
	Patience time.Duration

	once   sync.Once
	host   host
	gantry *Gantry
}

// Of returns the Gantry as one test has it: what goes wrong there is that test's
// failure, and its patience begins now.
func (s *Shared) Of(t testing.TB) *Gantry {
	t.Helper()
	s.once.Do(func() {
		s.host.name = "shared"
		if s.Config.Patience == 0 {
			s.Config.Patience = 12 * time.Hour // it lasts as long as its tests
		}
		s.host.run(func() { s.gantry = Start(&s.host, s.Config) })
	})
	if s.host.Skipped() {
		t.Skip(s.host.told())
	}
	if s.gantry == nil {
		t.Fatalf("start of the shared Gantry: %s", s.host.told())
	}
	return s.gantry.of(t, cmp.Or(s.Patience, patience))
}

// of is the same Gantry in the hands of a test.
func (g *Gantry) of(t testing.TB, patience time.Duration) *Gantry {
	mine, girder, engine := *g, *g.Girder, *g.Engine
	girder.t, engine.t = t, t
	mine.T, mine.Girder, mine.Engine = t, &girder, &engine
	var cancel context.CancelFunc
	mine.ctx, cancel = context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	t.Cleanup(cancel)
	return &mine
}

// close stops the Gantry, if a test started it, and reports whether all was well.
func (s *Shared) close(passed bool) bool {
	if !passed {
		s.host.fail() // shows the logs, and does not wait for what will not come
	}
	if err := s.host.close(); err != nil {
		fmt.Fprintf(os.Stderr, "the shared Gantry:\n%v\n", err)
		return false
	}
	return true
}
