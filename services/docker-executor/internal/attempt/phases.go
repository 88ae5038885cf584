package attempt

import (
	"cmp"
	"fmt"
	"sync"
	"time"

	"github.com/gantry-worker/gantry/contracts"
)

// transfers sums up what transfer says of some of an attempt's steps, as a phase.
type transfers struct {
	phase contracts.PhaseName
	of    int // all steps there will be; 0: they are all there from the beginning
	tell  func(contracts.Phase)

	mu    sync.Mutex
	steps []transferred
}

// transferred is how far a step is.
type transferred struct {
	contracts.TransferNote
	heard bool      // else nothing is known
	ended time.Time // when its result was there
}

// fade is how long the rate of a step that is done still counts, less and less:
// those that go on are told to be as fast only after a while.
const fade = 5 * time.Second

// rate is what a step adds to the rate of all.
func (s *transferred) rate(now time.Time) int64 {
	if !s.Done {
		return s.Rate
	}
	left := max(fade-now.Sub(s.ended), 0)
	return int64(float64(s.Rate) * left.Seconds() / fade.Seconds())
}

// inputs is for steps that are done side by side, of which tell is told.
func inputs(steps []contracts.Step, tell func(contracts.Phase)) *transfers {
	t := &transfers{phase: contracts.PhaseFetchingInput, tell: tell}
	for _, step := range steps {
		t.begin(step.Step)
	}
	return t
}

// outputs is for so many steps that are done one after the other.
func outputs(of int, tell func(contracts.Phase)) *transfers {
	return &transfers{phase: contracts.PhasePushingOutput, of: of, tell: tell}
}

// begin says that a step is asked for.
func (t *transfers) begin(step string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.steps = append(t.steps, transferred{TransferNote: contracts.TransferNote{ID: step}})
}

// hear takes in what transfer says of a step until its result is there.
func (t *transfers) hear(note *contracts.TransferNote) {
	if note.Done {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.steps {
		if s := &t.steps[i]; s.ID == note.ID && !s.Done {
			s.TransferNote, s.heard = *note, true
			t.tell(t.sum(time.Now()))
		}
	}
}

// end takes in a step's result, which says how much there was of it.
func (t *transfers) end(step string, result *contracts.StepResult) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.steps {
		if s := &t.steps[i]; s.ID == step {
			s.Bytes, s.Total, s.Done, s.Waiting = result.Bytes, result.Bytes, true, ""
			s.heard, s.ended = true, time.Now()
			t.tell(t.sum(s.ended))
		}
	}
}

// sum is the phase. Its total is that of the steps known so far, and not known
// while one of them has none.
func (t *transfers) sum(now time.Time) contracts.Phase {
	phase := contracts.Phase{Phase: t.phase, What: t.what(), Waiting: t.waiting()}
	known, going := true, false
	for i := range t.steps {
		s := &t.steps[i]
		going = going || !s.Done
		phase.Bytes += s.Bytes
		phase.Of += max(s.Total, s.Bytes)
		known = known && (s.Done || s.heard && s.Total > 0)
		phase.Rate += s.rate(now)
	}
	if !known {
		phase.Of = 0
	}
	if !going || phase.Waiting != "" {
		phase.Rate = 0
	}
	return phase
}

// waiting says why nothing moves: the words of the first step that is not done,
// where all of those wait.
func (t *transfers) waiting() (why string) {
	for i := range t.steps {
		switch s := &t.steps[i]; {
		case s.Done:
		case s.Waiting == "":
			return ""
		default:
			why = cmp.Or(why, s.Waiting)
		}
	}
	return why
}

// what names what is on its way: the latest of those that go one after the
// other, or the first of those that go side by side.
func (t *transfers) what() string {
	if t.of > 0 {
		name := t.steps[len(t.steps)-1].What
		if name != "" && t.of > 1 {
			name += fmt.Sprintf(" (%d of %d)", len(t.steps), t.of)
		}
		return name
	}
	name, left := "", 0
	for i := range t.steps {
		if s := &t.steps[i]; !s.Done {
			left++
			name = cmp.Or(name, s.What)
		}
	}
	if name != "" && left > 1 {
		name += fmt.Sprintf(" and %d more", left-1)
	}
	return name
}

// preparing tells which of two things an attempt is busy with that go on side by
// side: the pull of its image while there are bytes of it to come, else its
// inputs. Its streams are begun meanwhile, which is told of where they wait and
// the inputs do not.
type preparing struct {
	tell func(contracts.Phase)

	mu       sync.Mutex
	pulling  bool
	fetching *contracts.Phase
	done     bool   // the inputs are there
	opening  string // why the streams are not begun yet, where they wait
}

func (p *preparing) pull(phase contracts.Phase) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pulling = phase.Of > 0
	if p.pulling || p.beside() == nil {
		p.tell(phase)
	}
}

// beside is what else the attempt is busy with, nil for nothing.
func (p *preparing) beside() *contracts.Phase {
	if p.opening != "" && p.done {
		return &contracts.Phase{Phase: contracts.PhaseFetchingInput, Waiting: p.opening}
	}
	return p.fetching
}

// tellBeside tells that, unless there are bytes of the image to come.
func (p *preparing) tellBeside() {
	if phase := p.beside(); phase != nil && !p.pulling {
		p.tell(*phase)
	}
}

// pulled says that the image is there.
func (p *preparing) pulled() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pulling = false
	p.tellBeside()
}

func (p *preparing) fetch(phase contracts.Phase) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fetching = &phase
	p.tellBeside()
}

// fetched says that the inputs are there.
func (p *preparing) fetched() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = true
	if p.opening != "" {
		p.tellBeside()
	}
}

// open takes in how far the streams are begun.
func (p *preparing) open(phase contracts.Phase) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if phase.Waiting == p.opening {
		return
	}
	p.opening = phase.Waiting
	if p.fetching == nil {
		p.fetching = &contracts.Phase{Phase: contracts.PhaseFetchingInput} // what is told when they wait no more
	}
	p.tellBeside()
}
