package model

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gantry-worker/gantry/services/docker-executor/executortest"
)

// node is one machine: its work folder, and an engine whose containers outlive
// every executor.
type node struct {
	name      string
	root      string
	engine    *executortest.Engine
	executors int // that were started
}

// verdict is what becomes of a message or a call when its turn comes.
type verdict int

const (
	pass       verdict = iota
	drop               // it has no effect, and the connection breaks
	loseAnswer         // it has its effect, and the connection breaks before the answer
	dieBefore          // the actor dies before it
	dieAfter           // the actor dies after it, before the answer
)

func (v verdict) String() string {
	return [...]string{"pass", "cut off before", "answer lost", "dies before", "dies after"}[v]
}

// turn is somebody who waits to go on.
type turn struct {
	actor  *actor
	link   *link // nil for a call to the engine
	what   string
	key    string // the subject, or the call
	number int
	since  int // turns were given when it began to wait
	luck   luck
	given  chan verdict
}

// pace is the time that things take: none on the clock of a bubble, so what is
// usual there, and less on a real one.
type pace struct {
	real     bool
	scale    float64       // of all that is planned
	takeover time.Duration // after which an executor is taken for gone
	sweep    time.Duration
	patience time.Duration // until everything has come to rest once all is mended
	settle   func(w *world)
}

var bubble = pace{scale: 1, takeover: time.Minute, sweep: time.Minute, patience: 30 * time.Minute, settle: func(*world) { synctest.Wait() }}

// clock is real time. Who has nothing to do for a moment has nothing to do.
var clock = pace{real: true, scale: 0.15, takeover: 20 * time.Second, sweep: 10 * time.Second, patience: 15 * time.Minute, settle: func(w *world) {
	for before := -1; before != w.stirs(); {
		before = w.stirs()
		time.Sleep(2 * time.Millisecond)
	}
}}

// stirs counts what the actors did.
func (w *world) stirs() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked + w.frames
}

// world is all that runs, and its scheduler.
type world struct {
	pace
	t      *testing.T
	seed   uint64
	random *rand.Rand
	server natsServers
	nodes  []*node
	trace  *trace
	obs    *observer
	plan   *plan
	submit *submitter

	actors      []*actor
	dispatchers int
	trackers    int
	given       int // turns

	mu       sync.Mutex
	turns    []*turn
	asked    int
	named    map[string]int // how often something was asked for
	frames   int
	arrived  chan struct{}
	acks     map[string]string // acknowledgement subject of the last delivery, by subject
	failures []failure
}

type failure struct {
	job  string
	text string
}

func newWorld(t *testing.T, seed uint64, p pace, servers natsServers) *world {
	w := &world{
		pace: p, server: servers, t: t, seed: seed, random: rand.New(rand.NewPCG(seed, 0x6a6e7472)), trace: newTrace(),
		arrived: make(chan struct{}, 1), acks: map[string]string{}, named: map[string]int{},
	}
	for _, name := range []string{"alpha", "beta"} {
		w.nodes = append(w.nodes, &node{name: name, root: filepath.Join(t.TempDir(), name), engine: executortest.NewEngine()})
	}
	w.obs = newObserver(w)
	w.plan = newPlan(w)
	return w
}

// fail notes that something was found that must never be.
func (w *world) fail(job, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.mu.Lock()
	w.failures = append(w.failures, failure{job, text})
	w.mu.Unlock()
	w.trace.event("VIOLATION %s: %s", job, text)
}

func (w *world) failed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.failures) > 0
}

// atGate waits until a message of an actor has its turn.
func (w *world) atGate(a *actor, l *link, what, subject string) verdict {
	return <-w.ask(&turn{actor: a, link: l, what: what, key: subject})
}

// atEngine waits until a call to the engine has its turn, or is given up.
func (w *world) atEngine(ctx context.Context, a *actor, call string) verdict {
	t := &turn{actor: a, what: "engine: " + call, key: call}
	given := w.ask(t)
	select {
	case v := <-given:
		return v
	case <-ctx.Done():
		w.withdraw(t)
		return pass
	}
}

func (w *world) ask(t *turn) <-chan verdict {
	t.given = make(chan verdict, 1)
	if !t.actor.lives() {
		t.given <- drop
		return t.given
	}
	w.mu.Lock()
	w.asked++
	t.number, t.since = w.asked, w.given
	name := t.actor.name + " " + plain(t.what)
	w.named[name]++
	t.luck = luck(fmt.Sprint(w.seed, name, w.named[name]))
	w.turns = append(w.turns, t)
	w.mu.Unlock()
	select {
	case w.arrived <- struct{}{}:
	default:
	}
	return t.given
}

func (w *world) withdraw(t *turn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.turns = slices.DeleteFunc(w.turns, func(other *turn) bool { return other == t })
}

// dropTurns ends the waiting of a dead actor.
func (w *world) dropTurns(a *actor) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.turns = slices.DeleteFunc(w.turns, func(t *turn) bool {
		if t.actor == a {
			t.given <- drop
		}
		return t.actor == a
	})
}

// luck is what a seed says of one thing that an actor does, the first time, the
// second time: the same whatever others do meanwhile, so that a run that goes
// another way at one place is still much the same run.
type luck string

// of returns a number from 0 to 1 for one of the questions about it.
func (l luck) of(question string) float64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, string(l)+question)
	return rand.New(rand.NewPCG(h.Sum64(), 1)).Float64()
}

var random = regexp.MustCompile(`ex-\w+|[A-Za-z0-9]{8,}\b|\d{2,}`)

// plain removes from what is done the names that are new in each run.
func plain(what string) string {
	for _, kind := range []string{"CONSUMER.CREATE.", "ACK.", "$KV.nodes."} {
		if rest, ok := strings.CutPrefix(what, kind); ok {
			first, _, _ := strings.Cut(rest, ".")
			return kind + first
		}
	}
	return random.ReplaceAllString(what, "")
}

func (a *actor) lives() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.dead
}

var connectName = regexp.MustCompile(`"name":"([^"]*)"`)

// heard notes what can be seen on the wire of an actor.
func (w *world) heard(a *actor, f *frame) {
	w.mu.Lock()
	w.frames++
	w.mu.Unlock()
	switch {
	case f.verb == "CONNECT":
		if name := connectName.FindSubmatch(f.raw); name != nil {
			a.mu.Lock()
			a.id = string(name[1])
			a.mu.Unlock()
		}
	case strings.HasPrefix(f.reply, "$JS.ACK."):
		w.mu.Lock()
		w.acks[f.subject] = f.reply
		w.mu.Unlock()
	}
}

// next picks whose turn it is, nil if nobody can have one.
func (w *world) next() *turn {
	w.mu.Lock()
	defer w.mu.Unlock()
	var chosen *turn
	for _, t := range w.turns {
		held, stopped := t.actor.isHeld()
		if held && (t.link != nil || stopped) {
			continue
		}
		if chosen == nil || t.before(chosen, w.given) {
			chosen = t
		}
	}
	if chosen == nil {
		return nil
	}
	w.turns = slices.DeleteFunc(w.turns, func(t *turn) bool { return t == chosen })
	return chosen
}

// tooLong is how many turns others may have while one waits.
const tooLong = 300

// before reports whether a turn comes before another one.
func (t *turn) before(other *turn, now int) bool {
	if late, otherLate := now-t.since > tooLong, now-other.since > tooLong; late != otherLate {
		return late
	}
	if a, b := t.luck.of("order"), other.luck.of("order"); a != b {
		return a < b
	}
	return t.number < other.number
}

// give lets somebody go on.
func (w *world) give(t *turn, v verdict) {
	w.mu.Lock()
	w.given++
	w.mu.Unlock()
	w.trace.turn(t.actor.name, t.what, v)
	if strings.HasPrefix(t.key, "jobs.") && v != drop && v != dieBefore {
		w.obs.newer = true
	}
	switch v {
	case dieBefore:
		t.given <- drop
		t.actor.kill()
		w.plan.died(t.actor)
	case dieAfter:
		if t.link != nil {
			v = loseAnswer
		} else {
			v = pass
		}
		t.given <- v
		w.settle(w)
		t.actor.kill()
		w.plan.died(t.actor)
	case loseAnswer:
		if t.link == nil {
			v = pass
		}
		t.given <- v
	default:
		t.given <- v
	}
}

// step lets one thing happen, or time pass until the next one.
func (w *world) step() {
	w.settle(w)
	known := w.obs.look()
	if w.failed() {
		return
	}
	if !known && w.server.reachable() { // what happens unseen cannot be judged
		time.Sleep(20 * time.Millisecond)
		w.plan.due()
		return
	}
	if w.plan.due() {
		return
	}
	t := w.next()
	if t == nil {
		select {
		case <-w.arrived:
		case <-time.After(w.plan.untilNext()):
		}
		return
	}
	w.give(t, w.plan.judge(t))
}

// run carries out the plan and then waits for everything to come to its end.
func (w *world) run() {
	for !w.plan.over() && !w.failed() {
		w.step()
	}
	if w.failed() {
		return
	}
	w.trace.event("everything is mended")
	w.plan.mend()
	deadline := time.Now().Add(w.patience)
	look := time.Now()
	var left []string
	for !w.failed() {
		w.step()
		if now := time.Now(); now.After(look) {
			look = now.Add(5 * time.Second)
			if left = w.obs.left(); len(left) == 0 {
				w.obs.conclude()
				return
			}
			if now.After(deadline) {
				w.fail("", "nothing comes to rest in %s; left are\n\t%s", w.patience, strings.Join(left, "\n\t"))
			}
		}
	}
}

// close ends all that still runs.
func (w *world) close() {
	w.plan.mending = true
	for _, a := range w.actors {
		a.release()
		a.leave()
	}
	for _, a := range w.actors {
		for !a.hasEnded() {
			w.settle(w)
			if t := w.next(); t != nil {
				t.given <- pass
				continue
			}
			select {
			case <-w.arrived:
			case <-a.ended:
			case <-time.After(time.Minute):
			}
		}
	}
	w.obs.close()
	w.server.close()
	for _, n := range w.nodes {
		n.engine.Close()
	}
	for _, a := range w.actors {
		a.kill()
	}
}
