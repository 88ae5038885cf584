// Package natstest starts NATS servers with JetStream for tests: one of its
// own per test, or a cluster of three, on free ports of the loopback interface,
// with its data in the test's temporary folders.
package natstest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/contracts/client/testport"
)

// Token is the token that the server asks for.
const Token = "natstest"

const (
	// MaxStore is more than all streams reserve together: otherwise a server takes
	// a part of what is free on the disk, which may be less.
	MaxStore = 1 << 40
	// authTimeout is how many seconds a client may take to say who it is.
	authTimeout = float64(patience / time.Second)
)

// Server is a running NATS server. It is stopped at the test's end.
type Server struct {
	t      testing.TB
	server *server.Server
	dir    string
	port   int
	users  []*server.User // none: whoever has the token may do everything
}

// Start starts a server and applies the topology.
func Start(t testing.TB) *Server {
	t.Helper()
	return start(t)
}

func start(t testing.TB, users ...*server.User) *Server {
	t.Helper()
	s := &Server{t: t, dir: Folder(t), port: testport.Reserve(t), users: users}
	t.Cleanup(s.Stop)
	s.Restart()
	if err := s.Client().ApplyTopology(t.Context(), 1); err != nil {
		t.Fatalf("apply topology: %v", err)
	}
	return s
}

// Folder returns a folder for a server, which is removed at the test's end. It
// waits for what a server that was stopped still writes.
func Folder(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "nats")
	t.Cleanup(func() {
		ticker := time.NewTicker(50 * time.Millisecond)
		defer ticker.Stop()
		for deadline := time.Now().Add(patience); ; <-ticker.C {
			err := os.RemoveAll(dir)
			if err == nil {
				return
			}
			if time.Now().After(deadline) {
				t.Errorf("remove a server's folder: %v", err)
				return
			}
		}
	})
	return dir
}

// StartRestricted starts a server and applies the topology. It has one further
// user, who may publish only to the given subjects; the configuration returned
// is this user's.
func StartRestricted(t testing.TB, allowed ...string) (*Server, client.Config) {
	t.Helper()
	s := start(t, &server.User{Username: owner, Password: Token}, restrictedUser(Token, allowed))
	return s, s.restricted()
}

// restricted is the further user's configuration.
func (s *Server) restricted() client.Config {
	config := s.Config()
	config.User = "restricted"
	return config
}

// Reconfigure gives the restricted user a password and subjects that it may
// publish to, and restarts the server.
func (s *Server) Reconfigure(password string, allowed ...string) {
	s.t.Helper()
	s.users[1] = restrictedUser(password, allowed)
	s.Restart()
}

func restrictedUser(password string, allowed []string) *server.User {
	return &server.User{
		Username: "restricted", Password: password,
		Permissions: &server.Permissions{Publish: &server.SubjectPermission{Allow: allowed}},
	}
}

// owner is the user of a restricted server who may do everything.
const owner = "owner"

// Restart stops the server, if it runs, and starts it again with the same
// data on the same port.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	options := &server.Options{
		ServerName: "natstest", Host: "127.0.0.1", Port: s.port, Users: s.users, AuthTimeout: authTimeout,
		JetStream: true, StoreDir: s.dir, JetStreamMaxStore: MaxStore, NoSigs: true, NoLog: true,
	}
	if len(s.users) == 0 {
		options.Authorization = Token
	}
	srv, err := Run(options)
	if err != nil {
		s.t.Fatal(err)
	}
	s.server = srv
}

// Start starts the server if it does not run.
func (s *Server) Start() {
	s.t.Helper()
	if s.server == nil {
		s.Restart()
	}
}

// Stop stops the server; its data stays for Restart.
func (s *Server) Stop() {
	if s.server == nil {
		return
	}
	s.server.Shutdown()
	s.server.WaitForShutdown()
	s.server = nil
}

// Keep restarts the server and keeps its data. What it returns restarts it with
// those, as if all that was stored since was lost.
func (s *Server) Keep() (setBack func()) {
	s.t.Helper()
	kept := Folder(s.t)
	s.replace(kept, s.dir)
	return func() {
		s.t.Helper()
		s.replace(s.dir, kept)
	}
}

// KeepStream is [Server.Keep] for one stream alone: what others have stays.
func (s *Server) KeepStream(name string) (setBack func()) {
	s.t.Helper()
	kept, stream := Folder(s.t), filepath.Join(s.dir, server.JetStreamStoreDir, "$G", "streams", name)
	s.replace(kept, stream)
	return func() {
		s.t.Helper()
		s.replace(stream, kept)
	}
}

// replace makes a folder a copy of another one, while the server does not run. What
// was there is put aside: a server that was stopped may still write a last thing.
func (s *Server) replace(to, from string) {
	s.t.Helper()
	s.Stop()
	if err := os.Rename(to, Folder(s.t)); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		s.t.Fatal(err)
	}
	s.Restart()
}

// Config says how to reach the server.
func (s *Server) Config() client.Config {
	config := client.Config{URL: fmt.Sprintf("nats://127.0.0.1:%d", s.port), Name: s.t.Name(), Patience: patience}
	if len(s.users) == 0 {
		config.Token = Token
	} else {
		config.User, config.Password = owner, Token
	}
	return config
}

// Client returns a new connection, closed at the test's end.
func (s *Server) Client() *client.Client {
	s.t.Helper()
	return connect(s.t, s.Config())
}

func connect(t testing.TB, config client.Config) *client.Client {
	t.Helper()
	config.Wait = true // also while a cluster is short of a member
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := client.Connect(ctx, config)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(c.Close)
	return c
}

// NATS is a [Server] or a [Cluster].
type NATS interface {
	Config() client.Config
	Client() *client.Client
	// Stop stops all of it, and Start starts it again with the same data on the
	// same ports.
	Stop()
	Start()
}

// Each runs a test with one server and with a cluster, whose rules differ.
func Each(t *testing.T, test func(t *testing.T, nats NATS)) {
	t.Helper()
	t.Run("1 replica", func(t *testing.T) {
		t.Parallel()
		test(t, Start(t))
	})
	t.Run("3 replicas", func(t *testing.T) {
		t.Parallel()
		if testing.Short() {
			t.Skip("no cluster in short mode")
		}
		test(t, StartCluster(t))
	})
}
