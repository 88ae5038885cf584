package attempt

import (
	"strings"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/policy"
)

// limits are the times at which a container is asked to end, and killed.
type limits struct {
	soft, hard     time.Duration // 0: none
	started        time.Time
	softly, hardly *time.Timer
}

func newLimits(started time.Time, rules *policy.Policy, task *contracts.Task) *limits {
	l := &limits{started: started.Round(0)}
	l.soft, l.hard = rules.Limits(task)
	l.softly, l.hardly = l.timer(l.soft), l.timer(l.hard)
	return l
}

// timer returns a timer for a limit, at once for one that passed while nobody
// watched; one that never fires for none.
func (l *limits) timer(limit time.Duration) *time.Timer {
	if limit == 0 {
		return &time.Timer{}
	}
	return time.NewTimer(time.Until(l.started.Add(limit)))
}

// isOver reports whether the hard limit has passed.
func (l *limits) isOver() bool {
	return l.hard > 0 && time.Until(l.started.Add(l.hard)) <= 0
}

func (l *limits) stop() {
	if l.soft > 0 {
		l.softly.Stop()
	}
	if l.hard > 0 {
		l.hardly.Stop()
	}
}

// brief writes a duration without the units that are zero: 12h, not 12h0m0s.
func brief(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
