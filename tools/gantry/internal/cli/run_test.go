package cli_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
)

func ptr[T any](v T) *T { return &v }

func TestRunExitsLikeTheTask(t *testing.T) {
	t.Parallel()
	server := newSubmissions(t)
	for name, c := range map[string]struct {
		end    contracts.EntryData
		code   int
		stderr string
	}{
		"success":         {&contracts.Succeeded{}, 0, ""},
		"exit code 3":     {&contracts.Failed{Kind: contracts.FailureTask, ExitCode: ptr(3), Message: "it exited with 3"}, 3, "failed: it exited with 3"},
		"no output":       {&contracts.Failed{Kind: contracts.FailureTask, ExitCode: ptr(0), Message: "out.csv is missing"}, 125, "out.csv is missing"},
		"no image":        {&contracts.Failed{Kind: contracts.FailureTask, Message: "no such image"}, 125, "no such image"},
		"lost worker":     {&contracts.Failed{Kind: contracts.FailureInfrastructure, ExitCode: ptr(3), Message: "lost"}, 125, "lost"},
		"took too long":   {&contracts.Failed{Kind: contracts.FailureTimeout, ExitCode: ptr(137), Message: "12 h are over"}, 124, "12 h are over"},
		"came too late":   {&contracts.Failed{Kind: contracts.FailureExpired, Message: "expired"}, 124, "expired"},
		"canceled by ann": {nil, 130, "was canceled by ann: enough"},
	} {
		x := newTerminal()
		ended := x.start(server.Server, "run", "img")
		life := server.begin(t, server.next(t)).run()
		if c.end == nil {
			life.say(&contracts.Canceling{By: "ann", Reason: "enough"})
			c.end = &contracts.Canceled{By: "ann", Reason: "enough"}
		}
		life.say(c.end)
		if code := <-ended; code != c.code {
			t.Errorf("%s: exit code %d, want %d", name, code, c.code)
		}
		if got := x.stderr.String(); c.stderr == "" && got != "" || !strings.Contains(got, c.stderr) {
			t.Errorf("%s: stderr is %q, want in it %q", name, got, c.stderr)
		}
		if got := x.stdout.String(); got != "" {
			t.Errorf("%s: stdout is %q", name, got)
		}
	}
}

func TestRunPassesTheLogOnByteForByte(t *testing.T) {
	t.Parallel()
	server := newSubmissions(t)
	x := newTerminal()
	ended := x.start(server.Server, "run", "img")
	life := server.begin(t, server.next(t)).run()
	life.log(contracts.LogStdout, "no newline, \xff\x00\xfe")
	life.log(contracts.LogStderr, "warning\r\n")
	life.note(contracts.NoteProgress, contracts.Progress{Total: ptr(2.0), Current: ptr(1.0)})
	life.log(contracts.LogStdout, "\x1b[1m the end")
	life.say(&contracts.Succeeded{})
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d", code)
	}
	if got, want := x.stdout.String(), "no newline, \xff\x00\xfe\x1b[1m the end"; got != want {
		t.Errorf("stdout is %q, want %q", got, want)
	}
	if got, want := x.stderr.String(), "warning\r\n"; got != want {
		t.Errorf("stderr is %q, want %q", got, want)
	}
}

func TestRunSaysWhatIsMissingOfTheLog(t *testing.T) {
	t.Parallel()
	server := newSubmissions(t)
	x := newTerminal()
	ended := x.start(server.Server, "run", "img")
	life := server.begin(t, server.next(t)).run()
	life.log(contracts.LogStdout, "head\n")
	life.logAt(1005, contracts.LogStdout, "tail\n")
	life.say(&contracts.Succeeded{LogSeq: 2})
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d", code)
	}
	want := "gantry: 1000 bytes are missing here, from byte 5 of the log on: it is longer than its limit\n"
	if x.stdout.String() != "head\ntail\n" || x.stderr.String() != want {
		t.Errorf("stdout %q, stderr %q, want %q", x.stdout.String(), x.stderr.String(), want)
	}
}

func TestRunShowsProgress(t *testing.T) {
	t.Parallel()
	server := newSubmissions(t)
	play := func(x *terminal, want string, args ...string) {
		ended := x.start(server.Server, append(append([]string{"run"}, args...), "img")...)
		life := server.begin(t, server.next(t)).run()
		life.note(contracts.NotePhase, contracts.Phase{Phase: contracts.PhaseRunning})
		life.note(contracts.NoteProgress, contracts.Progress{Total: ptr(4.0), Current: ptr(1.0), Message: "tile 1"})
		life.log(contracts.LogStdout, "hello\n")
		x.stderr.await(t, want)
		life.say(&contracts.Succeeded{})
		if code := <-ended; code != 0 {
			t.Errorf("exit code %d: %s", code, x.stderr.String())
		}
		if got := strings.ReplaceAll(x.stdout.String(), "\r\x1b[K", ""); got != "hello\n" {
			t.Errorf("stdout is %q", got)
		}
	}
	bar := newTerminal()
	bar.isTerminal = true
	play(bar, " 25%  running  tile 1")
	if !strings.HasSuffix(bar.stderr.String(), "\r\x1b[K") {
		t.Errorf("the moving line is left: %q", bar.stderr.String())
	}
	plain := newTerminal()
	play(plain, "gantry: running  [#####---------------] 25%  tile 1\n", "--progress=plain")
	none := newTerminal()
	none.isTerminal = true
	play(none, "gantry: job ", "--progress=none")
	if got := none.stderr.String(); strings.Contains(got, "25%") {
		t.Errorf("stderr is %q", got)
	}
}

// TestRunSaysWhyNothingMoves: for as long as it does not.
func TestRunSaysWhyNothingMoves(t *testing.T) {
	t.Parallel()
	server := newSubmissions(t)
	play := func(x *terminal, stuck, moves string, args ...string) {
		ended := x.start(server.Server, append(append([]string{"run"}, args...), "img")...)
		life := server.begin(t, server.next(t))
		life.say(&contracts.Claimed{Node: "node-1", Executor: "ex-1"})
		phase := contracts.Phase{Phase: contracts.PhaseFetchingInput, What: "big.tif", Bytes: 412e6, Of: 1e9, Waiting: "Girder answers 503 Service Unavailable"}
		life.note(contracts.NotePhase, phase)
		x.stderr.await(t, stuck)
		phase.Waiting, phase.Rate = "", 105e6
		life.note(contracts.NotePhase, phase)
		x.stderr.await(t, moves)
		life.say(&contracts.Started{Container: "c"})
		life.say(&contracts.Succeeded{})
		if code := <-ended; code != 0 {
			t.Errorf("exit code %d: %s", code, x.stderr.String())
		}
		all := x.stderr.String()
		if after := all[strings.LastIndex(all, moves):]; strings.Contains(after, "waiting: Girder") {
			t.Errorf("still there when it moves: %q", after)
		}
	}
	bar := newTerminal()
	bar.isTerminal = true
	play(bar, " 41%  fetching input  waiting: Girder answers 503 Service Unavailable", " 41%  fetching input big.tif  412 MB of 1.0 GB  105 MB/s")
	play(newTerminal(), "big.tif  [########------------] 41%  412 MB of 1.0 GB  waiting: Girder answers 503 Service Unavailable\n",
		"big.tif  [########------------] 41%  412 MB of 1.0 GB  105 MB/s  6 s left\n", "--progress=plain")
}

func TestRunTellsWarnings(t *testing.T) {
	t.Parallel()
	server := newSubmissions(t)
	x := newTerminal()
	ended := x.start(server.Server, "run", "--time-limit=1h", "--soft-time-limit=30m", "img")
	task := server.next(t)
	if task.Limits == nil || time.Duration(task.Limits.Time) != time.Hour || time.Duration(task.Limits.SoftTime) != 30*time.Minute {
		t.Errorf("limits %+v", task.Limits)
	}
	life := server.begin(t, task).run()
	life.say(&contracts.Failed{Kind: contracts.FailureInfrastructure, Message: "gone", WillRetry: true, Warnings: []string{"early"}})
	life.say(&contracts.Queued{Reason: contracts.QueuedRetry})
	life.run().say(&contracts.Failed{Kind: contracts.FailureTimeout, Message: "time limit of 1h reached", Warnings: []string{"no artifacts\nhere"}})
	if code := <-ended; code != 124 {
		t.Errorf("exit code %d", code)
	}
	want := "gantry: attempt 1 failed and will be tried again: gone\ngantry: warning: early\n" +
		"gantry: warning: no artifacts here\ngantry: job " + string(task.ID) + " ran too long: time limit of 1h reached\n"
	if got := x.stderr.String(); got != want {
		t.Errorf("stderr is %q, want %q", got, want)
	}
}

func TestRunTellsOfARetry(t *testing.T) {
	t.Parallel()
	server := newSubmissions(t)
	x := newTerminal()
	ended := x.start(server.Server, "run", "img")
	life := server.begin(t, server.next(t)).run()
	life.say(&contracts.Failed{Kind: contracts.FailureInfrastructure, Message: "the engine is gone", WillRetry: true})
	life.say(&contracts.Queued{Reason: contracts.QueuedRetry})
	life.run().say(&contracts.Succeeded{})
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d", code)
	}
	x.wantStderr(t, "gantry: attempt 1 failed and will be tried again: the engine is gone\n")
}

func TestRunDetached(t *testing.T) {
	t.Parallel()
	server := newSubmissions(t)
	x := newTerminal()
	if code := x.run(append(at(server.Server), "run", "-d", "--id=mine", "img")...); code != 0 || x.stdout.String() != "mine\n" {
		t.Errorf("exit code %d, stdout %q", code, x.stdout.String())
	}
	if task := server.next(t); task.ID != "mine" {
		t.Errorf("published %+v", task)
	}
}

func TestRunWithAnIDOfAnotherTask(t *testing.T) {
	t.Parallel()
	server := newSubmissions(t)
	server.begin(t, &contracts.Task{Version: 1, ID: "used", Name: contracts.TaskDockerRun, Docker: &contracts.DockerRun{Image: "other"}}).
		run().say(&contracts.Succeeded{})
	x := newTerminal()
	if code := x.run(append(at(server.Server), "run", "--id=used", "img")...); code != 125 {
		t.Errorf("exit code %d", code)
	}
	x.wantStderr(t, "the id used belongs to another task already")
}

// revokes sees the revokes that are published, one of each job.
func (s *submissions) revokes(t *testing.T) func() *contracts.Revoke {
	t.Helper()
	sub, err := s.client.Conn().SubscribeSync(contracts.RevokeAll)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.client.Conn().Flush(); err != nil {
		t.Fatal(err)
	}
	seen := map[contracts.JobID]bool{}
	return func() *contracts.Revoke {
		t.Helper()
		for {
			msg, err := sub.NextMsgWithContext(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			revoke, err := contracts.DecodeRevoke(msg.Data, contracts.RevokedJob(msg.Subject))
			if err != nil {
				t.Fatal(err)
			}
			if !seen[revoke.Job] {
				seen[revoke.Job] = true
				return revoke
			}
		}
	}
}

func TestInterruptCancels(t *testing.T) {
	t.Parallel()
	server := newSubmissions(t)
	nextRevoke := server.revokes(t)
	x := newTerminal()
	ended := x.start(server.Server, "run", "img")
	life := server.begin(t, server.next(t)).run()
	x.signals <- os.Interrupt
	revoke := nextRevoke()
	if revoke.Job != life.job || revoke.By == "" || !revoke.Terminate {
		t.Errorf("revoke is %+v", revoke)
	}
	life.say(&contracts.Canceling{By: revoke.By})
	life.log(contracts.LogStdout, "told to stop\n")
	life.say(&contracts.Canceled{By: revoke.By})
	if code := <-ended; code != 130 {
		t.Errorf("exit code %d", code)
	}
	if got := x.stdout.String(); got != "told to stop\n" {
		t.Errorf("stdout is %q", got)
	}
	x.wantStderr(t, fmt.Sprintf("gantry: canceling %s; once more leaves it to itself\n", life.job))
	x.wantStderr(t, "was canceled by "+revoke.By)
}

func TestSecondInterruptLeaves(t *testing.T) {
	t.Parallel()
	server := newSubmissions(t)
	nextRevoke := server.revokes(t)
	x := newTerminal()
	ended := x.start(server.Server, "run", "img")
	life := server.begin(t, server.next(t)).run()
	x.signals <- syscall.SIGTERM
	nextRevoke()
	x.signals <- os.Interrupt
	if code := <-ended; code != 130 {
		t.Errorf("exit code %d", code)
	}
	x.wantStderr(t, fmt.Sprintf("gantry: left job %s while it is being canceled", life.job))
}

func TestSubmitAndWait(t *testing.T) {
	t.Parallel()
	server := newSubmissions(t)
	x := newTerminal()
	x.stdin = strings.NewReader(`{"task":"docker_run","docker":{"image":"img"}}`)
	ended := x.start(server.Server, "submit", "--wait", "-f", "-")
	server.begin(t, server.next(t)).run().say(&contracts.Failed{Kind: contracts.FailureTask, ExitCode: ptr(9), Message: "nine"})
	if code := <-ended; code != 9 {
		t.Errorf("exit code %d", code)
	}
	entry, err := contracts.DecodeEntry([]byte(x.stdout.String()))
	if err != nil || entry.Data.(*contracts.Failed).Message != "nine" {
		t.Errorf("stdout is %q: %v", x.stdout.String(), err)
	}
}

func TestInterruptEndsAWait(t *testing.T) {
	t.Parallel()
	server := newSubmissions(t)
	x := newTerminal()
	x.stdin = strings.NewReader(`{"task":"docker_run","docker":{"image":"img"}}`)
	ended := x.start(server.Server, "submit", "--wait", "-f", "-")
	server.next(t)
	x.signals <- os.Interrupt
	if code := <-ended; code != 130 {
		t.Errorf("exit code %d: %s", code, x.stderr.String())
	}
}

func TestJobsCancel(t *testing.T) {
	t.Parallel()
	server := newSubmissions(t)
	nextRevoke := server.revokes(t)
	task := &contracts.Task{Version: 1, Name: contracts.TaskDockerRun, Docker: &contracts.DockerRun{Image: "img"}}
	task.ID = "done"
	server.begin(t, task).run().say(&contracts.Succeeded{})
	task.ID = "runs"
	running := server.begin(t, task).run()

	x := newTerminal()
	ended := x.start(server.Server, "jobs", "cancel", "--wait", "--reason=enough", "--signal=SIGINT", "--grace=3s", "runs")
	revoke := nextRevoke()
	if revoke.Job != "runs" || revoke.Reason != "enough" || revoke.SignalOrDefault() != "SIGINT" || revoke.GraceOrDefault() != 3*time.Second {
		t.Errorf("revoke is %+v", revoke)
	}
	running.say(&contracts.Canceling{})
	running.say(&contracts.Canceled{Reason: revoke.Reason})
	if code := <-ended; code != 0 || x.stdout.String() != "job runs was canceled: enough\n" {
		t.Errorf("exit code %d, stdout %q", code, x.stdout.String())
	}

	x = newTerminal()
	if code := x.run(append(at(server.Server), "jobs", "cancel", "done", "later")...); code != 0 {
		t.Errorf("exit code %d: %s", code, x.stderr.String())
	}
	want := "job done succeeded before\nno job has the id later now; if it comes within 7 days it is canceled before it runs\n"
	if got := x.stdout.String(); got != want {
		t.Errorf("stdout is %q, want %q", got, want)
	}
	if revoke := nextRevoke(); revoke.Job != "later" {
		t.Errorf("revoke is %+v", revoke)
	}
}
