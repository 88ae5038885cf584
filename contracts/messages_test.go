package contracts

import (
	"testing"
	"time"
)

func TestDecodeRevoke(t *testing.T) {
	t.Parallel()
	revoke, err := DecodeRevoke([]byte(`{"version":1,"job":"j","terminate":true,"later":1}`), "j")
	if err != nil {
		t.Fatal(err)
	}
	if revoke.SignalOrDefault() != "SIGTERM" || revoke.GraceOrDefault() != 10*time.Second || !revoke.Terminate {
		t.Errorf("%+v", revoke)
	}
	revoke, err = DecodeRevoke([]byte(`{"job":"j","signal":"SIGINT","grace":"0s"}`), "j")
	if err != nil {
		t.Fatal(err)
	}
	if revoke.SignalOrDefault() != "SIGINT" || revoke.GraceOrDefault() != 0 {
		t.Errorf("%+v", revoke)
	}
	for _, data := range []string{``, `{`, `{"job":"other"}`, `{}`, `{"job":"j","grace":"-1s"}`, `{"job":"j","grace":5}`} {
		if revoke, err := DecodeRevoke([]byte(data), "j"); err == nil {
			t.Errorf("%s is read as %+v", data, revoke)
		}
	}
}

func TestRetryNumbers(t *testing.T) {
	t.Parallel()
	none := 0
	for _, test := range []struct {
		retry             *Retry
		crashes, failures int
	}{
		{nil, 3, 0}, {&Retry{}, 3, 0}, {&Retry{MaxCrashes: &none, MaxFailures: 2}, 0, 2},
	} {
		if test.retry.Crashes() != test.crashes || test.retry.Failures() != test.failures {
			t.Errorf("%+v: %d crashes, %d failures", test.retry, test.retry.Crashes(), test.retry.Failures())
		}
	}
}

func TestTaskDefaults(t *testing.T) {
	t.Parallel()
	task := &Task{Name: TaskDockerRun}
	if task.QueueOrDefault() != DefaultQueue || task.Kind() != KindDocker || task.Title() != TaskDockerRun || task.HasGirderJob() {
		t.Errorf("an empty task: queue %s, kind %s, title %s, Girder job %t", task.QueueOrDefault(), task.Kind(), task.Title(), task.HasGirderJob())
	}
	if access := task.GirderFor(nil); access != (GirderAccess{}) {
		t.Errorf("access %+v", access)
	}
	task.Queue, task.Docker = "gpu", &DockerRun{Image: "a"}
	if task.QueueOrDefault() != "gpu" || task.Title() != "a" || task.Docker.PullOrDefault() != PullAlways {
		t.Errorf("queue %s, title %s, pull %s", task.QueueOrDefault(), task.Title(), task.Docker.PullOrDefault())
	}
	task.Girder = &Girder{APIURL: "http://g", Token: "t", Job: &GirderJob{Title: "Segment"}}
	if task.Title() != "Segment" || !task.HasGirderJob() {
		t.Errorf("title %s, Girder job %t", task.Title(), task.HasGirderJob())
	}
}

func TestGirderFor(t *testing.T) {
	t.Parallel()
	task := &Task{Girder: &Girder{APIURL: "http://g", Token: "t"}}
	for _, test := range []struct{ own, want GirderAccess }{
		{GirderAccess{}, GirderAccess{APIURL: "http://g", Token: "t"}},
		{GirderAccess{Token: "o"}, GirderAccess{APIURL: "http://g", Token: "o"}},
		{GirderAccess{APIURL: "http://o"}, GirderAccess{APIURL: "http://o", Token: "t"}},
		{GirderAccess{APIURL: "http://o", Token: "o"}, GirderAccess{APIURL: "http://o", Token: "o"}},
	} {
		if got := task.GirderFor(&test.own); got != test.want {
			t.Errorf("own %#v: %#v, want %#v", test.own, got, test.want)
		}
	}
}

func TestSmallAccessors(t *testing.T) {
	t.Parallel()
	if (&ProgressPipe{}).NameOrDefault() != DefaultProgressPipe || (&ProgressPipe{Name: "p"}).NameOrDefault() != "p" {
		t.Error("the name of a progress pipe")
	}
	if !(&Volume{Type: VolumeBindMount, Mode: "ro"}).ReadOnly() || (&Volume{Type: VolumeBindMount}).ReadOnly() {
		t.Error("a bind mount is read-only where its mode says so")
	}
	if err := error(&RequestError{Code: CodeNotFound, Message: "no such job"}); err.Error() != "no such job" {
		t.Error(err)
	}
	for _, output := range readEveryOutput(t) {
		if output.From().Path == "" {
			t.Errorf("%s has no path", output.OutputType())
		}
	}
}

func readEveryOutput(t *testing.T) []Output {
	t.Helper()
	outputs := readGolden(t, "every.task.json").Outputs
	if len(outputs) != len(decodeOutputs) {
		t.Fatalf("%d outputs, want one of each of %d types", len(outputs), len(decodeOutputs))
	}
	return outputs
}
