package projection

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
)

var at = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func play(t *testing.T, all ...contracts.EntryData) *contracts.Job {
	t.Helper()
	job := &contracts.Job{ID: "job"}
	var last *contracts.Entry
	for i, data := range all {
		next := contracts.NextEntry(last, "job", "test", data)
		if err := contracts.CheckNext(last, next); err != nil {
			t.Fatal(err)
		}
		next.Time = at.Add(time.Duration(i) * time.Second)
		if !apply(job, next, uint64(10*(i+1))) {
			t.Errorf("%s was not applied", next.Type)
		}
		if apply(job, next, uint64(10*(i+1))) {
			t.Errorf("%s was applied twice", next.Type)
		}
		last = next
	}
	return job
}

func submission() *contracts.Submitted {
	priority := 8
	return &contracts.Submitted{SubmittedAt: at, Task: &contracts.Task{
		Version: 1, Name: contracts.TaskDockerRun, Priority: &priority, Docker: &contracts.DockerRun{Image: "img"},
		Labels: map[string]string{"a": "b"}, Girder: &contracts.Girder{Job: &contracts.GirderJob{Title: "T"}},
	}}
}

var (
	queued  = &contracts.Queued{Lane: "high", Queue: "gpu", Kind: "docker", Reason: contracts.QueuedSubmit}
	claimed = &contracts.Claimed{Node: "n", Executor: "e"}
	started = &contracts.Started{Container: "0123456789abcdef"}
)

func TestApply(t *testing.T) {
	t.Parallel()
	code := 137
	for name, c := range map[string]struct {
		life   []contracts.EntryData
		want   contracts.Job
		detail string
	}{
		"queued": {
			[]contracts.EntryData{submission(), queued},
			contracts.Job{Status: contracts.StatusQueued}, "in queue gpu, priority high",
		},
		"claimed": {
			[]contracts.EntryData{submission(), queued, claimed},
			contracts.Job{Status: contracts.StatusClaimed, Attempt: 1, Node: "n", Executor: "e"}, "by executor e on node n",
		},
		"running": {
			[]contracts.EntryData{submission(), queued, claimed, started},
			contracts.Job{Status: contracts.StatusRunning, Attempt: 1, Node: "n", Executor: "e", Container: "0123456789abcdef", StartedAt: at.Add(3 * time.Second)},
			"container 0123456789ab",
		},
		"given back": {
			[]contracts.EntryData{submission(), queued, claimed, &contracts.Released{Node: "n", Executor: "e"}},
			contracts.Job{Status: contracts.StatusQueued, Attempt: 1}, "given back by executor e on node n before its container started, to be claimed again",
		},
		"given back for a reason": {
			[]contracts.EntryData{submission(), queued, claimed, &contracts.Released{Node: "n", Executor: "e", Reason: "the engine does not answer"}},
			contracts.Job{Status: contracts.StatusQueued, Attempt: 1, Message: "the engine does not answer"},
			"given back by executor e on node n before its container started, to be claimed again: the engine does not answer",
		},
		"given back for a long reason": {
			[]contracts.EntryData{submission(), queued, claimed, &contracts.Released{Node: "n", Executor: "e", Reason: strings.Repeat("x", 1000)}},
			contracts.Job{Status: contracts.StatusQueued, Attempt: 1, Message: strings.Repeat("x", 1000)},
			"given back by executor e on node n before its container started, to be claimed again: " + strings.Repeat("x", 400) + " …",
		},
		"given back and claimed again": {
			[]contracts.EntryData{submission(), queued, claimed, &contracts.Released{Node: "n", Executor: "e", Reason: "the engine does not answer"}, claimed},
			contracts.Job{Status: contracts.StatusClaimed, Attempt: 2, Node: "n", Executor: "e"}, "by executor e on node n",
		},
		"given back and canceled": {
			[]contracts.EntryData{submission(), queued, claimed, &contracts.Released{Node: "n", Executor: "e", Reason: "the engine does not answer"}, &contracts.Canceled{By: "ann"}},
			contracts.Job{Status: contracts.StatusCanceled, Attempt: 1, EndedAt: at.Add(4 * time.Second)}, "by ann",
		},
		"taken over": {
			[]contracts.EntryData{submission(), queued, claimed, started, &contracts.Claimed{Node: "m", Executor: "f"}},
			contracts.Job{Status: contracts.StatusClaimed, Attempt: 2, Crashes: 1, Node: "m", Executor: "f"}, "by executor f on node m, which takes over: attempt 1 was lost with executor e on node n",
		},
		"adopted": {
			[]contracts.EntryData{submission(), queued, claimed, started, &contracts.Adopted{Node: "n", Executor: "f"}},
			contracts.Job{Status: contracts.StatusRunning, Attempt: 1, Node: "n", Executor: "f", Container: "0123456789abcdef", StartedAt: at.Add(3 * time.Second)},
			"executor f on node n goes on where executor e stopped, with the same container",
		},
		"adopted before it ran": {
			[]contracts.EntryData{submission(), queued, claimed, &contracts.Adopted{Node: "n", Executor: "f"}},
			contracts.Job{Status: contracts.StatusClaimed, Attempt: 1, Node: "n", Executor: "f"},
			"executor f on node n goes on where executor e stopped",
		},
		"succeeded": {
			[]contracts.EntryData{
				submission(), queued, claimed, started, &contracts.Pushing{},
				&contracts.Pushed{Files: []contracts.GirderSent{{Name: "x"}}},
				&contracts.Succeeded{Timings: contracts.Timings{Ended: at}, Warnings: []string{"no artifacts here"}},
			},
			contracts.Job{
				Status: contracts.StatusSucceeded, Attempt: 1, Node: "n", Executor: "e", Container: "0123456789abcdef", StartedAt: at.Add(3 * time.Second),
				EndedAt: at.Add(6 * time.Second), ExitCode: new(int), Outputs: []contracts.GirderSent{{Name: "x"}}, Timings: contracts.Timings{Ended: at},
				Warnings: []string{"no artifacts here"},
			}, "exit code 0",
		},
		"failed": {
			[]contracts.EntryData{submission(), queued, claimed, started, &contracts.Failed{
				Kind: contracts.FailureTask, Message: "killed", ExitCode: &code, OOMKilled: true,
				Warnings: []string{"no artifacts here"}, Outputs: []contracts.GirderSent{{Name: "x"}},
			}},
			contracts.Job{
				Status: contracts.StatusFailed, Attempt: 1, Failures: 1, Node: "n", Executor: "e", Container: "0123456789abcdef", StartedAt: at.Add(3 * time.Second),
				EndedAt: at.Add(4 * time.Second), ExitCode: &code, Failure: contracts.FailureTask, Message: "killed",
				Warnings: []string{"no artifacts here"}, Outputs: []contracts.GirderSent{{Name: "x"}},
			}, "failure: killed (out of memory)",
		},
		"to be retried": {
			[]contracts.EntryData{submission(), queued, claimed, &contracts.Failed{Kind: contracts.FailureInfrastructure, Message: "engine", WillRetry: true, RetryAt: at}},
			contracts.Job{
				Status: contracts.StatusRetrying, Attempt: 1, Crashes: 1, Node: "n", Executor: "e",
				Failure: contracts.FailureInfrastructure, Message: "engine",
			}, "infrastructure, not the task's own failure: engine, tried again at 2026-01-02T03:04:05Z",
		},
		"canceled": {
			[]contracts.EntryData{submission(), queued, &contracts.Canceled{By: "ann", Reason: "wrong file"}},
			contracts.Job{Status: contracts.StatusCanceled, EndedAt: at.Add(2 * time.Second), Message: "wrong file"}, "by ann: wrong file",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			job := play(t, c.life...)
			last := job.History[len(job.History)-1]
			if last.Detail != c.detail || len(job.History) != len(c.life) || last.Type != c.life[len(c.life)-1].EntryType() {
				t.Errorf("history %+v", job.History)
			}
			want := c.want
			want.ID, want.Task, want.Title, want.Image, want.Queue, want.Priority = "job", contracts.TaskDockerRun, "T", "img", "gpu", 8
			want.Labels, want.SubmittedAt, want.LifeSeq = map[string]string{"a": "b"}, at, uint64(10*len(c.life))
			want.Girder, want.History = &contracts.GirderMirror{}, job.History
			if diff := cmp.Diff(&want, job); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestANewAttemptForgetsTheLast(t *testing.T) {
	t.Parallel()
	code := 1
	job := play(t, submission(), queued, claimed, started,
		&contracts.Failed{Kind: contracts.FailureTask, Message: "no", ExitCode: &code, WillRetry: true, Warnings: []string{"w"}}, queued, claimed)
	if job.ExitCode != nil || job.Warnings != nil || job.Failure != "" || job.Message != "" || job.Container != "" || job.Attempt != 2 || job.Failures != 1 {
		t.Errorf("%+v", job)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	job := &contracts.Job{}
	for seq := range uint64(contracts.MaxHistory + 50) {
		apply(job, &contracts.Entry{Type: contracts.EntryPushed, Data: &contracts.Pushed{Index: int(seq)}}, seq+1)
	}
	if len(job.History) != contracts.MaxHistory || job.History[0].Detail != "output 0 is in Girder (0 files)" {
		t.Errorf("%d lines, the first %+v", len(job.History), job.History[0])
	}
}

func TestNotesOfEarlierAttemptsDoNotCount(t *testing.T) {
	t.Parallel()
	note := func(kind contracts.NoteType, attempt int, data any) *contracts.Note {
		note, err := contracts.NewNote(kind, attempt, 1, data)
		if err != nil {
			t.Fatal(err)
		}
		return note
	}
	one, two := 1.0, 2.0
	place := func(seq uint64) client.Position {
		return client.Position{Seq: seq, Time: at.Add(time.Duration(seq) * time.Second)}
	}
	heard := &said{}
	heard.hear(place(1), note(contracts.NoteProgress, 1, contracts.Progress{Current: &one}))
	heard.hear(place(2), note(contracts.NotePhase, 2, contracts.Phase{Phase: contracts.PhaseRunning}))
	heard.hear(place(3), note(contracts.NoteProgress, 2, contracts.Progress{Current: &two}))
	heard.hear(place(4), note(contracts.NoteProgress, 1, contracts.Progress{Current: &one}))
	heard.hear(place(2), note(contracts.NoteProgress, 2, contracts.Progress{Current: &one})) // again, by a second reader
	job := &contracts.Job{Attempt: 1, LifeSeq: 1}
	if heard.apply(job) || !heard.early {
		t.Errorf("stored before the attempt is known: %+v", job)
	}
	job.Attempt = 2
	if !heard.apply(job) || heard.early || *job.Progress.Current != 2 || job.Phase.Phase != contracts.PhaseRunning {
		t.Errorf("%+v", job)
	}
	again := place(5)
	again.Seq = 2 // of a server that lost what it had
	heard.hear(again, note(contracts.NoteProgress, 2, contracts.Progress{Current: &one}))
	if !heard.apply(job) || *job.Progress.Current != 1 {
		t.Errorf("a note in place of one that was lost does not count: %+v", job.Progress)
	}
	job.Attempt = 3
	if heard.apply(job) {
		t.Error("stored for a later attempt")
	}
}

func TestWhatMayGrowIsBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ä", 20000)
	job := &contracts.Job{}
	for seq := range uint64(300) {
		apply(job, &contracts.Entry{Type: contracts.EntryFailed, Data: &contracts.Failed{Message: long, WillRetry: true, Warnings: slices.Repeat([]string{long}, 300)}}, 2*seq+1)
		apply(job, &contracts.Entry{Type: contracts.EntryPushed, Data: &contracts.Pushed{Files: make([]contracts.GirderSent, 30)}}, 2*seq+2)
	}
	data, err := json.Marshal(job)
	if err != nil || len(data) > 512<<10 {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	if len(job.Warnings) != maxWarnings {
		t.Errorf("%d warnings", len(job.Warnings))
	}
	if job.Message != long {
		t.Error("the message of a failure is not whole")
	}
}
