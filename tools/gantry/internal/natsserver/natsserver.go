// Package natsserver runs a NATS server with JetStream inside the process, for
// `gantry up`: on the loopback interface only, and for those who have its token.
//
//	server, err := natsserver.Start(natsserver.Options{Dir: dir, Token: token, Log: log})
//	defer server.Stop()
//	// … connect to server.URL() …
package natsserver

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/rs/zerolog"
)

// loopback is the only interface that the server listens on.
const loopback = "127.0.0.1"

// startTimeout bounds the recovery of the streams in the folder.
const startTimeout = 60 * time.Second

// maxStore is no limit: without a number the server takes a share of what is
// free on the disk now, and refuses streams whose limits add up to more.
const maxStore = 1 << 40

// ErrPortTaken is returned by Start for a port that somebody listens on.
var ErrPortTaken = errors.New("the port is taken")

// Options say how to run the server.
type Options struct {
	// Dir is where JetStream keeps its data; it is made if need be.
	Dir string
	// Port is 0 for any free one.
	Port int
	// Token is what clients must know.
	Token string
	// NoSync leaves it to the system when data reaches the disk: a power cut
	// then loses up to two minutes of acknowledged messages.
	NoSync bool
	// Log takes the server's warnings and errors, and at debug level its notices.
	Log zerolog.Logger
}

// Server is a running server.
type Server struct {
	server *server.Server
}

// Start starts a server and returns when clients can connect. Stop ends it.
func Start(o Options) (*Server, error) {
	if err := checkPort(o.Port); err != nil {
		return nil, err
	}
	// It holds the secrets of tasks, so it is for nobody else.
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder for NATS: %w", err)
	}
	port := o.Port
	if port == 0 {
		port = server.RANDOM_PORT
	}
	srv, err := server.NewServer(&server.Options{
		ServerName: "gantry", Host: loopback, Port: port, Authorization: o.Token,
		JetStream: true, StoreDir: o.Dir, JetStreamMaxStore: maxStore,
		SyncAlways: !o.NoSync, NoSigs: true, DisableJetStreamBanner: true,
	})
	if err != nil {
		return nil, fmt.Errorf("create NATS server: %w", err)
	}
	log := &logger{log: o.Log}
	srv.SetLoggerV2(log, false, false, false)
	srv.Start()
	if !srv.ReadyForConnections(startTimeout) {
		srv.Shutdown()
		srv.WaitForShutdown()
		return nil, fmt.Errorf("start NATS server: it is not ready after %s%s", startTimeout, log.lastError())
	}
	return &Server{server: srv}, nil
}

// checkPort looks for a free port beforehand, since the server itself tells
// only its log.
func checkPort(port int) error {
	address := net.JoinHostPort(loopback, strconv.Itoa(port))
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrPortTaken, address, err)
	}
	return listener.Close()
}

// URL is the address for clients.
func (s *Server) URL() string { return "nats://" + s.server.Addr().String() }

// Stop ends the server and returns when its data is on disk.
func (s *Server) Stop() {
	s.server.Shutdown()
	s.server.WaitForShutdown()
}
