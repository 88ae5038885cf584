package setup

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
)

// natsConfig is the configuration of one server; cluster is empty for one that
// stands alone.
const natsConfig = `server_name: %s
listen: 127.0.0.1:%d
authorization { token: %q }
jetstream { store_dir: %q, sync_interval: always }
%s
`

// startNATS starts servers with JetStream that sync every message: one, or
// several that form a cluster. It returns them with their URL and token.
func startNATS(t testing.TB, dir string, servers int) (all []*Process, url, token string) {
	t.Helper()
	token = contracts.NewToken()
	var names, urls, routes []string
	for i := range servers {
		names = append(names, fmt.Sprintf("%s-%d", natsServer, i+1))
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", freePort(t)))
		routes = append(routes, fmt.Sprintf("nats-route://127.0.0.1:%d", freePort(t)))
	}
	if servers == 1 {
		names[0] = natsServer
	}
	for i, name := range names {
		cluster := ""
		if servers > 1 { // clients keep to the URLs that they were given
			cluster = fmt.Sprintf("cluster { name: e2e, listen: %q, no_advertise: true, routes: [%s] }",
				strings.TrimPrefix(routes[i], "nats-route://"), strings.Join(routes, ", "))
		}
		var port int
		if _, err := fmt.Sscanf(urls[i], "nats://127.0.0.1:%d", &port); err != nil {
			t.Fatalf("configure NATS: %v", err)
		}
		config := filepath.Join(dir, name+".conf")
		text := fmt.Sprintf(natsConfig, name, port, token, NATSFolder(dir, name), cluster)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatalf("write configuration of NATS: %v", err)
		}
		p := newProcess(t, dir, name, program(natsServer), nil, "-c", config)
		p.Start()
		all = append(all, p)
	}
	return all, strings.Join(urls, ","), token
}

// NATSFolder is where a server of a Gantry in dir keeps its data.
func NATSFolder(dir, server string) string { return filepath.Join(dir, "data-"+server) }

// Ports of servers that are ended and started again lie below those that the
// system gives to outgoing connections: nobody takes them in between.
const (
	firstPort = 15000
	lastPort  = 30000
)

var (
	portsMu sync.Mutex
	ports   = map[int]bool{} // given out
)

// freePort returns a port of the loopback interface that is free, and is given
// to nobody else in this process.
func freePort(t testing.TB) int {
	t.Helper()
	portsMu.Lock()
	defer portsMu.Unlock()
	for range 1000 {
		port := firstPort + rand.N(lastPort-firstPort)
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		if err := listener.Close(); err != nil {
			t.Fatalf("find a free port: %v", err)
		}
		if !ports[port] {
			ports[port] = true
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}
