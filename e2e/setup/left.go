package setup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
)

// checkNothingIsLeft stops Gantry and looks for whatever it left. Secrets go
// while job-tracker lives; the rest has to be gone when the executor has ended.
func (g *Gantry) checkNothingIsLeft() {
	defer g.Client.Close()
	if err := g.Girder.Up(); err != nil {
		g.T.Errorf("start Girder again: %v", err)
	}
	g.Girder.SetFault(nil)
	label := g.label()
	if !g.T.Failed() {
		g.awaitSecretsGone()
	}
	if code := g.stop(); code != 0 {
		g.T.Errorf("exit code %d after SIGTERM", code)
	}
	err := errors.Join(g.Engine.removeAll(label), leftInWorkFolder(g.WorkRoot))
	if err != nil {
		g.T.Errorf("something is left:\n%v", err)
	}
}

// label is that of all containers of this Gantry.
func (g *Gantry) label() string {
	g.T.Helper()
	kv, err := g.JetStream().KeyValue(g.ctx, contracts.BucketInstallation)
	if err != nil {
		g.T.Fatalf("read installation's id: %v", err)
	}
	id, err := kv.Get(g.ctx, contracts.InstallationKey)
	if err != nil {
		g.T.Fatalf("read installation's id: %v", err)
	}
	return "gantry.installation=" + string(id.Value())
}

// stop stops all services, the executor first, and returns the highest exit
// code; those that do not run have none.
func (g *Gantry) stop() int {
	if g.Up != nil {
		return g.Up.Stop()
	}
	worst := 0
	for _, name := range []string{Executor, Transfer, Dispatcher, Tracker} {
		worst = max(worst, g.Services[name].Stop())
	}
	return worst
}

// awaitSecretsGone waits until there are no secrets but those of failed jobs,
// which are kept for a while. It has to look again and again: what is purged
// leaves no marker, and nobody is told.
func (g *Gantry) awaitSecretsGone() {
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		left := g.secrets()
		if len(left) == 0 {
			return
		}
		select {
		case <-again.C:
		case <-g.ctx.Done():
			g.T.Errorf("secrets are left: %v", left)
			return
		}
	}
}

// secrets are the keys of secrets, without those of failed jobs.
func (g *Gantry) secrets() []string {
	stream, err := g.JetStream().Stream(g.ctx, "KV_"+contracts.BucketSecrets)
	if err != nil {
		g.T.Fatalf("open bucket of secrets: %v", err)
	}
	info, err := stream.Info(g.ctx, jetstream.WithSubjectFilter(">"))
	if err != nil {
		g.T.Fatalf("list secrets: %v", err)
	}
	var keys []string
	for subject := range info.State.Subjects {
		key := strings.TrimPrefix(subject, "$KV."+contracts.BucketSecrets+".")
		job, _, _ := strings.Cut(key, ".")
		if !strings.HasSuffix(g.Types(contracts.JobID(job)), string(contracts.EntryFailed)) {
			keys = append(keys, key)
		}
	}
	return keys
}

// leftInWorkFolder reports folders of attempts and pipes.
func leftInWorkFolder(root string) error {
	var errs []error
	attempts, err := os.ReadDir(filepath.Join(root, "attempts"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, attempt := range attempts {
		errs = append(errs, fmt.Errorf("folder of attempt %s is left", attempt.Name()))
	}
	walkErr := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type() == fs.ModeNamedPipe {
			errs = append(errs, fmt.Errorf("pipe %s is left", path))
		}
		return err
	})
	if errors.Is(walkErr, fs.ErrNotExist) {
		walkErr = nil
	}
	return errors.Join(append(errs, walkErr)...)
}

// readServer returns how to reach the server of a data folder's `gantry up`.
func readServer(t testing.TB, data string) client.Config {
	t.Helper()
	var server struct {
		URL   string `json:"url"`
		Token string `json:"token"`
	}
	text, err := os.ReadFile(filepath.Join(data, "nats.json"))
	if err == nil {
		err = json.Unmarshal(text, &server)
	}
	if err != nil {
		t.Fatalf("find the server of gantry up: %v", err)
	}
	return client.Config{URL: server.URL, Token: server.Token}
}
