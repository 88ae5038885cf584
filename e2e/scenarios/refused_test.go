package scenarios

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// TestBadInput submits what cannot work, each case beside the others.
func TestBadInput(t *testing.T) {
	t.Parallel()
	g := setup.Start(t, setup.Config{Slots: 4})
	// refused specifications end as rejected, and as dead letters.
	refused := map[string]struct {
		docker string
		words  []string
	}{
		"a wrong type":                {`{"image": 7}`, []string{"docker.image"}},
		"an unknown field":            {`{"image": "x", "comand": ["ls"]}`, []string{"docker.comand"}},
		"a path that leaves a volume": {`{"image": "x", "args": ["a", {"type": "volume_path", "path": "a/../../b"}]}`, []string{"docker.args[1].path", "leaves the volume"}},
	}
	for name, c := range refused {
		t.Run(name, func(t *testing.T) { checkRejected(t, g, c.docker, c.words) })
	}
	// failing tasks are tried, and end with the reason.
	failing := map[string]struct {
		change func(task *contracts.Task)
		words  []string
	}{
		"an image that does not exist, pull never": {
			func(task *contracts.Task) { task.Docker.Image = "nobodys/image:1" },
			[]string{"nobodys/image:1"},
		},
		"an image that does not exist, and no registry": {
			func(task *contracts.Task) {
				task.Docker.Image, task.Docker.Pull = "127.0.0.1:9/nobodys/image:1", contracts.PullMissing
				none := 0
				task.Retry = &contracts.Retry{MaxCrashes: &none}
			},
			[]string{"127.0.0.1:9/nobodys/image:1"},
		},
		"a missing Girder file": {
			func(task *contracts.Task) {
				task.Docker.Args = append(task.Docker.Args, contracts.Arg{Transform: &contracts.GirderFile{ID: strings.Repeat("0a", 12)}})
			},
			[]string{strings.Repeat("0a", 12)},
		},
		"a token that may not read": {
			func(task *contracts.Task) {
				file := g.Girder.File("in.txt", []byte("content"))
				task.Docker.Args = append(task.Docker.Args, contracts.Arg{Transform: &contracts.GirderFile{ID: file.ID}})
				task.Girder.Token = contracts.Secret(g.Girder.NewToken(girdersim.ScopeListJob))
			},
			[]string{"girder.token", girdersim.ScopeDataRead},
		},
		"a token that may not write": {
			func(task *contracts.Task) {
				task.Docker.Args[0].Text = `echo result > "$1"`
				task.Docker.Args = append(task.Docker.Args, contracts.Arg{Transform: &contracts.VolumePath{Path: "result"}})
				task.Outputs = []contracts.Output{setup.UploadTo(g.Girder.Item("result"), "result")}
				task.Girder.Token = contracts.Secret(g.Girder.NewToken(girdersim.ScopeDataRead))
			},
			[]string{"girder.token", girdersim.ScopeDataWrite},
		},
		"a result that the task did not write": {
			func(task *contracts.Task) {
				task.Outputs = []contracts.Output{setup.UploadTo(g.Girder.Item("result"), "not/there")}
			},
			[]string{"not/there"},
		},
		"an exit code": {
			func(task *contracts.Task) { task.Docker.Args[0].Text = "exit 3" },
			[]string{"Non-zero exit code from docker container (3)."},
		},
		"a program that the image does not have": {
			func(task *contracts.Task) { task.Docker.Entrypoint = contracts.Command{"/bin/nothing"} },
			[]string{"(127)"}, // its name is in the log, from the container's init
		},
	}
	for name, c := range failing {
		t.Run(name, func(t *testing.T) {
			task := g.Shell("true")
			task.Girder = g.Girder.Of(name)
			c.change(task)
			kind := contracts.FailureTask
			if task.Docker.Pull == contracts.PullMissing {
				kind = contracts.FailureInfrastructure
			}
			checkReason(t, g, g.MustSubmit(task), kind, c.words...)
		})
	}
}

// checkRejected publishes what the Go client would not, and checks that its
// owner is told.
func checkRejected(t *testing.T, g *setup.Gantry, docker string, words []string) {
	job := contracts.NewJobID()
	message := fmt.Sprintf(`{"version": 1, "id": %q, "task": "docker_run", "docker": %s, "girder": {"api_url": %q, "job": {"token": %q, "title": "refused"}}}`,
		job, docker, g.Girder.APIURL(), g.Girder.JobAccess)
	if _, err := g.JetStream().Publish(g.Context(), contracts.SubmitAny, []byte(message)); err != nil {
		t.Fatal(err)
	}
	checkReason(t, g, job, contracts.FailureRejected, words...)
	if types := g.Types(job); types != "submitted failed" {
		t.Errorf("life: %s", types)
	}
	checkDeadLetter(t, g, job, words)
}

// checkDeadLetter looks for a job's submission among the refused ones.
func checkDeadLetter(t *testing.T, g *setup.Gantry, job contracts.JobID, words []string) {
	t.Helper()
	g.AwaitGone("jobs without a dead letter", func() []string { // it comes after the job's end
		if slices.ContainsFunc(g.Stored(contracts.StreamDead), func(letter string) bool { return strings.Contains(letter, string(job)) }) {
			return nil
		}
		return []string{string(job)}
	})
	var letters []struct {
		Seq    uint64
		Job    contracts.JobID
		Reason string
	}
	if err := json.Unmarshal([]byte(g.MustGantry("dead", "ls", "--json")), &letters); err != nil {
		t.Fatal(err)
	}
	for _, letter := range letters {
		if letter.Job != job {
			continue
		}
		shown := g.MustGantry("dead", "show", fmt.Sprint(letter.Seq))
		for _, word := range words {
			if !strings.Contains(letter.Reason, word) || !strings.Contains(shown, word) {
				t.Errorf("%q is missing in the dead letter, which says %q and is shown as\n%s", word, letter.Reason, shown)
			}
		}
		if strings.Contains(shown, g.Girder.JobAccess) {
			t.Error("the dead letter has the token")
		}
		return
	}
	t.Errorf("%s is not among the dead letters %+v", job, letters)
}

// TestTokenThatMayNotCreateJobs has no Girder job that could tell: the job
// itself does.
func TestTokenThatMayNotCreateJobs(t *testing.T) {
	t.Parallel()
	g := setup.Start(t, setup.Config{Hold: []string{setup.Executor}})
	task := g.Shell("echo ran")
	task.Girder = g.Girder.Of("not allowed")
	task.Girder.Job.Token = contracts.Secret(g.Girder.DataAccess)
	job := g.MustSubmit(task)
	g.AwaitGirderJob(job) // an attempt waits for its refusal for two seconds
	g.Services[setup.Executor].Start()
	failed := g.AwaitFailure(job)
	g.AwaitJob(job, func(j *contracts.Job) bool { return j.Status.Terminal() })
	for place, text := range map[string]string{"the life": failed.Message, "gantry jobs show": g.MustGantry("jobs", "show", string(job))} {
		if !strings.Contains(text, "girder.job.token") || !strings.Contains(text, girdersim.ScopeCreateJob) {
			t.Errorf("%s does not name field and scope: %s", place, text)
		}
	}
	life, err := g.Life(g.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	if setup.Count(life, contracts.EntryStarted) > 0 || failed.Kind != contracts.FailureTask {
		t.Errorf("it ended as %+v after %s", failed, g.Types(job))
	}
	if jobs := g.Girder.Jobs(); len(jobs) > 0 {
		t.Errorf("Girder has jobs: %+v", jobs)
	}
}

func TestUsedID(t *testing.T) {
	t.Parallel()
	g := setup.Start(t, setup.Config{})
	item := g.Girder.Item("runs")
	task := func(result string) *contracts.Task {
		task := g.Shell("echo "+result+` > "$1"`, &contracts.VolumePath{Path: "run.txt"})
		task.ID, task.Girder = "used", g.Girder.Of("used")
		task.Outputs = []contracts.Output{setup.UploadTo(item, "run.txt")}
		return task
	}
	g.MustSubmit(task("first"))
	g.AwaitSuccess("used")
	g.AwaitMirrored("used")
	g.MustSubmit(task("first"))
	g.MustSubmit(task("second"))
	// Dead letters are kept in the order of submission: this one is behind both.
	for _, err := range g.Messages(g.Context(), contracts.StreamDead, 1, contracts.DeadAll) {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	checkDeadLetter(t, g, "used", []string{"already used"})
	if types := g.Types("used"); types != "submitted queued claimed started pushing pushed succeeded" {
		t.Errorf("life: %s", types)
	}
	if _, content := g.Girder.Uploaded(item.ID); string(content) != "first\n" {
		t.Errorf("uploaded %q", content)
	}
	if jobs := g.Girder.Jobs(); len(jobs) != 1 || !slices.Equal(setup.Statuses(jobs[0]), []string{"RUNNING", "SUCCESS"}) {
		t.Errorf("Girder has jobs %+v", jobs)
	}
}
