package natstest_test

import (
	"net"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/gantry-worker/gantry/contracts/client/natstest"
)

// TestRunSaysWhyItDoesNot: a server tells its log alone that a port is taken.
func TestRunSaysWhyItDoesNot(t *testing.T) {
	t.Parallel()
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	port := taken.Addr().(*net.TCPAddr).Port
	for name, options := range map[string]server.Options{
		"client's port": {Port: port},
		"route's port":  {Port: server.RANDOM_PORT, Cluster: server.ClusterOpts{Name: "taken", Host: "127.0.0.1", Port: port}},
	} {
		options.Host, options.NoSigs, options.NoLog = "127.0.0.1", true, true
		srv, err := natstest.Run(&options)
		if err == nil {
			srv.Shutdown()
			t.Errorf("%s: runs on a port that is taken", name)
		} else if !strings.Contains(err.Error(), "address already in use") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
