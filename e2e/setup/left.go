package setup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// checkNothingIsLeft stops Gantry and looks for whatever it left. Secrets and
// messages go while the services live; the rest has to be gone when the
// executors have ended.
func (g *Gantry) checkNothingIsLeft() {
	defer g.Client.Close()
	// The test may have waited in vain: what it left is to be found all the same.
	var cancel context.CancelFunc
	g.ctx, cancel = context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := g.Girder.Up(); err != nil {
		g.T.Errorf("start Girder again: %v", err)
	}
	g.Girder.SetFault(nil)
	label := g.Label()
	if !g.T.Failed() {
		g.AwaitGone("secrets", g.secrets)
		g.AwaitGone("messages", g.waiting)
		g.AwaitGone("uploads", g.uploads)
	}
	if code := g.stop(); code != 0 {
		g.T.Errorf("exit code %d after SIGTERM", code)
	}
	errs := []error{g.Engine.removeAll(label), leftInWorkFolder(g.WorkRoot)}
	for _, node := range g.Nodes {
		errs = append(errs, node.Engine.removeAll(label), leftInWorkFolder(node.WorkRoot))
	}
	if err := errors.Join(errs...); err != nil {
		g.T.Errorf("something is left:\n%v", err)
	}
}

// Label is that of all containers of this Gantry.
func (g *Gantry) Label() string {
	g.T.Helper()
	return "gantry.installation=" + g.Installation()
}

// Installation is the id of this Gantry, which is there when an executor has
// started.
func (g *Gantry) Installation() string {
	g.T.Helper()
	var id string
	g.persist("read installation's id", func(ctx context.Context) error {
		kv, err := g.JetStream().KeyValue(ctx, contracts.BucketInstallation)
		if err != nil {
			return err
		}
		entry, err := kv.Get(ctx, contracts.InstallationKey)
		if err != nil {
			return err
		}
		id = string(entry.Value())
		return nil
	})
	return id
}

// stop stops all services, the executors first, and returns the highest exit
// code; those that do not run have none.
func (g *Gantry) stop() int {
	worst := 0
	for _, p := range g.services() {
		worst = max(worst, p.Stop())
	}
	return worst
}

// AwaitGone waits until nothing of a sort is left. It has to look again and
// again: what is purged leaves no marker, and nobody is told.
func (g *Gantry) AwaitGone(what string, left func() []string) {
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		found := left()
		if len(found) == 0 {
			return
		}
		select {
		case <-again.C:
		case <-g.ctx.Done():
			g.T.Errorf("%s are left: %v", what, found)
			return
		}
	}
}

// waiting are the messages that make somebody do something.
func (g *Gantry) waiting() []string {
	var all []string
	for _, name := range []string{contracts.StreamSubmit, contracts.StreamReady, contracts.StreamLater, contracts.StreamTransfers} {
		all = slices.AppendSeq(all, maps.Keys(g.subjects(name)))
	}
	return all
}

// subjects are those that a stream has messages on.
func (g *Gantry) subjects(name string) map[string]uint64 {
	g.T.Helper()
	var subjects map[string]uint64
	g.persist("list the subjects of "+name, func(ctx context.Context) error {
		stream, err := g.JetStream().Stream(ctx, name)
		if err != nil {
			return err
		}
		info, err := stream.Info(ctx, jetstream.WithSubjectFilter(">"))
		if err != nil {
			return err
		}
		subjects = info.State.Subjects
		return nil
	})
	return subjects
}

// MayLoseUploads says that a kill may have lost so many uploads: those that
// Girder had begun, and whose ids nobody had written down yet. They have no byte.
func (g *Gantry) MayLoseUploads(n int) {
	g.T.Helper()
	admin, err := g.Girder.CreateAdmin("operator", "password")
	if err == nil {
		g.operator, err = g.Girder.UserToken(admin.ID, girdersim.ScopeUser)
	}
	if err != nil {
		g.T.Fatalf("make an administrator: %v", err)
	}
	g.mayLose = n
}

// uploads says how many uploads are not finished in Girder, and should be.
func (g *Gantry) uploads() []string {
	n := g.Girder.OpenUploads()
	if n == 0 || n <= g.mayLose && g.areEmpty() {
		return nil
	}
	return []string{fmt.Sprintf("%d of them", n)}
}

// areEmpty reports whether no upload that is not finished has a byte.
func (g *Gantry) areEmpty() bool {
	var list []struct {
		Received int64 `json:"received"`
	}
	request, err := http.NewRequestWithContext(g.ctx, http.MethodGet, g.Girder.APIURL()+"/system/uploads?limit=0", nil)
	if err != nil {
		g.T.Fatalf("list uploads: %v", err)
	}
	request.Header.Set("Girder-Token", g.operator)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		g.T.Fatalf("list uploads: %v", err)
	}
	err = json.UnmarshalRead(response.Body, &list)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		g.T.Fatalf("list uploads: %v", err)
	}
	for _, upload := range list {
		if upload.Received > 0 {
			return false
		}
	}
	return true
}

// secrets are the keys of secrets, without those of failed jobs.
func (g *Gantry) secrets() []string {
	var keys []string
	for subject := range g.subjects("KV_" + contracts.BucketSecrets) {
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
