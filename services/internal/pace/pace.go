// Package pace tells how fast bytes move at present, smoothed so that people can
// read it.
package pace

import "time"

// window is the time over which a pace is taken.
const window = 5 * time.Second

// step is the least time between two marks: a window has few of them.
const step = 250 * time.Millisecond

// begin is the least time that a pace is taken over: the first bytes come at once.
const begin = 500 * time.Millisecond

// longest bounds how long nothing may move until the rate is 0.
const longest = 30 * time.Second

// Pace is that of one movement. The zero value is ready. It is used by one
// goroutine at a time.
type Pace struct {
	marks []mark // oldest first
	found int64
	gap   time.Duration // between the last two movements
}

type mark struct {
	at    time.Time
	bytes int64
}

// Found says that so many of the bytes that follow were there already: they are
// not of the movement.
func (p *Pace) Found(bytes int64) { p.found += bytes }

// At says how many bytes there are now. Fewer than before begin another movement.
func (p *Pace) At(now time.Time, bytes int64) {
	m := mark{now, bytes - p.found}
	n := len(p.marks)
	if n == 0 {
		p.marks = append(p.marks, m)
		return
	}
	last := p.marks[n-1]
	if m.bytes == last.bytes {
		return
	}
	paused := now.Sub(last.at) >= p.Patience()
	p.gap = now.Sub(last.at)
	switch {
	case m.bytes < last.bytes || paused:
		p.marks = append(p.marks[:0], m)
	case n > 1 && now.Sub(p.marks[n-2].at) < step:
		p.marks[n-1] = m
	default:
		p.marks = append(p.marks, m)
	}
	// The one before the window stays: it says what there was when the window began.
	for len(p.marks) > 2 && now.Sub(p.marks[1].at) >= window {
		p.marks = append(p.marks[:0], p.marks[1:]...)
	}
}

// Rate returns how many bytes a second are moved at present, 0 for none or not
// known yet.
func (p *Pace) Rate(now time.Time) int64 {
	if len(p.marks) < 2 {
		return 0
	}
	first, last := p.marks[0], p.marks[len(p.marks)-1]
	if now.Sub(last.at) >= p.Patience() {
		return 0
	}
	took := max(last.at.Sub(first.at), begin)
	return int64(float64(last.bytes-first.bytes) / took.Seconds())
}

// Patience is how long nothing may move until the rate is 0: some seconds, and
// longer where the bytes come in large pieces from far apart.
func (p *Pace) Patience() time.Duration { return min(max(window, 2*p.gap), longest) }
