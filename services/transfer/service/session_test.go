package service

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// private is a Girder whose certificate only its own authority vouches for, and
// which wants one of its clients.
type private struct {
	*bench
	authority string // PEM
	client    girdersim.Pair
}

func setupPrivate(t *testing.T) *private {
	t.Helper()
	authority, err := girdersim.NewAuthority("private")
	if err != nil {
		t.Fatal(err)
	}
	server, err := authority.Issue("girder", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := server.TLS()
	if err != nil {
		t.Fatal(err)
	}
	client, err := authority.Issue("transfer")
	if err != nil {
		t.Fatal(err)
	}
	b := setupWith(t, girdersim.Options{TLS: &girdersim.TLS{Certificate: certificate, ClientAuthorities: authority.Pool()}})
	p := &private{bench: b, authority: authority.PEM(), client: client}
	b.must(b.bus.DeleteSecrets(t.Context(), job))
	b.must(b.bus.PutSecrets(t.Context(), job, contracts.SecretIO, contracts.Secrets{
		"girder.token": b.token, "girder.session.cert[0]": client.Cert, "girder.session.cert[1]": client.Key,
	}))
	return p
}

// session has the certificate as intake leaves it.
func (p *private) session(verify string) *contracts.GirderSession {
	return &contracts.GirderSession{
		Verify: &contracts.Verify{Authorities: verify},
		Cert:   contracts.ClientCert{Cert: "secret:io/girder.session.cert[0]", Key: "secret:io/girder.session.cert[1]"},
	}
}

// nothingSecretOnDisk looks through the work folder, with the journal and the volume.
func (p *private) nothingSecretOnDisk() {
	p.t.Helper()
	files := 0
	p.must(filepath.WalkDir(p.root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		files++
		text, err := os.ReadFile(path)
		if strings.Contains(string(text), "PRIVATE KEY") || strings.Contains(string(text), p.token) {
			p.t.Errorf("%s has a secret in it", path)
		}
		return err
	}))
	if files == 0 {
		p.t.Error("there are no files")
	}
}

// TestASessionIsUsed by every kind of step, the cancel of an upload included.
func TestASessionIsUsed(t *testing.T) {
	t.Parallel()
	p := setupPrivate(t)
	p.serve()
	in := p.stageIn("in-0", p.file("in.tif", "pixels"))
	p.write("r", []byte("result"))
	out := p.stageOut("out-0", "r")
	stream := p.toPipe("to", p.file("stream", "streamed"))
	spool := p.fromPipe("from", p.toItem("spooled"))
	for _, step := range []*contracts.Step{in, out, stream, spool} {
		step.Session = p.session(p.authority)
	}
	for _, step := range []*contracts.Step{in, out} {
		if result := p.do(step); result.Outcome != contracts.StepDone {
			t.Errorf("%+v", result)
		}
	}
	p.ready(stream, spool)
	p.must(p.container("cat to > from").wait())
	p.do(p.stepFinish(nil))
	for _, step := range []*contracts.Step{stream, spool} {
		p.until("no result", func() bool { return p.result(step) != nil })
		if result := p.result(step); result.Outcome != contracts.StepDone {
			t.Errorf("%+v", result)
		}
	}
	if p.uploaded("r") != "result" || p.uploaded("spooled") != "streamed" {
		t.Errorf("%+v", p.sim.Files(p.item.ID))
	}
}

// TestUploadsAreCanceledOverTheSession after a revoke.
func TestUploadsAreCanceledOverTheSession(t *testing.T) {
	t.Parallel()
	p := setupPrivate(t)
	p.serve()
	defer p.holdChunks()()
	p.write("r", []byte("result"))
	step := p.stageOut("out-0", "r")
	step.Session = p.session(p.authority)
	p.ask(step)
	p.awaitUpload(step)
	p.nothingSecretOnDisk()
	p.must(p.bus.Revoke(t.Context(), contracts.Revoke{Version: 1, Job: job, Terminate: true}))
	p.await(step)
	p.drained() // of an upload that takes long to cancel the result does not wait
	if result := p.result(step); result.Outcome != contracts.StepAborted || p.sim.OpenUploads() != 0 {
		t.Errorf("%+v, %d uploads", result, p.sim.OpenUploads())
	}
}

// TestWhereASessionIsWrong the result names its field, and no secret.
func TestWhereASessionIsWrong(t *testing.T) {
	t.Parallel()
	p := setupPrivate(t)
	allowed, other := t.TempDir(), t.TempDir()
	for _, folder := range []string{allowed, other} {
		p.must(os.WriteFile(filepath.Join(folder, "ca.pem"), []byte(p.authority), 0o600))
	}
	cfg := p.config()
	cfg.SessionFiles = []string{allowed}
	p.start(cfg, quick)
	file := p.file("in.tif", "pixels")
	unverified := p.session("")
	unverified.Verify = &contracts.Verify{Off: true}
	systems, nobodys := p.session(""), p.session(p.authority)
	systems.Verify, nobodys.Cert = nil, contracts.ClientCert{}
	missing := p.session(p.authority)
	missing.Cert = contracts.ClientCert{Cert: "secret:io/girder.session.cert[7]"}
	proxied := p.session(p.authority)
	proxied.Proxies = map[string]contracts.Secret{"https": "gopher://user:hunter22@proxy"}
	for name, test := range map[string]struct {
		session *contracts.GirderSession
		outcome contracts.StepOutcome
		says    []string
	}{
		"allowed path":     {p.session(filepath.Join(allowed, "ca.pem")), contracts.StepDone, nil},
		"not verified":     {unverified, contracts.StepDone, nil},
		"forbidden path":   {p.session(filepath.Join(other, "ca.pem")), contracts.StepFailure, []string{"girder.session.verify", "GANTRY_SESSION_FILES"}},
		"no certificate":   {p.session("-----BEGIN NOTHING-----"), contracts.StepFailure, []string{"girder.session.verify"}},
		"system's only":    {systems, contracts.StepFailure, []string{"certificate", "girder.session.verify"}},
		"nobody's":         {nobodys, contracts.StepFailure, []string{"certificate", "girder.session.cert"}},
		"no session":       {nil, contracts.StepFailure, []string{"certificate", "girder.session.verify"}},
		"secret not there": {missing, contracts.StepFailure, []string{"girder.session"}},
		"proxy":            {proxied, contracts.StepFailure, []string{"girder.session.proxies"}},
	} {
		step := p.stageIn("in-"+strings.ReplaceAll(name, " ", "-"), file)
		step.Session = test.session
		result := p.do(step)
		if result.Outcome != test.outcome {
			t.Errorf("%s: %+v", name, result)
		}
		for _, says := range test.says {
			if !strings.Contains(result.Message, says) {
				t.Errorf("%s: %q does not say %s", name, result.Message, says)
			}
		}
		if strings.Contains(result.Message, "hunter22") || strings.Contains(result.Message, "PRIVATE") {
			t.Errorf("%s: %q", name, result.Message)
		}
	}
	stream := p.toPipe("pipe", file)
	stream.Session = nobodys
	if result := p.do(stream); result.Outcome != contracts.StepFailure || !strings.Contains(result.Message, "girder.session.cert") {
		t.Errorf("%+v", result)
	}
}
