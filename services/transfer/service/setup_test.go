package service

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/leaktest"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/contracts/client/testport"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/internal/node"
	"github.com/gantry-worker/gantry/services/transfer/internal/journal"
	"github.com/gantry-worker/gantry/services/transfer/internal/stage"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

func TestMain(m *testing.M) {
	if config := os.Getenv(childConfig); config != "" {
		os.Exit(beChild(config))
	}
	leaktest.Main(m)
}

// slow is the rhythm of tests in which nothing has to be looked for, quick that
// of the others.
var (
	slow  = rhythm{life: time.Hour, holds: time.Hour, sweep: time.Hour, place: time.Hour, fresh: time.Hour}
	quick = rhythm{life: 20 * time.Millisecond, holds: 5 * time.Millisecond, sweep: 20 * time.Millisecond}
)

const (
	job       = contracts.JobID("job-1")
	publicAPI = "https://girder.example.org/api/v1" // what the task says; only the override is reachable
	// timeout is longer than anything takes that comes at all, on whatever machine,
	// and patience than anything that Girder is to answer.
	timeout, patience = 5 * time.Minute, 10 * time.Minute
)

// bench is NATS, a Girder, a work folder with one attempt, and the executor's
// side of the conversation.
type bench struct {
	t      *testing.T
	nats   *natstest.Server
	bus    *bus.Bus
	sim    *girdersim.Server
	item   girdersim.Item
	token  string
	root   string // work folder
	volume string
	node   contracts.NodeID
	life   *bus.Seen
	notes  chan told
	log    *bytes.Buffer // of what is started, to be read when that has stopped; nil: only told
}

// told is a note of a step.
type told struct {
	contracts.TransferNote
	attempt int
}

// isOf reports whether the note is of a step. One that ends is told of twice where
// its message comes late: another attempt's of the same name is not meant.
func (n told) isOf(step *contracts.Step) bool {
	return n.ID == step.Step && n.attempt == step.Attempt
}

func setup(t *testing.T) *bench {
	t.Helper()
	return setupWith(t, girdersim.Options{})
}

// setupWith is setup with a Girder of some kind.
func setupWith(t *testing.T, girder girdersim.Options) *bench {
	t.Helper()
	b := &bench{t: t, nats: natstest.Start(t), root: t.TempDir(), notes: make(chan told, 10000)}
	b.startGirder(girder)
	var err error
	if b.node, err = node.Open(b.root); err != nil {
		t.Fatal(err)
	}
	b.connect()
	b.claim()
	b.volume = filepath.Join(b.root, "attempts", "a1", "volume")
	if err := os.MkdirAll(b.volume, 0o777); err != nil {
		t.Fatal(err)
	}
	return b
}

// connect makes the executor's connection to NATS.
func (b *bench) connect() {
	b.t.Helper()
	var err error
	if b.bus, err = bus.Open(b.t.Context(), b.nats.Config(), "executor", "test"); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(b.bus.Close)
	stop, err := b.bus.OnNotes(job, func(note *contracts.Note) {
		var data contracts.TransferNote
		if json.Unmarshal(note.Data, &data) == nil {
			b.notes <- told{data, note.Attempt}
		}
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(stop)
}

// claim gives NATS the job, with its first attempt and its token.
func (b *bench) claim() {
	b.t.Helper()
	task := &contracts.Task{Version: 1, Name: contracts.TaskDockerRun, Docker: &contracts.DockerRun{Image: "img"}}
	b.append(&contracts.Submitted{Task: task})
	b.append(&contracts.Queued{Lane: contracts.LaneNormal})
	b.append(&contracts.Claimed{Node: b.node, Executor: "x"})
	b.secret(b.token)
}

func (b *bench) startGirder(options girdersim.Options) {
	b.t.Helper()
	options.Addr = testport.Address(b.t)
	sim, err := girdersim.Start(options)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = sim.Close() })
	b.sim = sim
	user, err := sim.CreateUser("alice", "password")
	if err != nil {
		b.t.Fatal(err)
	}
	folder, err := sim.CreateFolder(user.ID, "data", false)
	if err != nil {
		b.t.Fatal(err)
	}
	if b.item, err = sim.CreateItem(folder.ID, "item"); err != nil {
		b.t.Fatal(err)
	}
	if b.token, err = sim.UserToken(user.ID, girdersim.ScopeDataRead, girdersim.ScopeDataWrite); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) append(data contracts.EntryData) {
	b.t.Helper()
	seen, err := b.bus.Append(b.t.Context(), job, b.life, data)
	if err != nil {
		b.t.Fatal(err)
	}
	b.life = seen
}

// secret stores the job's token in place of the one before.
func (b *bench) secret(token string) {
	b.t.Helper()
	if err := b.bus.DeleteSecrets(b.t.Context(), job); err != nil {
		b.t.Fatal(err)
	}
	err := b.bus.PutSecrets(b.t.Context(), job, contracts.SecretIO, contracts.Secrets{"girder.token": token})
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) config() Config {
	return Config{
		NATS: b.nats.Config(), WorkRoot: b.root, GirderAPIURL: b.sim.APIURL(), Concurrency: 4, GirderConnections: 32, GirderPatience: patience,
	}
}

// start runs the service until the returned function is called, or the test ends.
func (b *bench) start(cfg Config, rhythm rhythm) (stop func()) {
	b.t.Helper()
	var log io.Writer = zerolog.NewTestWriter(b.t)
	if b.log != nil {
		log = zerolog.SyncWriter(io.MultiWriter(log, b.log))
	}
	ctx, cancel := context.WithCancel(zerolog.New(log).WithContext(context.Background()))
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, cfg, rhythm) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			b.t.Error("service:", err)
		}
	}
	b.t.Cleanup(stop)
	return stop
}

func (b *bench) serve() (stop func()) { return b.start(b.config(), quick) }

func (b *bench) file(name, content string) string {
	b.t.Helper()
	f, err := b.sim.AddFile(b.item.ID, name, strings.NewReader(content))
	if err != nil {
		b.t.Fatal(err)
	}
	return f.ID
}

func (b *bench) stageIn(name, fileID string) *contracts.Step {
	return &contracts.Step{
		Version: 1, Job: job, Attempt: 1, Step: name, Kind: contracts.StepStageIn, Folder: "attempts/a1",
		Girder: contracts.GirderAccess{APIURL: publicAPI, Token: "secret:io/girder.token"},
		Volume: b.volume, FileID: fileID, Filename: "in/" + name,
	}
}

func (b *bench) stageOut(name, path string) *contracts.Step {
	step := b.stageIn(name, "")
	step.Kind, step.Filename, step.Path, step.ItemID, step.MustExist = contracts.StepStageOut, "", path, b.item.ID, true
	return step
}

func (b *bench) write(path string, content []byte) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.volume, path), content, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) ask(step *contracts.Step) {
	b.t.Helper()
	subject := contracts.TransferSubject(b.node, step.Job, step.Attempt, step.Step)
	if err := b.bus.Publish(b.t.Context(), subject, "", step); err != nil {
		b.t.Fatal(err)
	}
}

// await returns the note that says that a step has ended.
func (b *bench) await(step *contracts.Step) contracts.TransferNote {
	b.t.Helper()
	limit := time.After(timeout)
	for {
		select {
		case note := <-b.notes:
			if note.isOf(step) && note.Done {
				return note.TransferNote
			}
		case <-limit:
			b.t.Fatalf("no end of step %s", step.Step)
		}
	}
}

// result reads a step's result, nil for none.
func (b *bench) result(step *contracts.Step) *contracts.StepResult {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(b.root, step.Folder, "steps", step.Step+".json"))
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		b.t.Fatal(err)
	}
	result := new(contracts.StepResult)
	if err := json.Unmarshal(data, result); err != nil {
		b.t.Fatal(err)
	}
	return result
}

// do asks for a step and returns its result.
func (b *bench) do(step *contracts.Step) *contracts.StepResult {
	b.t.Helper()
	b.ask(step)
	b.await(step)
	return b.result(step)
}

// drained waits until no step is left on the stream and in the journal.
func (b *bench) drained() {
	b.t.Helper()
	b.until("steps are left", b.isDrained)
}

func (b *bench) isDrained() bool {
	b.t.Helper()
	left, known := b.waiting()
	return known && left == 0 && len(b.begun()) == 0
}

// waiting counts the steps that were asked for and are not through, which is not
// known while NATS comes back.
func (b *bench) waiting() (steps uint64, known bool) {
	b.t.Helper()
	stream, err := b.bus.JetStream().Stream(b.t.Context(), contracts.StreamTransfers)
	if err != nil {
		b.t.Log(err)
		return 0, false
	}
	return stream.CachedInfo().State.Msgs, true
}

// through waits until no step is left on the stream.
func (b *bench) through() {
	b.t.Helper()
	b.until("steps are left", func() bool {
		left, known := b.waiting()
		return known && left == 0
	})
}

// until waits for what nobody tells: it looks again and again.
func (b *bench) until(otherwise string, done func() bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), timeout)
	defer cancel()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			b.t.Fatal(otherwise)
		}
	}
}

// begun lists the journal, but for steps that hold pipes.
func (b *bench) begun() []string {
	b.t.Helper()
	entries, err := filepath.Glob(filepath.Join(b.root, "transfer", "steps", "*"))
	if err != nil {
		b.t.Fatal(err)
	}
	return slices.DeleteFunc(entries, func(path string) bool { return strings.HasSuffix(path, ".hold") })
}

// note writes to the journal as a process did that has died.
func (b *bench) note(step *contracts.Step, note stage.Note) {
	b.t.Helper()
	j, err := journal.Open(b.t.Context(), b.root, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	entry, err := j.Begin(step)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := errors.Join(entry.Remember(note), entry.Close(), j.Close()); err != nil {
		b.t.Fatal(err)
	}
}

// awaitRequest waits for a request that Girder has dealt with.
func (b *bench) awaitRequest(match func(girdersim.Request) bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), timeout)
	defer cancel()
	if _, err := b.sim.AwaitRequest(ctx, match); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) uploaded(name string) string {
	b.t.Helper()
	for _, file := range b.sim.Files(b.item.ID) {
		if file.Name != name {
			continue
		}
		content, err := b.sim.OpenFile(file.ID)
		if err != nil {
			b.t.Fatal(err)
		}
		defer content.Close()
		data, err := io.ReadAll(content)
		if err != nil {
			b.t.Fatal(err)
		}
		return string(data)
	}
	return ""
}

// asked counts the requests to Girder.
func (b *bench) asked(method, suffix string) int {
	n := 0
	for _, r := range b.sim.Requests() {
		if r.Method == method && strings.HasSuffix(r.Path, suffix) {
			n++
		}
	}
	return n
}
