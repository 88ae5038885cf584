package transfer

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// private is a Girder that speaks to those alone who show a certificate of its
// own authority, which nobody trusts who was not told to.
type private struct {
	*setup.Gantry
	authority string
	// client has a certificate that Girder knows, and so has the stranger.
	client, stranger girdersim.Pair
	// allowed is the folder whose files a session may name.
	allowed string
}

func startPrivate(t *testing.T) *private {
	t.Helper()
	authority, err := girdersim.NewAuthority("an authority of our own")
	if err != nil {
		t.Fatal(err)
	}
	p := &private{authority: authority.PEM(), allowed: t.TempDir()}
	server, err := authority.Issue("Girder", "127.0.0.1", "girder.example")
	if err != nil {
		t.Fatal(err)
	}
	if p.client, err = authority.Issue("worker"); err != nil {
		t.Fatal(err)
	}
	if p.stranger, err = authority.Issue("stranger"); err != nil {
		t.Fatal(err)
	}
	tls, err := server.TLS()
	if err != nil {
		t.Fatal(err)
	}
	p.Gantry = start(t, setup.Config{
		Girder: girdersim.Options{TLS: &girdersim.TLS{Certificate: tls, ClientAuthorities: authority.Pool()}},
		Env:    map[string]string{"GANTRY_SESSION_FILES": p.allowed},
	})
	return p
}

// task is one that moves something in each of the ways that there are, with a
// Girder job.
func (p *private) task(title string, session *contracts.GirderSession) (*contracts.Task, girdersim.Item) {
	p.T.Helper()
	file, result := p.Girder.File(title, []byte("content")), p.Girder.Item(title+" result")
	task := p.Shell(`cat "$1"; cat "$2"; cp "$1" "$3"`, &contracts.GirderFile{ID: file.ID},
		&contracts.Connect{
			Input:  contracts.Endpoint{Transform: &contracts.GirderFileStream{ID: file.ID}},
			Output: contracts.Endpoint{Transform: &contracts.NamedInputPipe{Name: "in"}},
		}, &contracts.VolumePath{Path: "result"})
	task.Outputs = []contracts.Output{setup.UploadTo(result, "result")}
	task.Girder = p.Girder.Of(title)
	task.Girder.Session = session
	return task, result
}

// succeeds runs a task and looks at all that Girder has of it.
func (p *private) succeeds(task *contracts.Task, result girdersim.Item) {
	p.T.Helper()
	job := p.MustSubmit(task)
	p.AwaitSuccess(job)
	mirrored := p.AwaitMirrored(job)
	if got := setup.Statuses(mirrored); !slices.Equal(got, []string{"RUNNING", "SUCCESS"}) || setup.LogOf(mirrored) != "contentcontent" {
		p.T.Errorf("Girder's history: %v, log %q", got, setup.LogOf(mirrored))
	}
	if _, content := p.Girder.Uploaded(result.ID); string(content) != "content" {
		p.T.Errorf("uploaded %q", content)
	}
}

func (p *private) text() *contracts.GirderSession {
	return &contracts.GirderSession{
		Verify: &contracts.Verify{Authorities: p.authority},
		Cert:   contracts.ClientCert{Cert: contracts.Secret(p.client.Cert), Key: contracts.Secret(p.client.Key)},
	}
}

// TestASessionIsTheWayToGirder for transfer and for the mirror of the job alike.
func TestASessionIsTheWayToGirder(t *testing.T) {
	t.Parallel()
	p := startPrivate(t)
	write := func(folder, name, content string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca := write(p.allowed, "ca.pem", p.authority)
	both := write(p.allowed, "client.pem", p.client.Cert+p.client.Key)
	for name, session := range map[string]*contracts.GirderSession{
		"texts":           p.text(),
		"paths":           {Verify: &contracts.Verify{Authorities: ca}, Cert: contracts.ClientCert{Cert: contracts.Secret(both)}},
		"no verification": {Verify: &contracts.Verify{Off: true}, Cert: p.text().Cert},
	} {
		task, result := p.task(name, session)
		p.succeeds(task, result)
	}

	elsewhere := write(t.TempDir(), "ca.pem", p.authority)
	missing := filepath.Join(p.allowed, "missing.pem")
	for name, c := range map[string]struct {
		verify *contracts.Verify
		cert   contracts.ClientCert
		words  []string
	}{
		"a file elsewhere": {
			&contracts.Verify{Authorities: elsewhere}, p.text().Cert, []string{"girder.session.verify", "GANTRY_SESSION_FILES", "PEM text"},
		},
		"a file that is missing":   {&contracts.Verify{Authorities: missing}, p.text().Cert, []string{"girder.session.verify", "no such file"}},
		"an authority of no one":   {nil, p.text().Cert, []string{"girder.session.verify"}},
		"no certificate":           {p.text().Verify, contracts.ClientCert{}, []string{"girder.session.cert"}},
		"the key of somebody else": {p.text().Verify, contracts.ClientCert{Cert: contracts.Secret(p.client.Cert), Key: contracts.Secret(p.stranger.Key)}, []string{"girder.session.cert"}},
	} {
		for _, hasJob := range []bool{true, false} { // job-tracker sees it first, or transfer
			task, _ := p.task(fmt.Sprintf("%s, job %t", name, hasJob), &contracts.GirderSession{Verify: c.verify, Cert: c.cert})
			if !hasJob {
				task.Girder.Job = nil
			}
			p.refuses(task, c.words)
		}
	}
}

// refuses runs a task that has to fail before its container starts, with words
// that say why.
func (p *private) refuses(task *contracts.Task, words []string) {
	p.T.Helper()
	executor := p.Services[setup.Executor]
	executor.Stop()
	job := p.MustSubmit(task)
	if task.Girder.Job != nil {
		p.AwaitGirderJob(job) // an attempt waits for its refusal for two seconds
	}
	executor.Start()
	failed := p.AwaitFailure(job)
	for _, word := range words {
		if !strings.Contains(failed.Message, word) {
			p.T.Errorf("the failure says %q, and nothing of %q", failed.Message, word)
		}
	}
	if failed.Kind != contracts.FailureTask || p.Types(job) != "submitted queued claimed failed" {
		p.T.Errorf("it ended as %+v; its life is %s", failed, p.Types(job))
	}
}

// TestASessionLeadsThroughAProxy to a host that the proxy alone can find, with
// secrets that nobody else gets to see.
func TestASessionLeadsThroughAProxy(t *testing.T) {
	t.Parallel()
	p := startPrivate(t)
	const host = "girder.example:443"
	password := contracts.NewToken()
	proxy := setup.StartProxy(t, "worker", password, map[string]string{host: strings.TrimPrefix(p.Girder.URL(), "https://")})
	session := p.text()
	session.Proxies = map[string]contracts.Secret{"https": contracts.Secret(proxy.URL)}
	task, result := p.task("behind a proxy", session)
	task.Girder.APIURL = strings.Replace(p.Girder.APIURL(), strings.TrimPrefix(p.Girder.URL(), "https://"), host, 1)
	p.succeeds(task, result)

	asked := proxy.Asked()
	if len(asked) < 2 { // transfer and job-tracker
		t.Errorf("the proxy was asked for %v", asked)
	}
	for _, to := range asked {
		if to != host {
			t.Errorf("the proxy was asked for %s", to)
		}
	}
	key := strings.Split(p.client.Key, "\n")[1]
	places := map[string]string{}
	for _, stream := range []string{contracts.StreamJobs, contracts.StreamLive, contracts.StreamDead, contracts.StreamTransfers, "KV_" + contracts.BucketJobs} {
		places[stream] = strings.Join(p.Stored(stream), "\n")
	}
	for name, process := range p.Services {
		places["the log of "+name] = process.Log()
	}
	for place, text := range places {
		for _, secret := range []string{password, key} {
			if i := strings.Index(text, secret); i >= 0 {
				t.Errorf("a secret is in %s: …%s…", place, text[max(0, i-200):min(len(text), i+100)])
			}
		}
	}
}
