package mirror

import (
	"time"

	"golang.org/x/time/rate"
)

// pollTime says when Girder is asked next whether it cancels a job.
type pollTime struct {
	at       time.Time
	reserved *rate.Reservation
}

func (p *pollTime) start() {
	if p.reserved != nil {
		p.reserved.Cancel()
		p.reserved = nil
	}
	p.at = time.Now().Add(pollInterval)
}

// turn is called when the time has come. It reports whether to ask now: a job
// that waits takes its turn first among those of its Girder.
func (p *pollTime) turn(h *host, running bool) bool {
	if !running && p.reserved == nil {
		p.reserved = h.polls.Reserve()
		if delay := p.reserved.Delay(); delay > 0 {
			p.at = time.Now().Add(delay)
			return false
		}
	}
	p.reserved = nil // it is used
	p.start()
	return true
}
