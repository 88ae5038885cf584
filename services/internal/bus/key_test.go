package bus_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
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
	if ids := installations(t, connections); len(slices.Compact(ids)) != 1 || ids[0] == "" {
		t.Errorf("installations %q, want one", ids)
	}
	for range 60 {
		if err := connections[0].Purge(t.Context(), "KV_"+contracts.BucketInstallation, "$KV."+contracts.BucketInstallation+"."+contracts.InstallationKey); err != nil {
			t.Fatal(err)
		}
		installations(t, connections)
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

// TestDeletedKey: a key that somebody deleted, and left a mark of that, is not there,
// and takes further secrets.
func TestDeletedKey(t *testing.T) {
	t.Parallel()
	b := open(t, natstest.Start(t), "a")
	kv, err := b.JetStream().KeyValue(t.Context(), contracts.BucketSecrets)
	if err != nil {
		t.Fatal(err)
	}
	for job, remove := range map[contracts.JobID]func(key string) error{
		"deleted": func(key string) error { return kv.Delete(t.Context(), key) },
		"purged":  func(key string) error { return kv.Purge(t.Context(), key) },
	} {
		if err := b.PutSecrets(t.Context(), job, contracts.SecretIO, contracts.Secrets{"token": "secret"}); err != nil {
			t.Fatal(err)
		}
		if err := remove(string(job) + "." + string(contracts.SecretIO)); err != nil {
			t.Fatal(err)
		}
		if got, err := b.Secrets(t.Context(), job, contracts.SecretIO); got != nil || err != nil {
			t.Errorf("%s: %d secrets, %v", job, len(got), err)
		}
		added := contracts.Secrets{"other": "secret"}
		if got, err := b.AddSecrets(t.Context(), job, contracts.SecretIO, added); len(got) != 1 || err != nil {
			t.Errorf("%s: %d secrets after one was added, %v", job, len(got), err)
		}
		if got, err := b.Secrets(t.Context(), job, contracts.SecretIO); len(got) != 1 || err != nil {
			t.Errorf("%s: %d secrets are there, %v", job, len(got), err)
		}
	}
}

// installations asks for the id many times at once: the one that is made is still
// on its way when others find that there is one.
func installations(t *testing.T, connections []*bus.Bus) []string {
	t.Helper()
	ids := make([]string, 5*len(connections))
	var asking sync.WaitGroup
	for i := range ids {
		asking.Go(func() {
			var err error
			if ids[i], err = connections[i%len(connections)].Installation(t.Context()); err != nil {
				t.Errorf("installation: %v", err)
			}
		})
	}
	asking.Wait()
	return ids
}
