package conformance

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// patience bounds everything that one test waits for: it is no measurement, and
// a machine may have much else to do.
const patience = 10 * time.Minute

// shared is the Gantry of all tests that need none of their own.
var shared = setup.Shared{Config: setup.Config{Slots: 6, Env: permissive()}, Patience: patience}

// permissive lets tasks do what Girder Worker let them do. A container that heeds
// its stop signal has the time for it.
func permissive() map[string]string {
	return map[string]string{
		"GANTRY_ALLOW_BIND": os.TempDir() + ":rw", "GANTRY_ALLOW_OPTIONS": "all", "GANTRY_MAX_GRACE": patience.String(),
		"SSL_CERT_FILE": authority.file,
	}
}

func TestMain(m *testing.M) {
	code := setup.Main(m, &shared)
	_ = os.RemoveAll(filepath.Dir(authority.file)) // it is temporary
	os.Exit(code)
}

// stage is a running Gantry in the hands of one test.
type stage struct {
	*setup.Gantry
	t     *testing.T
	image string
}

// start returns the shared Gantry. The test runs beside the others.
func start(t *testing.T) *stage {
	t.Helper()
	t.Parallel()
	return stageOf(t, shared.Of(t))
}

// alone returns a Gantry of the test's own.
func alone(t *testing.T, cfg setup.Config) *stage {
	t.Helper()
	t.Parallel()
	env := permissive()
	for name, value := range cfg.Env {
		env[name] = value
	}
	cfg.Env = env
	cfg.Patience = cmp.Or(cfg.Patience, patience)
	return stageOf(t, setup.Start(t, cfg))
}

func stageOf(t *testing.T, g *setup.Gantry) *stage {
	t.Helper()
	return &stage{Gantry: g, t: t, image: image(t, g.Engine)}
}

var program struct {
	sync.Once
	binary []byte
}

// image is the one of all containers: busybox, and what it cannot do.
func image(t *testing.T, e *setup.Engine, changes ...string) string {
	t.Helper()
	program.Do(func() { program.binary = setup.Program(t, "./program") })
	if program.binary == nil {
		t.Fatal("the program of the test image could not be built")
	}
	return e.ImportWith("gantry-conformance", program.binary, changes...)
}

// command is a task that runs a command; an argument is a string or a transform.
func (s *stage) command(args ...any) *contracts.Task {
	docker := &contracts.DockerRun{
		Image: s.image, Pull: contracts.PullNever,
		Options: contracts.DockerOptions{NetworkMode: "none"},
	}
	for _, arg := range args {
		switch arg := arg.(type) {
		case string:
			docker.Args = append(docker.Args, contracts.Arg{Text: arg})
		case contracts.Transform:
			docker.Args = append(docker.Args, contracts.Arg{Transform: arg})
		default:
			s.t.Fatalf("%T is no argument", arg)
		}
	}
	task := &contracts.Task{Name: contracts.TaskDockerRun, Docker: docker, Girder: s.Girder.Of(s.t.Name())}
	return task
}

// script is a task that runs a script of the shell; $1 and so on are the
// arguments.
func (s *stage) script(text string, args ...any) *contracts.Task {
	return s.command(append([]any{"sh", "-c", text, "sh"}, args...)...)
}

// submit submits a task. At the test's end nothing may be left of it; what is
// known of it is shown if the test failed.
func (s *stage) submit(task *contracts.Task) contracts.JobID {
	s.t.Helper()
	job := s.MustSubmit(task)
	s.watch(job)
	return job
}

// publish submits a specification as any program may that can write JSON.
func (s *stage) publish(text string) contracts.JobID {
	s.t.Helper()
	job := contracts.NewJobID()
	text = strings.Replace(text, "{", fmt.Sprintf(`{"version": 1, "id": %q, "task": "docker_run", `, job), 1)
	if _, err := s.JetStream().Publish(s.Context(), "tasks.submit", []byte(text)); err != nil {
		s.t.Fatalf("publish: %v", err)
	}
	s.watch(job)
	return job
}

func (s *stage) watch(job contracts.JobID) {
	s.t.Cleanup(func() {
		if s.t.Failed() {
			s.t.Log(s.Story(job))
			return
		}
		s.awaitNothing("what is left of "+string(job), func() []string { return s.left(job) })
	})
}

// left is what there is of an attempt of a job: containers that nobody wanted to
// keep, and folders.
func (s *stage) left(job contracts.JobID) []string {
	all := s.Engine.Containers("gantry.job=" + string(job))
	all = slices.DeleteFunc(all, func(id string) bool { return slices.Contains(s.Engine.Containers("gantry.keep=true"), id) })
	for _, node := range s.Nodes {
		folders, err := filepath.Glob(filepath.Join(node.WorkRoot, "attempts", string(job)+".*"))
		if err != nil {
			s.t.Fatal(err)
		}
		all = append(all, folders...)
	}
	return all
}

// awaitNothing waits until nothing is found any more. It has to look again and
// again: what is removed tells nobody.
func (s *stage) awaitNothing(what string, find func() []string) {
	s.t.Helper()
	s.await(what, func() error {
		if found := find(); len(found) > 0 {
			return fmt.Errorf("there are %v", found)
		}
		return nil
	})
}

// await waits until something is so, of which nobody is told.
func (s *stage) await(what string, check func() error) {
	s.t.Helper()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-again.C:
		case <-s.Context().Done():
			s.t.Fatalf("%s: %v", what, err)
		}
	}
}

// ending is a job that has ended, with all that there is to see of it.
type ending struct {
	*stage
	job contracts.JobID
	// entry is the last one of its life, and data what it says.
	entry *contracts.Entry
	// log is all of it, stdout and stderr are its streams.
	log, stdout, stderr string
	// girder is the Girder job.
	girder girdersim.Job
}

// run runs a task to its end.
func (s *stage) run(task *contracts.Task) *ending {
	s.t.Helper()
	return s.end(s.submit(task))
}

// end waits for a job's end.
func (s *stage) end(job contracts.JobID) *ending {
	s.t.Helper()
	e := &ending{stage: s, job: job, entry: s.AwaitEnd(job)}
	all, streams := s.JobLog(job)
	e.log, e.stdout, e.stderr = all, streams[contracts.LogStdout], streams[contracts.LogStderr]
	if submitted, ok := s.life(job)[0].Data.(*contracts.Submitted); ok && submitted.Task.HasGirderJob() {
		e.girder = s.AwaitMirrored(job)
	}
	return e
}

func (s *stage) life(job contracts.JobID) []*contracts.Entry {
	s.t.Helper()
	life, err := s.Life(s.Context(), job)
	if err != nil || len(life) == 0 {
		s.t.Fatalf("life of %s: %v, %v", job, life, err)
	}
	return life
}

// succeed runs a task, which has to succeed at once, as Girder saw too.
func (s *stage) succeed(task *contracts.Task) *ending {
	s.t.Helper()
	return s.run(task).succeeded()
}

func (e *ending) succeeded() *ending {
	e.t.Helper()
	if e.entry.Type != contracts.EntrySucceeded {
		e.t.Fatalf("the job %s: %+v; its log is %q", e.entry.Type, e.entry.Data, brief(e.log))
	}
	if e.entry.Attempt != 1 {
		e.t.Errorf("the job succeeded in attempt %d", e.entry.Attempt)
	}
	e.statuses("RUNNING", "SUCCESS")
	return e
}

// fail runs a task, which has to fail by its own fault, as Girder saw too. The
// message has to have all the words.
func (s *stage) fail(task *contracts.Task, words ...string) *ending {
	s.t.Helper()
	return s.run(task).failed(contracts.FailureTask, words...)
}

func (e *ending) failed(kind contracts.FailureKind, words ...string) *ending {
	e.t.Helper()
	failed, ok := e.entry.Data.(*contracts.Failed)
	if !ok {
		e.t.Fatalf("the job %s: %+v; its log is %q", e.entry.Type, e.entry.Data, brief(e.log))
	}
	if failed.Kind != kind {
		e.t.Errorf("the failure's kind is %s, want %s: %s", failed.Kind, kind, failed.Message)
	}
	for _, word := range words {
		if !strings.Contains(failed.Message, word) {
			e.t.Errorf("the failure says %q, and nothing of %q", failed.Message, word)
		}
		if e.girder.ID != "" && !strings.Contains(setup.LogOf(e.girder), word) {
			e.t.Errorf("Girder's log is %q, without %q", brief(setup.LogOf(e.girder)), word)
		}
	}
	e.statuses("RUNNING", "ERROR")
	return e
}

func (e *ending) statuses(want ...string) {
	e.t.Helper()
	if got := setup.Statuses(e.girder); e.girder.ID != "" && !slices.Equal(got, want) {
		e.t.Errorf("Girder's history is %v, want %v", got, want)
	}
}

// wrote checks the job's log, in Gantry and in Girder.
func (e *ending) wrote(want string) *ending {
	e.t.Helper()
	if e.log != want {
		e.t.Errorf("the log is %q, want %q", brief(e.log), brief(want))
	}
	if got := setup.LogOf(e.girder); e.girder.ID != "" && got != want {
		e.t.Errorf("Girder's log is %q, want %q", brief(got), brief(want))
	}
	return e
}

// words are those of the log.
func (e *ending) words() []string { return strings.Fields(e.log) }

// lines are those of the log.
func (e *ending) lines() []string { return strings.Split(strings.TrimSuffix(e.log, "\n"), "\n") }

func brief(text string) string {
	const most = 2000
	if len(text) <= most {
		return text
	}
	return fmt.Sprintf("%s … (%d bytes)", text[:most], len(text))
}

// refused publishes a specification that has to be refused, with these words.
func (s *stage) refused(text string, words ...string) {
	s.t.Helper()
	end := s.end(s.publish(text))
	failed, ok := end.entry.Data.(*contracts.Failed)
	if !ok || failed.Kind != contracts.FailureRejected {
		s.t.Fatalf("the job %s: %+v, want it rejected", end.entry.Type, end.entry.Data)
	}
	for _, word := range words {
		if !strings.Contains(failed.Message, word) {
			s.t.Errorf("refused with %q, and nothing of %q", failed.Message, word)
		}
	}
}

// gone fails if a path is there.
func gone(path string) error {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("%s is there: %w", path, err)
}

// folder is a new folder of the host that any container user may use.
func folder(t *testing.T) string {
	t.Helper()
	path := t.TempDir()
	if err := errors.Join(os.Chmod(filepath.Dir(path), 0o755), os.Chmod(path, 0o777)); err != nil {
		t.Fatal(err)
	}
	return path
}

// write writes a file of the host.
func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// read reads a file of the host.
func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// volumePath and uploadTo are short for what many tasks have.
func volumePath(path string) *contracts.VolumePath { return &contracts.VolumePath{Path: path} }

func uploadTo(item girdersim.Item, path string) contracts.Output { return setup.UploadTo(item, path) }

func ptr[T any](v T) *T { return &v }

// shown is the progress of a Girder job as text.
func shown(e *ending) string {
	text, err := json.Marshal(e.girder.Progress)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
