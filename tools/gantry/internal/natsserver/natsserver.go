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

// startTimeout bounds the time until a server listens that has recovered its
// streams and says nothing of what keeps it. One that cannot run says so at once.
const startTimeout = 2 * time.Minute

// readyEvery is how often a server is asked whether it has given up.
const readyEvery = 100 * time.Millisecond

// authTime is how many seconds a client may take to say who it is: more than a
// machine with a lot to do stands still, unlike the server's own two.
const authTime = 30

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
		ServerName: "gantry", Host: loopback, Port: port, Authorization: o.Token, AuthTimeout: authTime,
		JetStream: true, StoreDir: o.Dir, JetStreamMaxStore: maxStore,
		SyncAlways: !o.NoSync, NoSigs: true, DisableJetStreamBanner: true,
	})
	if err != nil {
		return nil, fmt.Errorf("create NATS server: %w", err)
	}
	log := &logger{log: o.Log}
	srv.SetLoggerV2(log, false, false, false)
	srv.Start()
	if err := awaitReady(srv, log); err != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
		// Somebody else may have taken the port since it was looked at.
		return nil, errors.Join(fmt.Errorf("start NATS server: %w", err), checkPort(o.Port))
	}
	return &Server{server: srv}, nil
}

// awaitReady returns when clients can connect, or why they never can.
func awaitReady(srv *server.Server, log *logger) error {
	for deadline := time.Now().Add(startTimeout); ; {
		ready := srv.ReadyForConnections(readyEvery)
		switch {
		case log.gaveUp():
			return errors.New(log.lastError())
		case ready:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("it is not ready after %s; its last error: %q", startTimeout, log.lastError())
		}
	}
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
