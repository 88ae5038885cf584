package setup

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
)

// startNATS starts a NATS server with JetStream that syncs every message, and
// returns its process, URL and token.
func startNATS(t testing.TB, dir string) (p *Process, url, token string) {
	t.Helper()
	port, token := freePort(t), contracts.NewToken()
	config := filepath.Join(dir, "nats.conf")
	text := fmt.Sprintf("server_name: e2e\nlisten: 127.0.0.1:%d\nauthorization { token: %q }\njetstream { store_dir: %q, sync_interval: always }\n",
		port, token, filepath.Join(dir, "nats"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatalf("write configuration of NATS: %v", err)
	}
	p = newProcess(t, dir, natsServer, program(natsServer), nil, "-c", config)
	p.Start()
	return p, fmt.Sprintf("nats://127.0.0.1:%d", port), token
}

// freePort returns a port of the loopback interface that is free now.
func freePort(t testing.TB) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("find a free port: %v", err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	if err := listener.Close(); err != nil {
		t.Fatalf("find a free port: %v", err)
	}
	return port
}
