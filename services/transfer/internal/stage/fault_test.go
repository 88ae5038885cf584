package stage_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/gantry-worker/gantry/contracts/client/testport"
	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/transfer/internal/faultproxy"
	"github.com/gantry-worker/gantry/services/transfer/internal/stage"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

const (
	faultRuns = 500
	faultSide = 32 // runs at the same time, most of which wait
	// faultChunk is the size of chunks, several of which make a file.
	faultChunk, faultMinimum = 48 << 10, 16 << 10
	// stillTime is for how long a client waits on a connection that stands still.
	// It is much longer than a machine with a lot to do takes for an answer.
	stillTime = 5 * time.Second
	// faultPatience is more than all faults of a run take, and faultWatch longer
	// than any run takes that does not hang.
	faultPatience, faultWatch = 5 * time.Minute, 8 * time.Minute
)

var errHangs = errors.New("the run hangs")

// TestFaults moves files through a network that fails, again and again, also in
// processes that end and go on. All of it is there in the end, byte by byte and
// once, or the error says what it was; and nothing else is left, neither on the
// volume nor in Girder. GANTRY_FAULT_SEED and GANTRY_FAULT_RUNS choose the runs.
func TestFaults(t *testing.T) {
	runs := int(faultNumber(t, "GANTRY_FAULT_RUNS", faultRuns))
	first := faultNumber(t, "GANTRY_FAULT_SEED", 1)
	total := &faultTotal{counts: map[faultproxy.Kind]int{}, works: map[string]int{}}
	seeds := make(chan uint64)
	var sides sync.WaitGroup
	for range faultSide {
		sides.Go(func() {
			for seed := range seeds {
				t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { total.add(faultRun(t, seed)) })
			}
		})
	}
	for i := range runs {
		seeds <- first + uint64(i)
	}
	close(seeds)
	sides.Wait()
	t.Logf("%d runs: %v", runs, total)
	if runs < faultRuns {
		return
	}
	for _, kind := range faultproxy.Kinds {
		if total.counts[kind] == 0 {
			t.Errorf("no request had the fault %q", kind)
		}
	}
	if total.ended == 0 || total.failed == 0 || total.killed == 0 || total.suspended == 0 {
		t.Errorf("not all that should did happen: %v", total)
	}
}

func faultNumber(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// faultTotal is what happened in all runs.
type faultTotal struct {
	mu                               sync.Mutex
	counts                           map[faultproxy.Kind]int
	works                            map[string]int
	ended, failed, killed, suspended int
}

func (f *faultTotal) add(r *run) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for kind, n := range r.proxy.Counts() {
		f.counts[kind] += n
	}
	f.works[r.work.name]++
	f.killed += r.killed
	f.suspended += r.suspended
	if r.err == nil {
		f.ended++
	} else {
		f.failed++
	}
}

func (f *faultTotal) String() string {
	return fmt.Sprintf("%d ended well, %d with an error; %d times killed, %d times suspended; %v; %v",
		f.ended, f.failed, f.killed, f.suspended, f.works, f.counts)
}

// run is some work through a proxy that fails.
type run struct {
	*testing.T
	dice   *rand.Rand
	sim    *girdersim.Server
	user   girdersim.User
	token  string
	folder girdersim.Folder
	proxy  *faultproxy.Proxy
	client *girder.Client
	retry  girder.Retry
	always bool // some route never works
	volume string
	work   *work
	disk   *disk
	ears   ears

	killed, suspended int
	err               error // of the last life
}

// work is what a run does.
type work struct {
	name string
	// do is one life of it.
	do func(ctx context.Context, l *life) error
	// check looks at what is there in the end; whole means that it is all of it.
	check func(whole bool)
}

// disk is what outlives a process: the later one knows what it reads there.
type disk struct {
	mu    sync.Mutex
	steps map[string]*stage.Memory
	begun map[girder.UploadID]bool
}

func newDisk() *disk {
	return &disk{steps: map[string]*stage.Memory{}, begun: map[girder.UploadID]bool{}}
}

// ears note the ids that answers told, if they were read to their end: what the
// proxy sent may have come too late.
type ears struct {
	http.Transport
	mu  sync.Mutex
	ids map[string]bool
}

func (e *ears) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := e.Transport.RoundTrip(r)
	if err == nil && !strings.HasSuffix(r.URL.Path, "/download") {
		resp.Body = &told{ReadCloser: resp.Body, ears: e}
	}
	return resp, err
}

func (e *ears) heard(id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ids[id]
}

// told is an answer's body.
type told struct {
	io.ReadCloser
	ears *ears
	text []byte
}

func (b *told) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.text = append(b.text, p[:n]...)
	var doc struct {
		ID string `json:"_id"`
	}
	if err == io.EOF && json.Unmarshal(b.text, &doc) == nil {
		b.ears.mu.Lock()
		defer b.ears.mu.Unlock()
		b.ears.ids[doc.ID] = true
	}
	return n, err
}

// life is one process.
type life struct {
	disk *disk
	dead atomic.Bool
}

// step returns what is known of a step, and how it is told more.
func (l *life) step(name string) (stage.Memory, stage.Remember) {
	l.disk.mu.Lock()
	defer l.disk.mu.Unlock()
	if l.disk.steps[name] == nil {
		l.disk.steps[name] = new(stage.Memory)
	}
	known := l.disk.steps[name]
	return *known, func(n stage.Note) error { return l.note(known, n) }
}

func (l *life) note(known *stage.Memory, n stage.Note) error {
	line, err := json.Marshal(n)
	if err != nil {
		return err
	}
	var read stage.Note
	if err := json.Unmarshal(line, &read); err != nil {
		return err
	}
	l.disk.mu.Lock()
	defer l.disk.mu.Unlock()
	if l.dead.Load() {
		return errors.New("dead")
	}
	known.Add(read)
	if read.Pending != nil {
		l.disk.begun[read.Pending.ID] = true
	}
	return nil
}

func faultRun(t *testing.T, seed uint64) *run {
	t.Helper()
	r := &run{T: t, dice: rand.New(rand.NewPCG(seed, 0)), volume: t.TempDir(), disk: newDisk(), ears: ears{ids: map[string]bool{}}}
	defer func() {
		if t.Failed() {
			t.Log(strings.Join(r.proxy.Story(), "\n"))
			t.Logf("%s; faults: %v; error: %v; again with GANTRY_FAULT_SEED=%d GANTRY_FAULT_RUNS=1", r.work.name, r.proxy.Counts(), r.err, seed)
		}
	}()
	r.start(seed)
	r.work = works[r.dice.IntN(len(works))](r)
	watch, stop := context.WithTimeoutCause(t.Context(), faultWatch, errHangs)
	defer stop()
	for lives := r.dice.IntN(4); lives > 0 && r.interrupted(watch); lives-- {
	}
	if watch.Err() == nil && (r.err == nil || errors.Is(r.err, stage.ErrSuspended)) {
		r.err = r.work.do(watch, &life{disk: r.disk})
	}
	if watch.Err() != nil {
		t.Fatal(context.Cause(watch))
	}
	r.finish()
	return r
}

// start makes a Girder, the proxy before it and a client behind that.
func (r *run) start(seed uint64) {
	r.Helper()
	var err error
	sums := r.dice.IntN(3) > 0
	if r.sim, err = girdersim.Start(girdersim.Options{Addr: testport.Address(r), MinimumChunk: faultMinimum, Artifacts: true, Hashsums: sums}); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = r.sim.Close() })
	if r.user, err = r.sim.CreateUser("alice", "password"); err != nil {
		r.Fatal(err)
	}
	if r.folder, err = r.sim.CreateFolder(r.user.ID, "data", false); err != nil {
		r.Fatal(err)
	}
	r.token, err = r.sim.UserToken(r.user.ID, girdersim.ScopeDataRead, girdersim.ScopeDataWrite, girdersim.ScopeUser)
	if err != nil {
		r.Fatal(err)
	}
	o := faultproxy.Options{
		Seed: seed, Rate: []float64{0.1, 0.3, 0.6}[r.dice.IntN(3)], Most: 1 + r.dice.IntN(10),
		Kinds: kinds(sums),
	}
	r.retry = girder.Retry{Total: faultPatience, First: time.Millisecond, Max: 5 * time.Millisecond}
	if r.always = r.dice.IntN(12) == 0; r.always {
		o.Rate = 0
		routes := []faultproxy.Route{faultproxy.Document, faultproxy.Download, faultproxy.Begin, faultproxy.Chunk, faultproxy.Empty, faultproxy.Artifact}
		o.Always = map[faultproxy.Route]faultproxy.Kind{routes[r.dice.IntN(len(routes))]: o.Kinds[r.dice.IntN(len(o.Kinds))]}
		r.retry.Total = 50 * time.Millisecond
	}
	if r.proxy, err = faultproxy.Start(r.sim.APIURL(), o); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = r.proxy.Close() })
	r.client, err = girder.New(girder.Options{
		APIURL: r.proxy.APIURL(), Token: r.token, Retry: girder.Retry{Total: -1}, Idle: stillTime, Answer: stillTime,
		HTTPClient: &http.Client{Transport: &r.ears},
	})
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(r.client.CloseIdle)
}

// kinds are the faults before a Girder that tells checksums, or does not. Without
// them nobody notices that bytes of a file were changed on the way.
func kinds(sums bool) []faultproxy.Kind {
	unseen := func(k faultproxy.Kind) bool {
		return !sums && (k == faultproxy.CorruptDownload || k == faultproxy.CorruptUpload)
	}
	return slices.DeleteFunc(slices.Clone(faultproxy.Kinds), unseen)
}

// interrupted is a life that may end in the middle. It reports whether it did.
func (r *run) interrupted(watch context.Context) bool {
	ctx, end := context.WithCancelCause(watch)
	defer end(nil)
	l, kills := &life{disk: r.disk}, r.dice.IntN(2) == 0
	r.proxy.Interrupt(r.dice.IntN(12), r.dice.IntN(2) == 0, func() {
		l.dead.Store(kills)
		end(stage.ErrSuspended)
		if kills {
			r.proxy.Cut()
		}
	})
	r.err = r.work.do(ctx, l)
	r.proxy.Interrupt(0, false, nil)
	r.proxy.Mend()
	switch {
	case l.dead.Load():
		r.killed++
		r.err = stage.ErrSuspended // whatever it returns, nobody hears of it
	case errors.Is(r.err, stage.ErrSuspended):
		r.suspended++
	default:
		return false
	}
	return true
}

// finish looks at everything when nothing is under way any more.
func (r *run) finish() {
	r.Helper()
	if err := r.proxy.Close(); err != nil {
		r.Error(err)
	}
	r.sim.Down()
	if r.err != nil && !r.mayFail() {
		r.Errorf("nothing happened that should end it: %v", r.err)
	}
	if r.err != nil && !isClear(r.err) {
		r.Errorf("not a clear error: %v", r.err)
	}
	r.work.check(r.err == nil)
	lost := 0
	for _, up := range r.proxy.Uploads() {
		known := r.ears.heard(up.ID) && (r.killed == 0 || r.disk.begun[girder.UploadID(up.ID)])
		if !up.Used && !known {
			lost++
		}
	}
	if n := r.sim.OpenUploads(); n < lost || n > lost+r.proxy.PartsAttached() {
		r.Errorf("%d uploads are open, of which nobody knows %d, and %d artifacts were broken", n, lost, r.proxy.PartsAttached())
	}
}

// mayFail reports whether something happened that no client can make good: bytes
// that were left out where no length tells of them, an artifact with other bytes,
// which cannot be taken back, or the same file spoiled time after time.
func (r *run) mayFail() bool {
	n := r.proxy.Counts()
	uploads, downloads := n[faultproxy.CorruptUpload], n[faultproxy.CorruptDownload]+n[faultproxy.ShortLength]+n[faultproxy.LongLength]+n[faultproxy.Page]
	return r.always || n[faultproxy.ShortBody] > 0 || r.work.name == "artifact" && uploads > 0 || uploads > 2 || downloads > 4
}

// isClear reports whether an error is of a class that a caller can tell.
func isClear(err error) bool {
	for _, class := range []error{stage.ErrIncomplete, stage.ErrChecksum, stage.ErrOtherBytes, girder.ErrOtherRange} {
		if errors.Is(err, class) {
			return true
		}
	}
	return stage.IsFailure(err) || girder.IsTemporary(err)
}
