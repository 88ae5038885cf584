package model

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/services/docker-executor/executortest"
)

// horizon is how long things go wrong, before it is scaled.
const horizon = 4 * time.Minute

// event is something that happens at its time.
type event struct {
	at time.Time
	do func()
}

// plan is what a seed decides: what is submitted and revoked, and what goes
// wrong, at a time or amidst what the actors do.
type plan struct {
	w       *world
	end     time.Time
	events  []event
	sudden  []func(t *turn) // happen before a turn that matters
	deaths  int             // that may still happen
	breaks  int             // connections that may still break
	mending bool
	jobs    []contracts.JobID
}

func newPlan(w *world) *plan {
	p := &plan{w: w, end: time.Now().Add(time.Duration(float64(horizon) * w.scale))}
	p.deaths, p.breaks = w.random.IntN(10), w.random.IntN(10)
	p.at(0, func() { w.submit = newSubmitter(w) })
	p.at(0, func() { w.startDispatcher() })
	for _, n := range w.nodes {
		p.at(p.within(0, 3*time.Second), func() { w.startExecutor(n) })
	}
	if p.chance(0.5) {
		p.at(p.within(0, horizon/2), func() { w.startDispatcher() })
	}
	if p.chance(0.3) {
		p.at(p.within(0, horizon/2), func() { w.startExecutor(p.node()) })
	}
	if p.chance(0.5) {
		p.at(0, func() { w.startTracker() })
	}
	for i := range 5 + w.random.IntN(8) {
		p.planJob(contracts.JobID(fmt.Sprint("job-", i+1)))
	}
	for range w.random.IntN(5) {
		p.planHold()
	}
	for range w.random.IntN(3) {
		p.planOutage()
	}
	for range w.random.IntN(3) {
		p.either(func(*turn) { p.replace() })
	}
	for range w.random.IntN(3) {
		p.either(func(*turn) { p.killOne() })
	}
	for range w.random.IntN(8) {
		p.either(func(*turn) { p.redeliver() })
	}
	w.random.Shuffle(len(p.sudden), func(i, j int) { p.sudden[i], p.sudden[j] = p.sudden[j], p.sudden[i] })
	return p
}

func (p *plan) chance(of float64) bool { return p.w.random.Float64() < of }

func (p *plan) within(from, to time.Duration) time.Duration {
	return time.Duration(p.w.scale * float64(from+time.Duration(p.w.random.Int64N(int64(to-from)))))
}

func (p *plan) node() *node { return p.w.nodes[p.w.random.IntN(len(p.w.nodes))] }

// at plans something for a time from now.
func (p *plan) at(in time.Duration, do func()) {
	p.events = append(p.events, event{time.Now().Add(in), do})
	slices.SortStableFunc(p.events, func(a, b event) int { return a.at.Compare(b.at) })
}

// either plans something for a time, or for the midst of something else.
func (p *plan) either(do func(*turn)) {
	if p.chance(0.6) {
		p.sudden = append(p.sudden, do)
		return
	}
	p.at(p.within(0, horizon), func() { do(nil) })
}

// due does what is due, and reports whether there was anything.
func (p *plan) due() bool {
	if len(p.events) == 0 || p.events[0].at.After(time.Now()) {
		return false
	}
	do := p.events[0].do
	p.events = p.events[1:]
	do()
	return true
}

// untilNext is how long nothing is planned.
func (p *plan) untilNext() time.Duration {
	next := 5 * time.Second
	if len(p.events) > 0 {
		next = min(next, time.Until(p.events[0].at))
	}
	return max(next, time.Millisecond)
}

func (p *plan) over() bool { return !time.Now().Before(p.end) }

// matters reports whether a turn is one that decides about jobs, as opposed to
// one that only asks whether there is something to do.
func matters(t *turn) bool {
	if t.link == nil {
		return true
	}
	for _, prefix := range []string{"jobs.", "tasks.", "logs.", "executors.", "$JS.ACK.", "$JS.API.STREAM.MSG.GET.", "$JS.API.STREAM.MSG.DELETE.", "$JS.API.STREAM.PURGE."} {
		if strings.HasPrefix(t.key, prefix) {
			return true
		}
	}
	return false
}

// suddenness is how likely something happens amidst a turn: more so where a job
// changes hands.
func suddenness(t *turn) float64 {
	if strings.HasPrefix(t.key, "jobs.") || strings.HasPrefix(t.key, "tasks.ready.") {
		return 0.05
	}
	return 0.01
}

// jobOf returns the job that a turn is about.
func (p *plan) jobOf(t *turn) contracts.JobID {
	for _, id := range p.jobs {
		if t != nil && (strings.Contains(t.key+".", "."+string(id)+".") || strings.Contains(t.key, "-"+string(id)+"-")) {
			return id
		}
	}
	return ""
}

// judge decides what becomes of a turn.
func (p *plan) judge(t *turn) verdict {
	if p.mending {
		return pass
	}
	if !matters(t) {
		return pass
	}
	if len(p.sudden) > 0 && t.luck.of("sudden") < suddenness(t) {
		do := p.sudden[0]
		p.sudden = p.sudden[1:]
		do(t)
		if !t.actor.lives() {
			return drop
		}
	}
	dies, breaks, after := t.luck.of("dies") < 0.015, t.luck.of("breaks") < 0.015, t.luck.of("after") < 0.5
	switch {
	case dies && p.deaths > 0 && t.actor != p.w.submit.actor:
		p.deaths--
		if after {
			return dieAfter
		}
		return dieBefore
	case breaks && p.breaks > 0 && t.link != nil:
		p.breaks--
		if after {
			return loseAnswer
		}
		return drop
	default:
		return pass
	}
}

// died plans what follows a death.
func (p *plan) died(a *actor) {
	back := p.within(0, 10*time.Second)
	switch {
	case a.node != nil && p.chance(0.25):
		back = p.within(2*time.Minute, 4*time.Minute)
	case p.chance(0.3):
		back = p.within(10*time.Second, time.Minute)
	}
	p.at(back, func() { p.w.restart(a) })
}

// restart starts what takes the place of an actor.
func (w *world) restart(a *actor) {
	switch {
	case a.node != nil:
		w.startExecutor(a.node)
	case strings.HasPrefix(a.name, "tracker"):
		w.startTracker()
	default:
		w.startDispatcher()
	}
}

// services returns the services that run.
func (p *plan) services() []*actor {
	var running []*actor
	for _, a := range p.w.actors {
		if a != p.w.submit.actor && a.isUp() {
			running = append(running, a)
		}
	}
	return running
}

func (p *plan) one() *actor {
	running := p.services()
	executors := slices.DeleteFunc(slices.Clone(running), func(a *actor) bool { return a.node == nil })
	if len(executors) > 0 && p.chance(0.5) {
		running = executors
	}
	if len(running) == 0 {
		return nil
	}
	return running[p.w.random.IntN(len(running))]
}

func (p *plan) killOne() {
	if a := p.one(); a != nil {
		a.kill()
		p.died(a)
	}
}

// replace stops a service in good order and starts another one, before or after
// it has ended.
func (p *plan) replace() {
	a := p.one()
	if a == nil {
		return
	}
	if p.chance(0.3) {
		p.w.restart(a)
		a.leave()
		return
	}
	a.leave()
	p.at(p.within(0, 20*time.Second), func() { p.w.restart(a) })
}

func (p *plan) planHold() {
	long := p.within(time.Second, 10*time.Second)
	switch p.w.random.IntN(3) {
	case 0:
		long = p.within(20*time.Second, time.Minute)
	case 1:
		long = p.within(100*time.Second, 3*time.Minute)
	}
	stopped := p.chance(0.4)
	p.either(func(*turn) {
		a := p.one()
		if a == nil {
			return
		}
		if a.hold(stopped) {
			p.w.trace.event("%s is cut off for %s (stopped: %t)", a.name, long, stopped)
			p.at(long, a.release)
		}
	})
}

func (p *plan) planOutage() {
	long := p.within(0, 3*time.Second)
	if p.chance(0.5) {
		long = p.within(5*time.Second, 80*time.Second)
	}
	p.either(func(*turn) {
		if what := p.w.server.outage(p.w.random); what != "" {
			p.w.trace.event("%s for %s", what, long)
			p.at(long, p.w.mendServer)
		}
	})
}

func (w *world) mendServer() {
	w.server.mend()
	w.obs.newer, w.obs.mended = true, time.Now()
	w.trace.event("NATS is whole")
}

// redeliver has a message delivered again that somebody works on.
func (p *plan) redeliver() {
	p.w.mu.Lock()
	var subjects []string
	for subject := range p.w.acks {
		if strings.HasPrefix(subject, "tasks.") {
			subjects = append(subjects, subject)
		}
	}
	p.w.mu.Unlock()
	if len(subjects) == 0 {
		return
	}
	slices.Sort(subjects)
	subject := subjects[p.w.random.IntN(len(subjects))]
	p.w.mu.Lock()
	reply := p.w.acks[subject]
	p.w.mu.Unlock()
	p.w.trace.event("%s is delivered again", subject)
	p.w.obs.publish(reply, "-NAK")
}

// mend ends all that is wrong.
func (p *plan) mend() {
	p.mending = true
	p.w.mendServer()
	for _, a := range p.w.actors {
		a.release()
	}
	p.at(10*time.Second, p.w.obs.finishAll)
	up := map[string]bool{}
	for _, a := range p.services() {
		kind, _, _ := strings.Cut(a.name, "-")
		up[kind] = true
	}
	if !up["dispatcher"] {
		p.w.startDispatcher()
	}
	for _, n := range p.w.nodes {
		if !up[n.name+".executor"] {
			p.w.startExecutor(n)
		}
	}
}

// planJob plans a task: when it is submitted, how often, what its containers do,
// and whether it is revoked.
func (p *plan) planJob(id contracts.JobID) {
	p.jobs = append(p.jobs, id)
	p.w.obs.job(id) // from now on the map is only read
	first := p.within(0, 2*time.Minute)
	task := p.task(id)
	p.at(first, func() { p.w.submit.task(task) })
	for p.chance(0.25) {
		p.at(p.within(0, horizon), func() { p.w.submit.task(task) })
	}
	if p.chance(0.15) {
		other := p.task(id)
		other.Labels["other"] = "yes"
		p.at(first+p.within(0, time.Minute), func() { p.w.submit.task(other) })
	}
	if p.chance(0.35) {
		revoke := func() { p.w.submit.revoke(id) }
		switch p.w.random.IntN(4) {
		case 0, 1:
			p.sudden = append(p.sudden, func(t *turn) { p.w.submit.revoke(cmp.Or(p.jobOf(t), id)) })
		case 2:
			p.at(p.within(0, horizon), revoke)
		default:
			p.at(first+p.within(0, 5*time.Second), revoke)
		}
	}
}

// A task's labels say what its containers do: after how long they end, zero for
// at once, with which code, and how many lines they write.
const (
	labelRuns  = "runs"
	labelExit  = "exit"
	labelLines = "lines"
)

const lineWidth = 20

func (p *plan) task(id contracts.JobID) *contracts.Task {
	runs, code, lines := p.within(time.Second, 90*time.Second), 0, p.w.random.IntN(200)
	switch p.w.random.IntN(5) {
	case 0:
		runs = 0
	case 1:
		runs = p.within(2*time.Minute, 5*time.Minute)
	}
	if p.chance(0.3) {
		code = 3
	}
	steps := []string{"trap:USR1:0", "trap:USR2:3", fmt.Sprintf("lines:%d:%d", lines, lineWidth)}
	if runs > 0 {
		steps = append(steps, "hang")
	} else {
		steps = append(steps, fmt.Sprint("exit:", code))
	}
	docker := &contracts.DockerRun{Image: executortest.Image, Pull: contracts.PullNever}
	for _, step := range steps {
		docker.Args = append(docker.Args, contracts.Arg{Text: step})
	}
	crashes := p.w.random.IntN(4)
	return &contracts.Task{
		Version: contracts.Version, ID: id, Name: contracts.TaskDockerRun, Docker: docker,
		Retry: &contracts.Retry{MaxCrashes: &crashes, MaxFailures: p.w.random.IntN(3), Backoff: contracts.Duration(p.within(time.Second, 20*time.Second).Round(time.Second))},
		Labels: map[string]string{
			labelRuns: runs.Round(time.Millisecond).String(), labelExit: strconv.Itoa(code), labelLines: strconv.Itoa(lines),
		},
	}
}

// submitter is the client: it submits until it is told that it worked, and
// sometimes is not told.
type submitter struct {
	w     *world
	actor *actor
	ready chan struct{}
	conn  *client.Client
}

func newSubmitter(w *world) *submitter {
	s := &submitter{w: w, ready: make(chan struct{})}
	s.actor = w.start("client", nil, func(ctx context.Context, a *actor) error {
		cfg := a.nats()
		cfg.Wait = true
		var err error
		if s.conn, err = client.Connect(ctx, cfg); err != nil {
			return err
		}
		defer s.conn.Close()
		close(s.ready)
		<-ctx.Done()
		return nil
	})
	return s
}

// insist repeats something until it works.
func (s *submitter) insist(what string, do func(context.Context) error) {
	go func() {
		for s.actor.isUp() {
			select {
			case <-s.ready:
			case <-s.actor.ended:
				return
			}
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			err := do(ctx)
			cancel()
			if err == nil {
				return
			}
			s.actor.note(what + ": " + err.Error())
			select {
			case <-s.actor.ended:
			case <-time.After(time.Second):
			}
		}
	}()
}

func (s *submitter) task(task *contracts.Task) {
	s.w.obs.tried(task)
	s.insist("submit "+string(task.ID), func(ctx context.Context) error {
		_, err := s.conn.Submit(ctx, task)
		if err == nil {
			s.w.obs.accepted(task)
		}
		return err
	})
}

func (s *submitter) revoke(id contracts.JobID) {
	s.w.obs.revoked(id)
	s.insist("revoke "+string(id), func(ctx context.Context) error {
		err := s.conn.Revoke(ctx, contracts.Revoke{Job: id, By: "client", Reason: "planned"})
		if err == nil {
			s.w.obs.heeded(id)
		}
		return err
	})
}
