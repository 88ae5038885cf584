package service_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/contracts/client/testport"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// forgetful is a NATS server that can lose the last messages of the stream LIVE,
// as a server does that crashes before they are on disk: its last sequence goes
// back, and what is lost is used again.
type forgetful struct {
	t      *testing.T
	server *server.Server
	dir    string
	port   int
}

func newForgetful(t *testing.T) *forgetful {
	t.Helper()
	f := &forgetful{t: t, dir: natstest.Folder(t), port: testport.Reserve(t)}
	f.Start()
	t.Cleanup(f.Stop)
	if err := f.Client().ApplyTopology(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *forgetful) Start() {
	f.t.Helper()
	srv, err := natstest.Run(&server.Options{
		ServerName: "forgetful", Host: "127.0.0.1", Port: f.port, Authorization: natstest.Token, AuthTimeout: patience.Seconds(),
		JetStream: true, StoreDir: f.dir, JetStreamMaxStore: natstest.MaxStore, NoSigs: true, NoLog: true,
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.server = srv
}

func (f *forgetful) Stop() {
	if f.server != nil {
		f.server.Shutdown()
		f.server.WaitForShutdown()
		f.server = nil
	}
}

func (f *forgetful) Config() client.Config {
	return client.Config{URL: f.server.ClientURL(), Token: natstest.Token, Name: f.t.Name(), Patience: patience}
}

func (f *forgetful) Client() *client.Client {
	f.t.Helper()
	c, err := client.Connect(f.t.Context(), f.Config())
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(c.Close)
	return c
}

func (f *forgetful) live() string {
	return filepath.Join(f.dir, server.JetStreamStoreDir, "$G", "streams", contracts.StreamLive)
}

// remember returns what brings the stream LIVE back to what it is now.
func (f *forgetful) remember() (forget func()) {
	f.t.Helper()
	kept := f.t.TempDir()
	f.Stop()
	if err := os.CopyFS(kept, os.DirFS(f.live())); err != nil {
		f.t.Fatal(err)
	}
	f.Start()
	return func() {
		f.t.Helper()
		f.Stop()
		// Not removed: a server that was stopped may still write a last thing there.
		if err := os.Rename(f.live(), filepath.Join(f.dir, "lost")); err != nil {
			f.t.Fatal(err)
		}
		if err := os.CopyFS(f.live(), os.DirFS(kept)); err != nil {
			f.t.Fatal(err)
		}
		f.Start()
	}
}

// LIVE loses its last messages while jobs run, and others take their sequences
// before the owner ships its own again, with the same cuts. Girder's log is what
// it would be without that, whatever was mirrored before and when the job ends.
func TestLogThatNATSLost(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		mirrored bool // before the loss
		others   int  // messages of another job that take sequences
		late     bool // the job ends before its log is shipped again
		restart  bool // of the tracker
	}{
		"mirrored before":                {mirrored: true},
		"not mirrored before":            {},
		"sequences used again":           {mirrored: true, others: 5},
		"more than was lost":             {mirrored: true, others: 40},
		"unread and used again":          {others: 10},
		"ended before it is there again": {mirrored: true, others: 3, late: true},
		"another tracker goes on":        {others: 10, restart: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nats := newForgetful(t)
			s := newSiteAt(t, nats)
			stop := s.start()
			r, other := s.submit(s.create()), s.submit(s.create())
			r.begin()
			other.begin()
			want := r.lines("kept", 5)
			r.awaitGirder(func(job girdersim.Job) bool { return logOf(job) == want })
			forget := nats.remember()
			kept := r.seq
			lost := r.lines("lost", 10)
			if c.mirrored {
				r.awaitGirder(func(job girdersim.Job) bool { return logOf(job) == want+lost })
			}
			forget()
			if c.restart {
				stop()
			}
			others := other.lines("other", c.others)
			end := r.seq
			if c.late {
				r.entry(&contracts.Succeeded{LogSeq: end + 3})
			}
			r.seq = kept
			if again := r.lines("lost", 10); again != lost {
				t.Fatal("shipped something else")
			}
			want += lost + r.lines("after", 3)
			if c.restart {
				s.start()
			}
			if !c.late {
				r.succeed()
			}
			job := r.mirrored()
			s.wantStatuses(job, girdersim.Running, girdersim.Success)
			s.wantLog(job, want)
			other.succeed()
			s.wantLog(other.mirrored(), others)
		})
	}
}
