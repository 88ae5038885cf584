// Package natstest starts NATS servers with JetStream for tests: one of its
// own per test, on a free port of the loopback interface, with its data in the
// test's temporary folder.
package natstest

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/gantry-worker/gantry/contracts/client"
)

// Token is the token that the server asks for.
const Token = "natstest"

// Server is a running NATS server. It is stopped at the test's end.
type Server struct {
	t      testing.TB
	server *server.Server
	dir    string
	port   int
}

// Start starts a server and applies the topology.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{t: t, dir: t.TempDir(), port: server.RANDOM_PORT}
	s.Restart()
	t.Cleanup(s.Stop)
	if err := s.Client().ApplyTopology(t.Context(), 1); err != nil {
		t.Fatalf("apply topology: %v", err)
	}
	return s
}

// Restart stops the server, if it runs, and starts it again with the same
// data on the same port.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	srv, err := server.NewServer(&server.Options{
		ServerName: "natstest", Host: "127.0.0.1", Port: s.port, Authorization: Token,
		JetStream: true, StoreDir: s.dir, NoSigs: true, NoLog: true,
	})
	if err != nil {
		s.t.Fatalf("create NATS server: %v", err)
	}
	srv.Start()
	if !srv.ReadyForConnections(10 * time.Second) {
		s.t.Fatal("NATS server is not ready")
	}
	s.server = srv
	s.port = srv.Addr().(*net.TCPAddr).Port
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

// Config says how to reach the server.
func (s *Server) Config() client.Config {
	return client.Config{URL: s.server.ClientURL(), Token: Token, Name: s.t.Name()}
}

// Client returns a new connection, closed at the test's end.
func (s *Server) Client() *client.Client {
	s.t.Helper()
	c, err := client.Connect(context.Background(), s.Config())
	if err != nil {
		s.t.Fatalf("connect: %v", err)
	}
	s.t.Cleanup(c.Close)
	return c
}
