package bus_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// Whichever server is asked, what was stored is there, also where that server
// comes a little behind.
func TestWhatWasStoredIsReadFromAnyServer(t *testing.T) {
	t.Parallel()
	cluster := natstest.StartCluster(t)
	config := cluster.Config()
	var connections []*bus.Bus
	for i, url := range strings.Split(config.URL, ",") {
		config.URL = url
		b, err := bus.Open(t.Context(), config, "test", fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Close)
		connections = append(connections, b)
	}
	installation, err := connections[0].Installation(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range connections[1:] {
		if got, err := b.Installation(t.Context()); got != installation || err != nil {
			t.Errorf("installation at server %d: %q, %v, want %q", i+1, got, err, installation)
		}
	}
	const jobs = 60
	for n := range jobs {
		job := contracts.JobID(fmt.Sprintf("job-%d", n))
		if err := connections[n%len(connections)].PutSecrets(t.Context(), job, contracts.SecretIO, contracts.Secrets{"token": "secret"}); err != nil {
			t.Fatal(err)
		}
		for i, b := range connections {
			if got, err := b.Secrets(t.Context(), job, contracts.SecretIO); len(got) != 1 || err != nil {
				t.Errorf("secrets of %s at server %d: %d, %v, want 1", job, i, len(got), err)
			}
		}
	}
	if got, err := connections[0].Secrets(t.Context(), "another", contracts.SecretIO); got != nil || err != nil {
		t.Errorf("secrets of a job without any: %v, %v", got, err)
	}
}
