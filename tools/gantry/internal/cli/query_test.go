package cli_test

import (
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
)

func TestLogs(t *testing.T) {
	t.Parallel()
	server := newSubmissions(t)
	task := &contracts.Task{Version: 1, ID: "failed", Name: contracts.TaskDockerRun, Docker: &contracts.DockerRun{Image: "img"}}
	life := server.begin(t, task).run()
	life.log(contracts.LogStdout, "out \xff\n")
	life.log(contracts.LogStderr, "err\n")
	life.say(&contracts.Failed{Kind: contracts.FailureTask, ExitCode: ptr(1), Message: "it broke"})
	for _, args := range [][]string{{"logs", "failed"}, {"logs", "-f", "failed"}} {
		x := newTerminal()
		if code := x.run(append(at(server.Server), args...)...); code != 0 {
			t.Errorf("%q: exit code %d", args, code)
		}
		if got, want := x.stdout.String(), "out \xff\n"; got != want {
			t.Errorf("%q: stdout is %q, want %q", args, got, want)
		}
		if got, want := x.stderr.String(), "err\ngantry: job failed failed: it broke\n"; got != want {
			t.Errorf("%q: stderr is %q, want %q", args, got, want)
		}
	}
}

func TestLogsFromAnOffset(t *testing.T) {
	t.Parallel()
	server := newSubmissions(t)
	task := &contracts.Task{Version: 1, ID: "long", Name: contracts.TaskDockerRun, Docker: &contracts.DockerRun{Image: "img"}}
	life := server.begin(t, task).run()
	life.log(contracts.LogStdout, "0123\n")
	life.log(contracts.LogStderr, "56\xff8\n")
	life.say(&contracts.Succeeded{LogSeq: 2, Warnings: []string{"Girder takes no artifacts:\ndebug.log was left out"}})
	const warning = "gantry: warning: Girder takes no artifacts: debug.log was left out\n"
	for offset, want := range map[string][2]string{
		"0": {"0123\n", "56\xff8\n"}, "2": {"23\n", "56\xff8\n"}, "7": {"", "\xff8\n"}, "10": {"", ""}, "99": {"", ""},
	} {
		for _, follow := range [][]string{nil, {"-f"}} {
			x := newTerminal()
			args := append(append(at(server.Server), "logs", "--offset="+offset, "long"), follow...)
			if code := x.run(args...); code != 0 || x.stdout.String() != want[0] || x.stderr.String() != want[1]+warning {
				t.Errorf("from %s %v: exit code %d, stdout %q, stderr %q", offset, follow, code, x.stdout.String(), x.stderr.String())
			}
		}
	}
	x := newTerminal()
	if code := x.run(append(at(server.Server), "logs", "--offset=6", "--json", "long")...); code != 0 {
		t.Errorf("exit code %d", code)
	}
	var piece contracts.LogPiece
	if err := json.Unmarshal([]byte(x.stdout.String()), &piece); err != nil || piece.Place != 6 || string(piece.Bytes()) != "6\xff8\n" {
		t.Errorf("%q is read as %+v, error %v", x.stdout.String(), piece, err)
	}
	x = newTerminal()
	if code := x.run(append(at(server.Server), "logs", "--offset=-1", "long")...); code != 2 {
		t.Errorf("exit code %d", code)
	}
	x.wantStderr(t, "--offset: -1 is below zero")
}

func TestLogsSayWhatIsMissing(t *testing.T) {
	t.Parallel()
	server := newSubmissions(t)
	task := &contracts.Task{Version: 1, ID: "flood", Name: contracts.TaskDockerRun, Docker: &contracts.DockerRun{Image: "img"}}
	life := server.begin(t, task).run()
	life.log(contracts.LogStdout, "head\n")
	life.logAt(1005, contracts.LogStdout, "tail\n")
	life.say(&contracts.Succeeded{LogSeq: 2})
	for offset, want := range map[string][2]string{
		"0":    {"head\ntail\n", "gantry: 1000 bytes are missing here, from byte 5 of the log on: it is longer than its limit\n"},
		"500":  {"tail\n", "gantry: 505 bytes are missing here, from byte 500 of the log on: it is longer than its limit\n"},
		"1007": {"il\n", ""},
	} {
		x := newTerminal()
		code := x.run(append(at(server.Server), "logs", "--offset="+offset, "flood")...)
		if code != 0 || x.stdout.String() != want[0] || x.stderr.String() != want[1] {
			t.Errorf("from %s: exit code %d, stdout %q, stderr %q", offset, code, x.stdout.String(), x.stderr.String())
		}
	}
}

func TestLogsOfARunningJob(t *testing.T) {
	t.Parallel()
	server := newSubmissions(t)
	task := &contracts.Task{Version: 1, ID: "runs", Name: contracts.TaskDockerRun, Docker: &contracts.DockerRun{Image: "img"}}
	life := server.begin(t, task).run()
	life.log(contracts.LogStdout, "so far\n")
	x := newTerminal()
	if code := x.run(append(at(server.Server), "logs", "runs")...); code != 0 || x.stdout.String() != "so far\n" || x.stderr.String() != "" {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, x.stdout.String(), x.stderr.String())
	}
	x = newTerminal()
	ended := x.start(server.Server, "logs", "-f", "runs")
	life.log(contracts.LogStdout, "and the rest\n")
	life.say(&contracts.Succeeded{LogSeq: 2})
	if code := <-ended; code != 0 || x.stdout.String() != "so far\nand the rest\n" {
		t.Errorf("exit code %d, stdout %q", code, x.stdout.String())
	}
}

func TestLogsOfNoJob(t *testing.T) {
	t.Parallel()
	server := newSubmissions(t)
	x := newTerminal()
	if code := x.run(append(at(server.Server), "logs", "nobody")...); code != 1 {
		t.Errorf("exit code %d", code)
	}
	x.wantStderr(t, "no job has the id nobody")
}

func TestJobsLsAsksForWhatTheFlagsSay(t *testing.T) {
	t.Parallel()
	server := newSubmissions(t)
	var filter contracts.JobFilter
	answer(t, server.client, contracts.JobsListSubject, func(request []byte) any {
		if err := json.Unmarshal(request, &filter); err != nil {
			t.Error(err)
		}
		return contracts.JobList{Total: 1, Jobs: []contracts.Job{{ID: "job-1", Status: contracts.StatusRunning, Title: "Segment"}}}
	})
	x := newTerminal()
	if code := x.run(append(at(server.Server), "jobs", "ls", "--status=running,FAILED", "--queue=gpu", "--label=a=b", "--since=2026-03-04", "--limit=7")...); code != 0 {
		t.Fatalf("exit code %d: %s", code, x.stderr.String())
	}
	if !strings.Contains(x.stdout.String(), "job-1  running  Segment") {
		t.Errorf("stdout is %q", x.stdout.String())
	}
	if len(filter.Statuses) != 2 || filter.Statuses[1] != contracts.StatusFailed || filter.Queue != "gpu" || filter.Label != "a=b" ||
		filter.Limit != 7 || !filter.Since.Equal(time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("asked for %+v", filter)
	}
	for since, age := range map[string]time.Duration{"90m": 90 * time.Minute, "7d": 7 * 24 * time.Hour} {
		before := time.Now()
		if code := x.run(append(at(server.Server), "jobs", "ls", "--since="+since)...); code != 0 {
			t.Errorf("exit code %d", code)
		}
		if filter.Since.Before(before.Add(-age).Truncate(time.Second)) || filter.Since.After(time.Now().Add(-age)) {
			t.Errorf("--since %s asked for %s", since, filter.Since)
		}
	}
}

func TestJSONIsForPrograms(t *testing.T) {
	t.Parallel()
	server := newSubmissions(t)
	job := contracts.Job{ID: "job-1", Status: contracts.StatusFailed, Message: "it broke", Queue: "default"}
	letter := client.NumberedDeadLetter{Seq: 7, DeadLetter: contracts.DeadLetter{Reason: "id already used"}}
	answer(t, server.client, contracts.JobsListSubject, func([]byte) any { return contracts.JobList{Jobs: []contracts.Job{job}} })
	answer(t, server.client, contracts.JobsGetSubject, func([]byte) any { return job })
	answer(t, server.client, contracts.WorkersListSubject, func([]byte) any {
		return []contracts.Instance{{Service: "transfer", ID: "b"}, {Service: "dispatcher", ID: "a"}}
	})
	answer(t, server.client, contracts.DeadListSubject, func([]byte) any { return []client.NumberedDeadLetter{letter} })
	answer(t, server.client, contracts.DeadShowSubject, func([]byte) any { return letter })
	for want, args := range map[string][]string{
		`"message": "it broke"`:       {"jobs", "show", "job-1"},
		`"total": 0`:                  {"jobs", "ls"},
		`"service": "dispatcher"`:     {"workers"},
		`"reason": "id already used"`: {"dead", "ls"},
		`"seq": 7`:                    {"dead", "show", "7"},
		`"name": "TASKS_SUBMIT"`:      {"topology", "show"},
		`"name": "JOBS"`:              {"topology", "apply", "--replicas=1"},
	} {
		x := newTerminal()
		if code := x.run(append(append(at(server.Server), args...), "--json")...); code != 0 {
			t.Errorf("%q: exit code %d: %s", args, code, x.stderr.String())
		}
		var value any
		if err := json.Unmarshal([]byte(x.stdout.String()), &value); err != nil || !strings.Contains(x.stdout.String(), want) {
			t.Errorf("%q: stdout is %q: %v", args, x.stdout.String(), err)
		}
		x = newTerminal() // and without --json for people
		if code := x.run(append(at(server.Server), args...)...); code != 0 || strings.Contains(x.stdout.String(), `{"`) {
			t.Errorf("%q: exit code %d, stdout %q", args, code, x.stdout.String())
		}
	}
}

func TestUnknownJobAndDeadLetter(t *testing.T) {
	t.Parallel()
	server := newSubmissions(t)
	refuse := func([]byte) any { return &contracts.RequestError{Code: contracts.CodeNotFound, Message: "not found"} }
	answer(t, server.client, contracts.JobsGetSubject, refuse)
	answer(t, server.client, contracts.DeadShowSubject, refuse)
	for want, args := range map[string][]string{
		"no job has the id nobody: 'gantry jobs ls' lists them": {"jobs", "show", "nobody"},
		"there is no dead letter 7: 'gantry dead ls' lists":     {"dead", "show", "7"},
	} {
		x := newTerminal()
		if code := x.run(append(at(server.Server), args...)...); code != 1 {
			t.Errorf("%q: exit code %d", args, code)
		}
		x.wantStderr(t, want)
	}
}
