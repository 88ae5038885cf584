package attempt

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/folder"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/policy"
)

// TestAnEndHasRoomForItsFiles: a message of NATS has its limit.
func TestAnEndHasRoomForItsFiles(t *testing.T) {
	t.Parallel()
	files := make([]contracts.GirderSent, 5000)
	for i := range files {
		files[i] = contracts.GirderSent{Name: strings.Repeat(`"`, 100), FileID: strings.Repeat("f", 24), ItemID: strings.Repeat("i", 24), Size: 1 << 60, SHA512: strings.Repeat("0", 128)}
	}
	a := &Attempt{warnings: []string{"first"}}
	fit, warnings := a.listed(files)
	end := contracts.NextEntry(&contracts.Entry{Job: "job"}, "job", "test", &contracts.Succeeded{Outputs: fit, Warnings: warnings})
	data, err := end.Encode()
	if err != nil || len(data) > 2*maxFiles || len(fit) < 100 {
		t.Errorf("%d files in %d bytes, error %v", len(fit), len(data), err)
	}
	if len(warnings) != 2 || warnings[0] != "first" || !strings.Contains(warnings[1], "more files") {
		t.Errorf("warnings are %q", warnings)
	}
	if few, none := (&Attempt{}).listed(files[:10]); len(few) != 10 || none != nil {
		t.Errorf("%d of 10 files, warnings %q", len(few), none)
	}
	for range 2000 {
		a.warnings = append(a.warnings, strings.Repeat("w", 100))
	}
	if _, warnings := a.listed(nil); len(warnings) > 700 || !strings.Contains(warnings[len(warnings)-1], "more warnings") {
		t.Errorf("%d warnings", len(warnings))
	}
}

func TestWhatTimedOut(t *testing.T) {
	t.Parallel()
	rules, err := policy.New(policy.Config{})
	if err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	killed := func(after time.Duration) engine.Exit {
		return engine.Exit{Code: 137, Signal: "SIGKILL", FinishedAt: started.Add(after)}
	}
	outOfMemory, exited := killed(time.Hour), killed(time.Hour)
	outOfMemory.OOMKilled = true
	exited.Code, exited.Signal = 1, ""
	for name, test := range map[string]struct {
		exit     engine.Exit
		limit    time.Duration
		byUs     bool
		timedOut bool
	}{
		"killed by us":            {killed(time.Hour), time.Hour, true, true},
		"a clock that is behind":  {killed(time.Hour - time.Second), time.Hour, true, true},
		"by a former owner":       {killed(time.Hour), time.Hour, false, true},
		"before, by another":      {killed(time.Minute), time.Hour, true, false},
		"just before, by another": {killed(time.Hour - time.Second), time.Hour, false, false},
		"no limit":                {killed(time.Hour), 0, false, false},
		"out of memory":           {outOfMemory, time.Hour, true, false},
		"its own end":             {exited, time.Hour, true, false},
	} {
		task := &contracts.Task{Docker: &contracts.DockerRun{}, Limits: &contracts.Limits{Time: contracts.Duration(test.limit)}}
		f := &folder.Folder{About: folder.About{Timings: contracts.Timings{Started: started}}}
		a := &Attempt{tools: &Tools{Policy: rules}, task: task, folder: f, timedOut: test.byUs}
		if got := a.isTimeout(test.exit); got != test.timedOut {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestBrief(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		12 * time.Hour: "12h", 90 * time.Minute: "1h30m", 10 * time.Minute: "10m", 30 * time.Second: "30s", time.Hour + time.Second: "1h0m1s",
		100 * time.Hour: "100h", 50 * time.Millisecond: "50ms", 20 * time.Minute: "20m",
	} {
		if got := brief(d); got != want {
			t.Errorf("%s is %q", d, got)
		}
	}
}

// A program that cannot be run is named, with its image and what to do.
func TestAProgramThatCannotRunIsNamed(t *testing.T) {
	t.Parallel()
	rules, err := policy.New(policy.Config{})
	if err != nil {
		t.Fatal(err)
	}
	a := &Attempt{tools: &Tools{Policy: rules}, task: &contracts.Task{Docker: &contracts.DockerRun{Image: "tool:1"}}, folder: &folder.Folder{}}
	for exit, want := range map[engine.Exit]string{
		{Code: 127, NotRun: "/no/such"}: `Non-zero exit code from docker container (127). The program "/no/such" is not in image tool:1, or an interpreter that it needs is not: ` +
			"check the task's docker.entrypoint and docker.args, and the image's own entrypoint.",
		{Code: 126, NotRun: "/data"}: `Non-zero exit code from docker container (126). The program "/data" of image tool:1 may not be executed: ` +
			"check its mode, the user of the container (docker.options.user), and the task's docker.entrypoint and docker.args.",
		{Code: 127}: "Non-zero exit code from docker container (127).",
	} {
		if failed := a.failureOf(exit); failed.Kind != contracts.FailureTask || failed.Message != want || *failed.ExitCode != exit.Code {
			t.Errorf("%+v: %+v", exit, failed)
		}
	}
}

// The limit that a container ran into is named with the setting that it comes from.
func TestTheMemoryLimitIsTheOneThatApplied(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		task, operator contracts.DockerOptions
		most           int64
		says           string
	}{
		"the task's":     {task: contracts.DockerOptions{MemLimit: 64 << 20}, most: 128 << 20, says: "the limit is 64MiB (docker.options.mem_limit)."},
		"the node's":     {most: 32 << 20, says: "the limit is 32MiB (this node's GANTRY_MAX_MEMORY)."},
		"the operator's": {operator: contracts.DockerOptions{MemLimit: 16 << 20}, says: "the limit is 16MiB (mem_limit in this node's GANTRY_DOCKER_RUN_OPTIONS)."},
	} {
		rules, err := policy.New(policy.Config{RunOptions: test.operator, Caps: policy.Caps{Memory: test.most}})
		if err != nil {
			t.Fatal(err)
		}
		a := &Attempt{tools: &Tools{Policy: rules}, task: &contracts.Task{Docker: &contracts.DockerRun{Image: "tool:1", Options: test.task}}, folder: &folder.Folder{}}
		for _, exit := range []engine.Exit{{Code: 137, Signal: "SIGKILL", OOMKilled: true}, {Code: 137, Signal: "SIGKILL"}} {
			if failed := a.failureOf(exit); !strings.HasSuffix(failed.Message, test.says) {
				t.Errorf("%s: %q, want %q", name, failed.Message, test.says)
			}
		}
	}
}

// A reason that is too long is cut between two characters.
func TestAReasonIsCutBetweenCharacters(t *testing.T) {
	t.Parallel()
	for _, begin := range []string{"", "a", "ab"} {
		got := sized(begin + strings.Repeat("€", contracts.MaxErrorSize))
		if len(got) > contracts.MaxErrorSize || !utf8.ValidString(got) || !strings.HasSuffix(got, "€ …") {
			t.Errorf("%d bytes, ends in %q", len(got), got[len(got)-10:])
		}
	}
}
