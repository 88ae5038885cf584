package setup

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/testport"
)

// natsConfig is the configuration of one server; cluster is empty for one that
// stands alone.
const natsConfig = `server_name: %s
listen: 127.0.0.1:%d
authorization { token: %q, timeout: 30 }
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
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", testport.Reserve(t)))
		routes = append(routes, fmt.Sprintf("nats-route://127.0.0.1:%d", testport.Reserve(t)))
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
