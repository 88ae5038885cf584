package natsserver

import (
	"net"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/rs/zerolog"
)

// TestAServerThatCannotRunSaysSo: where somebody took the port after it was
// looked at, the server tells its log alone.
func TestAServerThatCannotRunSaysSo(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", net.JoinHostPort(loopback, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() //nolint:errcheck // nothing is served there
	srv, err := server.NewServer(&server.Options{Host: loopback, Port: taken.Addr().(*net.TCPAddr).Port, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	log := &logger{log: zerolog.Nop()}
	srv.SetLoggerV2(log, false, false, false)
	srv.Start()
	defer srv.Shutdown()
	if err := awaitReady(srv, log); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("got %v", err)
	}
}
