package mirror

import (
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/girder"
)

// Mirrors at one Girder share what bounds their requests, and those behind a
// proxy of their task's own do so among themselves.
func TestHostsAreShared(t *testing.T) {
	t.Parallel()
	clients := girder.NewClients(girder.ClientLimits{})
	defer clients.Close()
	all := hosts{byName: map[string]*host{}}
	of := func(proxy contracts.Secret, url string) *host {
		t.Helper()
		client, done, err := clients.For(&contracts.GirderSession{Proxies: map[string]contracts.Secret{"all": proxy}})
		if err != nil {
			t.Fatal(err)
		}
		defer done()
		host, err := all.of(client, url)
		if err != nil {
			t.Fatal(err)
		}
		return host
	}
	direct, proxied := of("", "https://girder.example.org/api/v1"), of("http://u:p@proxy:3128", "https://girder.example.org/api/v1")
	for what, same := range map[string]bool{
		"the name written otherwise": direct == of("", "https://Girder.example.org:443/api/v1/job/1"),
		"another server":             direct != of("", "https://girder.example.org:8443/api/v1"),
		"behind a proxy":             direct != proxied,
		"behind the same proxy":      proxied == of("http://proxy:3128", "https://girder.example.org/api/v1"),
		"behind another":             proxied != of("http://other:3128", "https://girder.example.org/api/v1"),
	} {
		if !same {
			t.Error(what)
		}
	}
}
