package model

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/docker-executor/executortest"
)

// observer is the model: what it has seen of each job, and what may come next.
type observer struct {
	w      *world
	conn   *client.Client
	newer  bool      // a life may have gone on
	mended time.Time // when NATS was last mended
	seq    uint64    // of the last entry that was read
	jobs   map[contracts.JobID]*job
}

// job is what is known of one job.
type job struct {
	id       contracts.JobID
	tried    []*contracts.Task // that were submitted under its id
	mu       sync.Mutex
	accepted []*contracts.Task // whose submission was acknowledged
	revoked  bool
	heeded   time.Time       // when the revoke was acknowledged
	late     map[int]bool    // attempts that were claimed after that
	task     *contracts.Task // that the life began with
	life     []*contracts.Entry
	owner    *actor // of the attempt that runs, or ran last
	node     contracts.NodeID
	// ran are the containers that were seen to run, by attempt.
	ran map[int]map[string]bool
}

func (j *job) last() *contracts.Entry {
	if len(j.life) == 0 {
		return nil
	}
	return j.life[len(j.life)-1]
}

func newObserver(w *world) *observer {
	conn, err := client.Connect(context.Background(), client.Config{URL: "nats://127.0.0.1:4222", Token: natstest.Token, Dialer: direct{w.server}, Wait: true})
	if err != nil {
		w.t.Fatal(err)
	}
	return &observer{w: w, conn: conn, jobs: map[contracts.JobID]*job{}}
}

func (o *observer) close() { o.conn.Close() }

func (o *observer) job(id contracts.JobID) *job {
	if o.jobs[id] == nil {
		o.jobs[id] = &job{id: id, ran: map[int]map[string]bool{}, late: map[int]bool{}}
	}
	return o.jobs[id]
}

func (o *observer) tried(task *contracts.Task) {
	o.job(task.ID).tried = append(o.job(task.ID).tried, task)
}

func (o *observer) accepted(task *contracts.Task) {
	j := o.job(task.ID)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.accepted = append(j.accepted, task)
}

func (j *job) isAccepted() []*contracts.Task {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.accepted
}

func (o *observer) revoked(id contracts.JobID) { o.job(id).revoked = true }

// heeded says that the revoke of a job is stored.
func (o *observer) heeded(id contracts.JobID) {
	j := o.job(id)
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.heeded.IsZero() {
		j.heeded = time.Now()
	}
}

func (j *job) isHeeded() time.Time {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.heeded
}

func (o *observer) publish(subject, body string) {
	if o.w.server.reachable() {
		_ = o.conn.Conn().Publish(subject, []byte(body)) // one that is lost is not delivered again, that is all
		_ = o.conn.Conn().FlushTimeout(time.Second)
	}
}

// look reads what is new and checks it, where it can be read.
func (o *observer) look() (known bool) {
	// In real time an entry that was let through is there only when the servers
	// have agreed on it, which nothing tells.
	if o.newer || o.w.real {
		o.read()
	}
	if !o.newer { // else it is not known what the containers are to be compared with
		o.containers()
	}
	return !o.newer
}

func (o *observer) read() {
	if !o.w.server.reachable() || !o.conn.Conn().IsConnected() {
		return
	}
	o.newer = false
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	stream, err := o.conn.JetStream().Stream(ctx, contracts.StreamJobs)
	for err == nil {
		var msg *jetstream.RawStreamMsg
		msg, err = stream.GetMsg(ctx, o.seq+1, jetstream.WithGetMsgSubject(contracts.LifeAll))
		if err != nil {
			break
		}
		o.seq = msg.Sequence
		entry, decodeErr := contracts.DecodeEntry(msg.Data)
		if decodeErr != nil {
			o.w.fail(msg.Subject, "entry is not readable: %v", decodeErr)
			return
		}
		o.entry(entry)
	}
	if !errors.Is(err, jetstream.ErrMsgNotFound) && !errors.Is(err, jetstream.ErrStreamNotFound) {
		o.newer = true
	}
}

// entry checks the next entry of a life.
func (o *observer) entry(e *contracts.Entry) {
	j := o.job(e.Job)
	last := j.last()
	o.w.trace.event("life of %s: %s attempt %d offer %d crashes %d failures %d by %s %s", e.Job, e.Type, e.Attempt, e.Offer, e.Crashes, e.Failures, e.Source, detail(e))
	fail := func(format string, args ...any) {
		o.w.fail(string(e.Job), "%s of attempt %d by %s: %s", e.Type, e.Attempt, e.Source, fmt.Sprintf(format, args...))
	}
	if err := contracts.CheckNext(last, e); err != nil {
		fail("%v", err)
		return
	}
	j.life = append(j.life, e)
	running := last != nil && last.Running()
	byOwner := j.owner != nil && j.owner.isSource(e.Source)
	author := o.author(e.Source)
	if author == nil {
		fail("nobody of this name was ever started")
		return
	}
	switch data := e.Data.(type) {
	case *contracts.Submitted:
		j.task = data.Task
		if len(j.tried) == 0 {
			fail("nobody submitted it")
		}
	case *contracts.Claimed:
		if running && !o.isGone(j) {
			fail("its owner %s was there within the last %s", j.owner.name, o.w.takeover)
		}
		j.owner, j.node = author, data.Node
		j.late[e.Attempt] = !j.isHeeded().IsZero()
	case *contracts.Adopted:
		switch {
		case data.Node != j.node:
			fail("the attempt belongs to node %s", j.node)
		case author != j.owner && j.owner.isUp():
			fail("its owner %s is alive", j.owner.name)
		}
		j.owner = author
	case *contracts.Released:
		// Who finds the attempt of a dead one of its node and has no room for it may
		// give it back without adopting it first.
		if !byOwner && (data.Node != j.node || j.owner.isUp()) {
			fail("the attempt is owned by %s", j.owner.name)
		}
	case *contracts.Started, *contracts.Canceling, *contracts.Pushing, *contracts.Pushed, *contracts.Succeeded:
		if !byOwner {
			fail("the attempt is owned by %s", j.owner.name)
		}
	case *contracts.Failed, *contracts.Canceled:
		if running && !byOwner && !o.isGone(j) {
			fail("the attempt is owned by %s, which was there within the last %s", j.owner.name, o.w.takeover)
		}
	}
	o.content(j, e, fail)
	if running && byOwner && !e.Running() {
		o.w.plan.at(attention, func() { o.removed(j, e) })
	}
}

// removed checks that an owner that ended an attempt removed its container.
func (o *observer) removed(j *job, end *contracts.Entry) {
	owner := o.author(end.Source)
	if !owner.isUp() || owner.wasAway(0, attention) {
		return
	}
	list, err := owner.node.engine.Containers(context.Background())
	for _, c := range list {
		if err == nil && c.Job == j.id && c.Attempt == end.Attempt {
			o.w.fail(string(j.id), "container %.8s of attempt %d is there %s after its end", c.ID, c.Attempt, attention)
		}
	}
}

// content checks what an entry says against what was asked for.
func (o *observer) content(j *job, e *contracts.Entry, fail func(string, ...any)) {
	switch data := e.Data.(type) {
	case *contracts.Started:
		if o.containers(); !j.ran[e.Attempt][data.Container] {
			fail("container %.8s was never seen to run in this attempt", data.Container)
		}
	case *contracts.Succeeded:
		if j.exit() != 0 {
			fail("its container ends with code %d", j.exit())
		}
	case *contracts.Failed:
		if data.Kind == contracts.FailureTask && (data.ExitCode == nil || *data.ExitCode != j.exit() || j.exit() == 0) {
			fail("its container ends with code %d; %s", j.exit(), data.Message)
		}
		if data.Kind == contracts.FailureInfrastructure && j.owner != nil && j.owner.isSource(e.Source) {
			fail("nothing was wrong with its node: %s", data.Message)
		}
		if data.Kind != contracts.FailureTask && data.Kind != contracts.FailureInfrastructure {
			fail("%s: %s", data.Kind, data.Message)
		}
	case *contracts.Canceled, *contracts.Canceling:
		if !j.revoked {
			fail("nobody revoked it")
		}
	}
	if since := j.isHeeded(); (e.Type == contracts.EntrySucceeded || e.Type == contracts.EntryFailed) && e.Attempt > 0 && !since.IsZero() &&
		time.Since(since) > attention && time.Since(o.mended) > attention && !j.owner.wasAway(0, attention) {
		fail("it was revoked %s ago", time.Since(since))
	}
	retry := j.task.Retry
	crashes, failures := retry.Crashes(), retry.Failures()
	if e.Terminal() {
		crashes, failures = crashes+1, failures+1
	}
	if e.Type == contracts.EntryClaimed && (e.Crashes > crashes || e.Failures > failures) || e.Crashes > retry.Crashes()+1 || e.Failures > retry.Failures()+1 {
		fail("%d crashes and %d failures, allowed are %d and %d", e.Crashes, e.Failures, retry.Crashes(), retry.Failures())
	}
}

// attention is how soon whoever is there has heard of something.
const attention = 45 * time.Second

func (j *job) exit() int {
	code, _ := strconv.Atoi(j.task.Labels[labelExit])
	return code
}

// isGone reports whether the owner of a job's attempt may be taken for gone: it
// could not be reached for o.w.takeover, less what it takes to see it.
func (o *observer) isGone(j *job) bool {
	return j.owner.wasAway(o.w.takeover-contracts.InstanceTTL, 30*time.Second)
}

func (o *observer) author(source string) *actor {
	for _, a := range o.w.actors {
		if a.isSource(source) {
			return a
		}
	}
	return nil
}

func (a *actor) isSource(source string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.id == source
}

// containers checks what runs now.
func (o *observer) containers() {
	running := map[contracts.JobID]executortest.Container{}
	at := map[contracts.JobID]*node{}
	for _, n := range o.w.nodes {
		list, err := n.engine.Containers(context.Background())
		if err != nil {
			o.w.fail("", "list containers: %v", err)
			return
		}
		for _, c := range list {
			if c.State == executortest.Created {
				continue
			}
			o.begun(n, c)
			if c.State != executortest.Running {
				continue
			}
			other, twice := running[c.Job]
			if twice {
				o.twice(at[c.Job], n, other, c)
			}
			if !twice || c.Attempt > other.Attempt {
				running[c.Job], at[c.Job] = c, n
			}
		}
	}
}

// begun takes note of a container that runs, or ran, when it is first seen.
func (o *observer) begun(n *node, c executortest.Container) {
	j := o.job(c.Job)
	if j.ran[c.Attempt] == nil {
		j.ran[c.Attempt] = map[string]bool{}
	}
	if j.ran[c.Attempt][c.ID] {
		return
	}
	j.ran[c.Attempt][c.ID] = true
	o.w.trace.event("container %.8s of %s attempt %d runs on %s", c.ID, c.Job, c.Attempt, n.name)
	if len(j.ran[c.Attempt]) > 1 {
		o.w.fail(string(c.Job), "attempt %d has a second container, %.8s", c.Attempt, c.ID)
	}
	if j.late[c.Attempt] {
		o.w.fail(string(c.Job), "attempt %d runs and was claimed after the job was revoked", c.Attempt)
	}
	// An owner that was taken for gone does not know it yet.
	last := j.last()
	if last == nil || last.Attempt < c.Attempt {
		o.w.fail(string(c.Job), "attempt %d runs and was not claimed", c.Attempt)
		return
	}
	if (last.Terminal() || last.Attempt > c.Attempt) && !o.claimant(j, c.Attempt).wasAway(time.Second, time.Minute) {
		o.w.fail(string(c.Job), "attempt %d starts after %s of attempt %d", c.Attempt, last.Type, last.Attempt)
	}
	runs, err := time.ParseDuration(j.task.Labels[labelRuns])
	if err != nil {
		o.w.fail(string(c.Job), "%v", err)
		return
	}
	if o.w.plan.mending {
		runs = min(runs, time.Second)
	}
	if runs > 0 {
		o.w.plan.at(runs, func() { o.finish(n, c) })
	}
}

// finish has a container come to its end.
func (o *observer) finish(n *node, c executortest.Container) {
	signal := "SIGUSR1"
	if o.job(c.Job).exit() != 0 {
		signal = "SIGUSR2"
	}
	o.w.trace.event("container %.8s of %s comes to its end", c.ID, c.Job)
	_ = n.engine.Signal(context.Background(), c.ID, signal) // it may be gone
}

// finishAll has all containers come to their end.
func (o *observer) finishAll() {
	for _, n := range o.w.nodes {
		list, err := n.engine.Containers(context.Background())
		if err != nil {
			o.w.fail("", "list containers: %v", err)
		}
		for _, c := range list {
			if j := o.job(c.Job); c.State == executortest.Running && j.task != nil {
				o.finish(n, c)
			}
		}
	}
}

// claimant returns who claimed or adopted an attempt last.
func (o *observer) claimant(j *job, attempt int) *actor {
	owner := j.owner
	for _, e := range j.life {
		if e.Attempt == attempt && (e.Type == contracts.EntryClaimed || e.Type == contracts.EntryAdopted) {
			owner = o.author(e.Source)
		}
	}
	return owner
}

// twice judges two containers of one job that run at once: only where the first
// one's owner was taken for gone, on another node, is that not to be avoided.
func (o *observer) twice(first, second *node, a, b executortest.Container) {
	older := a
	if b.Attempt < a.Attempt {
		older = b
	}
	j := o.job(a.Job)
	switch {
	case first == second:
		o.w.fail(string(a.Job), "attempts %d and %d run at once on %s", a.Attempt, b.Attempt, first.name)
	case a.Attempt == b.Attempt:
		o.w.fail(string(a.Job), "attempt %d runs twice", a.Attempt)
	case !o.claimant(j, older.Attempt).wasAway(o.w.takeover-contracts.InstanceTTL, attention):
		o.w.fail(string(a.Job), "attempts %d and %d run at once, the owner of the older was there", a.Attempt, b.Attempt)
	}
}

func detail(e *contracts.Entry) string {
	switch data := e.Data.(type) {
	case *contracts.Claimed:
		return fmt.Sprintf("(%s, %s)", data.Node, data.Executor)
	case *contracts.Adopted:
		return fmt.Sprintf("(%s, %s)", data.Node, data.Executor)
	case *contracts.Started:
		return fmt.Sprintf("(container %.8s)", data.Container)
	case *contracts.Failed:
		return fmt.Sprintf("(%s, will retry: %t: %s)", data.Kind, data.WillRetry, data.Message)
	default:
		return ""
	}
}

// summary counts what was seen.
func (o *observer) summary() string {
	seen := map[string]int{}
	for _, j := range o.jobs {
		for i, e := range j.life {
			seen[string(e.Type)]++
			if e.Type == contracts.EntryClaimed && j.life[i-1].Running() {
				seen["taken over"]++
			}
		}
	}
	var text strings.Builder
	for _, what := range slices.Sorted(maps.Keys(seen)) {
		fmt.Fprintf(&text, "%d %s, ", seen[what], what)
	}
	return strings.TrimSuffix(text.String(), ", ")
}

// left returns what has not come to rest.
func (o *observer) left() []string {
	var left []string
	if !o.conn.Conn().IsConnected() {
		return []string{"the connection to NATS"}
	}
	for _, id := range o.w.plan.jobs {
		j := o.jobs[id]
		if j == nil || len(j.tried) == 0 {
			continue
		}
		if len(j.isAccepted()) < len(j.tried) {
			left = append(left, fmt.Sprintf("%s: %d of %d submissions are acknowledged", id, len(j.isAccepted()), len(j.tried)))
		}
		if last := j.last(); last == nil || !last.Terminal() {
			left = append(left, fmt.Sprintf("%s has not ended", id))
		}
	}
	for _, n := range o.w.nodes {
		list, err := n.engine.Containers(context.Background())
		if err != nil || len(list) > 0 {
			left = append(left, fmt.Sprintf("containers on %s: %v %v", n.name, list, err))
		}
		folders, err := filepath.Glob(filepath.Join(n.root, "attempts", "*"))
		if err != nil || len(folders) > 0 {
			left = append(left, fmt.Sprintf("folders on %s: %v %v", n.name, folders, err))
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, name := range []string{contracts.StreamSubmit, contracts.StreamReady, contracts.StreamLater, contracts.StreamTransfers} {
		stream, err := o.conn.JetStream().Stream(ctx, name)
		if err != nil {
			left = append(left, fmt.Sprintf("%s: %v", name, err))
			continue
		}
		info, err := stream.Info(ctx, jetstream.WithSubjectFilter(">"))
		if err != nil || info.State.Msgs > 0 {
			left = append(left, fmt.Sprintf("messages in %s: %v %v", name, info.State.Subjects, err))
		}
	}
	return left
}

// conclude checks the outcome of each job, at rest.
func (o *observer) conclude() {
	ctx, cancel := context.WithTimeout(context.Background(), o.w.patience)
	defer cancel()
	for _, id := range o.w.plan.jobs {
		j := o.jobs[id]
		if j == nil || j.task == nil {
			continue
		}
		o.checkLog(ctx, j)
		o.checkOthers(ctx, j)
	}
}

// checkLog compares the log with what the container wrote, where it came to its
// end.
func (o *observer) checkLog(ctx context.Context, j *job) {
	last := j.last()
	failed, _ := last.Data.(*contracts.Failed)
	if last.Type != contracts.EntrySucceeded && (failed == nil || failed.Kind != contracts.FailureTask) {
		return
	}
	var got strings.Builder
	var seq uint64
	for chunk, err := range o.conn.Log(ctx, j.id, false) {
		if err != nil {
			o.w.fail(string(j.id), "read its log: %v", err)
			return
		}
		if chunk.Attempt == last.Attempt && chunk.Seq > seq {
			seq = chunk.Seq
			got.Write(chunk.Bytes())
		}
	}
	if ctx.Err() != nil {
		o.w.fail(string(j.id), "its log is not read in time")
		return
	}
	var want strings.Builder
	lines, _ := strconv.Atoi(j.task.Labels[labelLines])
	for i := range lines {
		fmt.Fprintf(&want, "%0*d\n", lineWidth-1, i)
	}
	if got.String() != want.String() {
		o.w.fail(string(j.id), "its log has %d bytes, its container wrote %d", got.Len(), want.Len())
	}
}

// checkOthers looks for the dead letters of tasks whose id another one had.
func (o *observer) checkOthers(ctx context.Context, j *job) {
	refused := false
	for _, task := range j.isAccepted() {
		refused = refused || task.Labels["other"] != j.task.Labels["other"]
	}
	if !refused {
		return
	}
	for msg, err := range o.conn.Messages(ctx, contracts.StreamDead, 1, contracts.DeadAll) {
		if err != nil {
			break
		}
		var letter contracts.DeadLetter
		if json.Unmarshal(msg.Data(), &letter) == nil && letter.Job == j.id {
			return
		}
		if meta, err := msg.Metadata(); err != nil || meta.NumPending == 0 {
			break
		}
	}
	o.w.fail(string(j.id), "two tasks were acknowledged under its id, and there is no dead letter")
}
