package scenarios

import (
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// TestSecretsStayWhereTheyBelong looks for the tokens of a task that succeeds,
// one that fails and one that is refused wherever somebody could read them.
func TestSecretsStayWhereTheyBelong(t *testing.T) {
	t.Parallel()
	g := setup.Start(t, setup.Config{})
	file, item := g.Girder.File("in.txt", []byte("content")), g.Girder.Item("result")
	secrets := []string{g.Girder.DataAccess, g.Girder.JobAccess}
	of := func(title string) *contracts.Girder {
		own := g.Girder.Of(title)
		own.Token = contracts.Secret(g.Girder.NewToken(girdersim.ScopeDataRead, girdersim.ScopeDataWrite))
		own.Job.Token = contracts.Secret(g.Girder.NewToken(girdersim.ScopeCreateJob))
		secrets = append(secrets, string(own.Token), string(own.Job.Token))
		return own
	}
	good := g.Shell(`cat "$1" > "$2"; env; echo ready; sleep 1000`, &contracts.GirderFile{ID: file.ID}, &contracts.VolumePath{Path: "out.txt"})
	good.Girder = of("runs")
	job := g.MustSubmit(good)
	g.AwaitLog(job, "ready")
	containers := g.Engine.Containers("gantry.job=" + string(job))
	if len(containers) != 1 {
		t.Fatalf("the job has %d containers", len(containers))
	}
	places := map[string]string{"docker inspect": g.Engine.Inspect(containers[0])}
	// While jobs wait or run, the streams have what is gone later.
	collect := func(when string) {
		for _, stream := range []string{contracts.StreamReady, contracts.StreamJobs, contracts.StreamLive, contracts.StreamDead, contracts.StreamTransfers, contracts.StreamLater, "KV_" + contracts.BucketJobs} {
			places[stream+" "+when] = strings.Join(g.Stored(stream), "\n")
		}
	}
	collect("while it runs")
	if kept := strings.Join(g.Stored("KV_"+contracts.BucketSecrets), "\n"); !strings.Contains(kept, string(good.Girder.Token)) {
		t.Error("the search does not even find a token where it is kept")
	}
	g.MustGantry("jobs", "cancel", "--wait", string(job))

	bad := g.Shell(`false`, &contracts.GirderFile{ID: file.ID, Girder: &contracts.GirderAccess{Token: contracts.Secret(g.Girder.NewToken(girdersim.ScopeListJob))}})
	bad.Girder = of("fails")
	bad.Outputs = []contracts.Output{setup.UploadTo(item, "out.txt")}
	g.AwaitMirrored(g.MustSubmit(bad))

	// One more field than is known, and one that is no JSON at all.
	refused := []string{
		`{"version": 1, "id": "refused-1", "task": "docker_run", "docker": {"image": "x"}, "girder": {"api_url": "` + g.Girder.APIURL() + `", "tokn": "` + secrets[0] + `"}}`,
		`{"version": 1, "id": "refused-2", "girder": {"token": "` + secrets[0] + `", "job": {"token": "` + secrets[1] + `"`,
	}
	for _, message := range refused {
		if _, err := g.JetStream().Publish(g.Context(), contracts.SubmitAny, []byte(message)); err != nil {
			t.Fatal(err)
		}
	}
	letters := 0
	for _, err := range g.Messages(g.Context(), contracts.StreamDead, 1, contracts.DeadAll) {
		if err != nil {
			t.Fatal(err)
		}
		if letters++; letters == len(refused) {
			break
		}
	}
	collect("at the end")
	for name, process := range g.Services {
		places["the log of "+name] = process.Log()
	}
	for place, text := range places {
		if text == "" && strings.HasPrefix(place, "the log") {
			t.Errorf("nothing is in %s", place)
		}
		for _, secret := range secrets {
			if i := strings.Index(text, secret); i >= 0 {
				t.Errorf("a token is in %s: …%s…", place, text[max(0, i-200):min(len(text), i+100)])
			}
		}
	}
}
