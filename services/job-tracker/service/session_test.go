package service_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/testport"
	"github.com/gantry-worker/gantry/services/job-tracker/service"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// guarded is a site whose Girder has a certificate of its own authority and wants
// one of the client.
type guarded struct {
	*site
	authority *girdersim.Authority
	own       girdersim.Pair
}

func newGuarded(t *testing.T) *guarded {
	t.Helper()
	g := &guarded{site: newSite(t)}
	var err error
	g.authority, err = girdersim.NewAuthority("test")
	g.must(err)
	server, err := g.authority.Issue("girder", "127.0.0.1")
	g.must(err)
	certificate, err := server.TLS()
	g.must(err)
	g.own, err = g.authority.Issue("worker")
	g.must(err)
	g.sim, err = girdersim.Start(girdersim.Options{Addr: testport.Address(t), TLS: &girdersim.TLS{Certificate: certificate, ClientAuthorities: g.authority.Pool()}})
	g.must(err)
	t.Cleanup(func() { _ = g.sim.Close() })
	return g
}

func (g *guarded) session() *contracts.GirderSession {
	return &contracts.GirderSession{
		Verify: &contracts.Verify{Authorities: g.authority.PEM()},
		Cert:   contracts.ClientCert{Cert: contracts.Secret(g.own.Cert), Key: contracts.Secret(g.own.Key)},
	}
}

func TestMirrorOverASession(t *testing.T) {
	t.Parallel()
	s := newGuarded(t)
	folder := t.TempDir()
	s.start(func(cfg *service.Config) { cfg.SessionFiles = []string{folder} })
	path := filepath.Join(folder, "worker.pem")
	s.must(os.WriteFile(path, []byte(s.own.Cert+s.own.Key), 0o600))
	theirs, err := s.sim.CreateJob(girdersim.JobSpec{Handler: girdersim.WorkerHandler})
	s.must(err)
	created, takenOver := s.create(), s.takeOver(theirs)
	created.Girder.Session, takenOver.Girder.Session = s.session(), s.session()
	takenOver.Girder.Session.Cert = contracts.ClientCert{Cert: contracts.Secret(path)}
	for _, task := range []*contracts.Task{created, takenOver} {
		r := s.submit(task)
		r.claim()
		if reply := r.gateOfGirder(); reply.Verdict != contracts.GateOpen || reply.Message != "" {
			t.Errorf("the gate says %+v", reply)
		}
		r.entry(&contracts.Started{Container: "c"})
		r.print(contracts.LogStdout, "over TLS\n")
		r.succeed()
		s.wantLog(r.mirrored(), "over TLS\n")
	}
}

func TestSessionThatLeadsNowhere(t *testing.T) {
	t.Parallel()
	s := newGuarded(t)
	stranger, err := girdersim.NewAuthority("stranger")
	s.must(err)
	s.start()
	for name, test := range map[string]struct {
		change func(*contracts.GirderSession)
		want   string
	}{
		"a path that is not allowed": {
			func(g *contracts.GirderSession) { g.Cert = contracts.ClientCert{Cert: "/etc/worker.pem"} },
			"girder.session.cert: names a file outside the folders that the operator allows (session_files, GANTRY_SESSION_FILES)",
		},
		"another authority": {
			func(g *contracts.GirderSession) { g.Verify.Authorities = stranger.PEM() },
			"girder.session.verify: the server's certificate is not trusted",
		},
		"no certificate": {
			func(g *contracts.GirderSession) { g.Cert = contracts.ClientCert{} },
			"girder.session.cert: the server does not accept our certificate",
		},
	} {
		t.Run(name, func(t *testing.T) {
			theirs, err := s.sim.CreateJob(girdersim.JobSpec{Handler: girdersim.WorkerHandler})
			s.must(err)
			created, takenOver := s.create(), s.takeOver(theirs)
			for _, task := range []*contracts.Task{created, takenOver} {
				task.Girder.Session = s.session()
				test.change(task.Girder.Session)
				r := s.submit(task)
				r.claim()
				r.refused(test.want)
				reply := r.gateOfGirder()
				if reply.Verdict != contracts.GateRefused || !strings.HasPrefix(reply.Message, test.want) {
					t.Errorf("the gate says %+v", reply)
				}
				r.entry(&contracts.Failed{Kind: contracts.FailureRejected, Message: reply.Message})
				if job := r.projected(func(job *contracts.Job) bool { return job.Girder.Done }); job.Girder.Problem != reply.Message {
					t.Errorf("problem %q", job.Girder.Problem)
				}
			}
		})
	}
}

// A tracker that takes over may not be allowed what the one before it was: the
// task that runs is no worse for it.
func TestSessionThatLedToGirderBefore(t *testing.T) {
	t.Parallel()
	s := newGuarded(t)
	folder := t.TempDir()
	path := filepath.Join(folder, "worker.pem")
	s.must(os.WriteFile(path, []byte(s.own.Cert+s.own.Key), 0o600))
	allowed := func(cfg *service.Config) { cfg.SessionFiles = []string{folder} }
	stop := s.start(allowed)
	task := s.create()
	task.Girder.Session = s.session()
	task.Girder.Session.Cert = contracts.ClientCert{Cert: contracts.Secret(path)}
	r := s.submit(task)
	r.begin()
	r.awaitStatus(girdersim.Running)
	stop()
	stop = s.start()
	if reply := r.gate(); reply.Verdict != contracts.GateOpen {
		t.Errorf("the gate says %+v", reply)
	}
	stop()
	s.start(allowed)
	r.print(contracts.LogStdout, "all of it\n")
	r.succeed()
	job := r.mirrored()
	s.wantStatuses(job, girdersim.Running, girdersim.Success)
	s.wantLog(job, "all of it\n")
	if revoke, err := s.bus.LastRevoke(s.ctx, r.id); err != nil || revoke != nil {
		t.Errorf("revoked: %v, %v", revoke, err)
	}
}
