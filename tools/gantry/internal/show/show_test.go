package show_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/tools/gantry/internal/show"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var now = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func before(d time.Duration) time.Time { return now.Add(-d) }

func ptr[T any](v T) *T { return &v }

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func failedJob() *contracts.Job {
	return &contracts.Job{
		ID: "01JD9ZK3N6Y1T0Q8W5M7R2C4XA", Status: contracts.StatusFailed, Task: "docker_run", Title: "Segment \x1b[31mlungs",
		Image: "my/image:1.2", Queue: "default", Priority: 5, Labels: map[string]string{"project": "lung", "run": "7"},
		Attempt: 2, Crashes: 1, Failures: 1, ExitCode: ptr(3), Failure: contracts.FailureTask,
		Message:     "Non-zero exit code from docker container (3).",
		SubmittedAt: before(10 * time.Minute), StartedAt: before(9 * time.Minute), EndedAt: before(5 * time.Minute),
		Node: "node-7f3a", Executor: "ex-1", Container: "0123456789abcdef0123456789abcdef",
		Progress: &contracts.Progress{Total: ptr(25.0), Current: ptr(13.0), Message: "tile 13"},
		Warnings: []string{"Girder takes no artifacts:\ndebug.log was left out", "the \x1b[31mcontainer was kept"},
		Outputs:  []contracts.GirderSent{{Name: "out.csv", FileID: "5f0e00000000000000000001", ItemID: "5f0e00000000000000000002", Size: 123456}},
		Timings: contracts.Timings{
			Claimed: before(590 * time.Second), Started: before(540 * time.Second),
			Exited: before(301 * time.Second), Ended: before(300 * time.Second),
		},
		Girder: &contracts.GirderMirror{ID: "5f", URL: "https://girder.example.org/api/v1/job/5f", Status: contracts.GirderError, Done: true},
		History: []contracts.HistoryEntry{
			{Type: contracts.EntrySubmitted, Time: before(10 * time.Minute), Source: "dispatcher/a"},
			{Type: contracts.EntryClaimed, Attempt: 1, Time: before(9 * time.Minute), Source: "docker-executor/ex-1", Detail: "node node-7f3a"},
			{Type: contracts.EntryFailed, Attempt: 2, Time: before(5 * time.Minute), Source: "docker-executor/ex-1", Detail: "exit code 3"},
		},
	}
}

// lateJob ran into its time limit.
func lateJob() *contracts.Job {
	return &contracts.Job{
		ID: "too-long", Status: contracts.StatusFailed, Task: "docker_run", Title: "img", Image: "img", Queue: "default", Priority: 5,
		Attempt: 1, Failures: 1, ExitCode: ptr(137), Failure: contracts.FailureTimeout, Message: "time limit of 12h reached",
		SubmittedAt: before(13 * time.Hour), StartedAt: before(13 * time.Hour), EndedAt: before(time.Hour),
	}
}

func runningJob() contracts.Job {
	return contracts.Job{
		ID: "nightly-7", Status: contracts.StatusRunning, Title: "my/image:1.2", Queue: "gpu", Attempt: 1, SubmittedAt: before(3 * time.Hour),
		StartedAt: before(90 * time.Second), Progress: &contracts.Progress{Total: ptr(4.0), Current: ptr(1.0)},
	}
}

// leftJob was adopted once and is left running now.
func leftJob() contracts.Job {
	job := runningJob()
	job.Node, job.Executor, job.Container, job.Crashes, job.Attempt = "node-7f3a", "ex-2", "0123456789abcdef", 1, 2
	return job
}

func TestTables(t *testing.T) {
	t.Parallel()
	list := &contracts.JobList{Jobs: []contracts.Job{runningJob(), *failedJob()}, Total: 12}
	workers := []contracts.Instance{
		{Service: "dispatcher", ID: "a1b2", Version: "v1.0.0 (go1.26 linux/amd64)", Started: before(time.Hour)},
		{Service: "docker-executor", ID: "ex-1", Node: "node-7f3a", Version: "v1.0.0", Started: before(72 * time.Hour), Queues: []contracts.Queue{"default", "gpu"}, Slots: 4, Running: 3, NotReady: "the disk is full"},
	}
	topology := []client.StreamState{
		{Name: "JOBS", Subjects: []string{"jobs.*.*"}, Messages: 1234, Bytes: 56789, Consumers: 2, Replicas: 1},
		{Name: "LIVE", Missing: true},
	}
	dead := []client.NumberedDeadLetter{{Seq: 7, DeadLetter: contracts.DeadLetter{
		Job: "twice", Queue: "default", Time: before(time.Minute), Reason: "id already used", Payload: "{\n  \"version\": 1\n}",
	}}}
	girder := &show.SimulatedGirder{URL: "http://127.0.0.1:8989", Login: "demo", Password: "demo-password", Tokens: "/data/girder-sim/seed.json"}
	for name, got := range map[string]string{
		"jobs":          show.Jobs(list, now, show.Style{}),
		"jobs_color":    show.Jobs(list, now, show.Style{Color: true}),
		"no_jobs":       show.Jobs(&contracts.JobList{}, now, show.Style{}),
		"job_failed":    show.Job(failedJob(), false, now, show.Style{}),
		"job_timeout":   show.Job(lateJob(), false, now, show.Style{}),
		"job_running":   show.Job(ptr(runningJob()), false, now, show.Style{}),
		"job_away":      show.Job(ptr(leftJob()), true, now, show.Style{}),
		"workers":       show.Workers(workers, now, show.Style{}),
		"no_workers":    show.Workers(nil, now, show.Style{}),
		"topology":      show.Topology(topology, show.Style{}),
		"dead":          show.DeadLetters(dead, now, show.Style{}),
		"no_dead":       show.DeadLetters(nil, now, show.Style{}),
		"dead_letter":   show.DeadLetter(&dead[0], now, show.Style{}),
		"summary":       show.Summary(show.Instance{NATS: "nats://127.0.0.1:4222", Embedded: true, Data: "/data", Work: "/data/work", Slots: 2, Queues: []string{"default"}, Girder: girder, Unsynced: true}, show.Style{}),
		"summary_short": show.Summary(show.Instance{NATS: "nats://nats:4222", Data: "/var/lib/gantry", DefaultData: true, Work: "/work", Slots: 1, Queues: []string{"a", "b"}, NoEngine: "unix:///var/run/docker.sock"}, show.Style{}),
	} {
		golden(t, name, got)
	}
}

func TestLiveAndPlainLines(t *testing.T) {
	t.Parallel()
	at := func(total, current float64, message string) *contracts.Progress {
		return &contracts.Progress{Total: &total, Current: &current, Message: message}
	}
	running := &contracts.Phase{Phase: contracts.PhaseRunning}
	states := []show.Live{
		{},
		{Status: contracts.StatusQueued},
		{Status: contracts.StatusClaimed, Attempt: 1},
		{Status: contracts.StatusClaimed, Attempt: 1, Phase: &contracts.Phase{Phase: contracts.PhasePulling, What: "my/image", Bytes: 12e6, Of: 40e6}},
		{Status: contracts.StatusRunning, Attempt: 1},
		{Status: contracts.StatusRunning, Attempt: 2, Phase: running, Progress: at(25, 13, "tile 13\x1b[2J")},
		{Status: contracts.StatusRunning, Attempt: 1, Progress: at(0, 13, "no total")},
		{Status: contracts.StatusRunning, Attempt: 1, Phase: running, Progress: at(10, 99, strings.Repeat("long ", 40))},
		{Status: contracts.StatusPushing, Attempt: 1, Phase: &contracts.Phase{Phase: contracts.PhasePushingOutput, What: "out.csv"}, Progress: at(1, 1, "done")},
		{Status: contracts.StatusCanceling, Attempt: 1, Phase: running},
	}
	var live, plain strings.Builder
	for _, state := range states {
		state.Since = before(65*time.Second + 300*time.Millisecond)
		line := show.LiveLine(state, now, show.Style{Width: 80})
		if width := len([]rune(line)); width >= 80 {
			t.Errorf("%d columns of 80: %s", width, line)
		}
		live.WriteString(line + "\n")
		line, key := show.PlainLine(state)
		plain.WriteString(line + "  [" + key + "]\n")
	}
	golden(t, "live", live.String())
	golden(t, "plain", plain.String())
}

func TestEnd(t *testing.T) {
	t.Parallel()
	for want, data := range map[string]contracts.EntryData{
		"job x succeeded":                   &contracts.Succeeded{},
		"job x was canceled":                &contracts.Canceled{},
		"job x was canceled by ann: enough": &contracts.Canceled{By: "ann", Reason: "enough"},
		"job x failed: no such  [1mimage":   &contracts.Failed{Message: "no such \x1b[1mimage\n"},
		"job x ran too long: 12h are over":  &contracts.Failed{Kind: contracts.FailureTimeout, Message: "12h are over"},
		"job x expired: too late":           &contracts.Failed{Kind: contracts.FailureExpired, Message: "too late"},
	} {
		if got := show.End("x", &contracts.Entry{Data: data}); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	for _, entry := range []*contracts.Entry{
		{Data: &contracts.Succeeded{Warnings: []string{"a\n b", "c"}}}, {Data: &contracts.Failed{Warnings: []string{"a\n b", "c"}}},
	} {
		if diff := cmp.Diff([]string{"warning: a b", "warning: c"}, show.Warnings(entry)); diff != "" {
			t.Error(diff)
		}
	}
	if show.Warnings(nil) != nil || len(show.Warnings(&contracts.Entry{Data: &contracts.Canceled{}})) > 0 {
		t.Error("warnings of nothing")
	}
}

func TestStopping(t *testing.T) {
	t.Parallel()
	for running, want := range map[int]string{
		-1: "stopping, containers that run are left running: 'gantry --data /data up' goes on with them; once more quits at once",
		0:  "stopping, no task is running; once more quits at once",
		1:  "stopping, 1 container is left running: 'gantry --data /data up' goes on with it; once more quits at once",
		2:  "stopping, 2 containers are left running: 'gantry --data /data up' goes on with them; once more quits at once",
	} {
		if got := show.Stopping(show.Instance{Data: "/data"}, running); got != want {
			t.Errorf("%d: got %q, want %q", running, got, want)
		}
	}
}

func TestTurn(t *testing.T) {
	t.Parallel()
	running := &contracts.Entry{Type: contracts.EntryStarted, Attempt: 1, Data: &contracts.Started{}}
	queued := &contracts.Entry{Type: contracts.EntryQueued, Data: &contracts.Queued{}}
	for _, c := range []struct {
		before, entry *contracts.Entry
		want          string
	}{
		{running, &contracts.Entry{Attempt: 1, Data: &contracts.Adopted{Executor: "ex-2"}}, "executor ex-2 goes on with attempt 1, which another one left"},
		{running, &contracts.Entry{Attempt: 2, Crashes: 1, Data: &contracts.Claimed{Executor: "ex-2"}}, "attempt 1 was lost with its worker, executor ex-2 begins attempt 2"},
		{queued, &contracts.Entry{Attempt: 1, Data: &contracts.Claimed{Executor: "ex-2"}}, ""},
		{nil, queued, ""},
		{running, &contracts.Entry{Attempt: 1, Data: &contracts.Released{Executor: "ex-2"}}, "executor ex-2 gives attempt 1 back before its container started"},
		{
			running, &contracts.Entry{Attempt: 1, Data: &contracts.Released{Executor: "ex-2", Reason: "the engine\ndoes not answer"}},
			"executor ex-2 gives attempt 1 back before its container started: the engine does not answer",
		},
		{running, &contracts.Entry{Attempt: 1, Data: &contracts.Failed{Message: "engine gone", WillRetry: true}}, "attempt 1 failed and will be tried again: engine gone"},
		{running, &contracts.Entry{Attempt: 1, Data: &contracts.Failed{Message: "exit code 3"}}, ""},
	} {
		if got := show.Turn(c.before, c.entry); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestDuration(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Second: "0.0s", 1500 * time.Millisecond: "1.5s", 42 * time.Second: "42s",
		125 * time.Second: "2m05s", 3*time.Hour + 4*time.Minute: "3h04m", 73 * time.Hour: "3d",
	} {
		if got := show.Duration(d); got != want {
			t.Errorf("%d: got %q, want %q", d, got, want)
		}
	}
}
