package bus

import (
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
)

// TestUnseenCountsWhatCouldBeSeen goes through what happens around an instance
// x while another, one's own, is seen every five seconds.
func TestUnseenCountsWhatCouldBeSeen(t *testing.T) {
	t.Parallel()
	start := time.Now()
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	const own, x = "test.own", "docker-executor.x"
	beats := func(p *Presence, from, to int) {
		for s := from; s <= to; s += 5 {
			p.hear(own, true, at(s))
		}
	}
	for _, tt := range []struct {
		name      string
		happened  func(p *Presence)
		connected int
		now       int
		want      time.Duration
	}{
		{"nothing heard yet", func(*Presence) {}, 0, 500, 0},
		{"never seen", func(p *Presence) { beats(p, 0, 100) }, 0, 100, 100 * time.Second},
		{"seen once", func(p *Presence) { beats(p, 0, 20); p.hear(x, true, at(21)); beats(p, 25, 100) }, 0, 101, 80 * time.Second},
		{"seen, then removed", func(p *Presence) { p.hear(x, true, at(0)); beats(p, 5, 10); p.hear(x, false, at(12)); beats(p, 15, 30) }, 0, 30, 30 * time.Second},
		{"reconnected", func(p *Presence) { p.hear(x, true, at(0)); beats(p, 0, 100) }, 90, 100, 10 * time.Second},
		{"no news of anybody", func(p *Presence) { p.hear(x, true, at(0)); beats(p, 0, 10) }, 0, 100, 0},
		{"news again", func(p *Presence) { p.hear(x, true, at(0)); beats(p, 0, 10); beats(p, 100, 110) }, 0, 110, 10 * time.Second},
	} {
		p := NewPresence(nil)
		tt.happened(p)
		if got := p.unseen(x, at(tt.connected), at(tt.now)); got != tt.want {
			t.Errorf("%s: unseen for %s, want %s", tt.name, got, tt.want)
		}
	}
	if contracts.InstanceTTL > 90*time.Second {
		t.Error("a silence of 90 s is too short for this table")
	}
}
