package setup

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// Girder is a simulated Girder with one user, and the tokens that a client of
// that user has.
type Girder struct {
	*girdersim.Server
	t    testing.TB
	User girdersim.User
	// Folder is the parent of all items.
	Folder girdersim.Folder
	// DataAccess reads and writes, JobAccess creates jobs, Login may do whatever
	// the user may.
	DataAccess, JobAccess, Login string
}

func startGirder(t testing.TB, options girdersim.Options) *Girder {
	t.Helper()
	sim, err := girdersim.Start(options)
	if err != nil {
		t.Fatalf("start Girder: %v", err)
	}
	t.Cleanup(func() {
		if err := sim.Close(); err != nil {
			t.Errorf("close Girder: %v", err)
		}
	})
	g := &Girder{Server: sim, t: t}
	g.User, err = sim.CreateUser("alice", "password")
	if err != nil {
		t.Fatalf("create user: %v", err)
	}
	g.Folder, err = sim.CreateFolder(g.User.ID, "data", false)
	if err != nil {
		t.Fatalf("create folder: %v", err)
	}
	g.DataAccess = g.NewToken(girdersim.ScopeDataRead, girdersim.ScopeDataWrite)
	g.JobAccess = g.NewToken(girdersim.ScopeCreateJob)
	g.Login = g.NewToken(girdersim.ScopeUser)
	return g
}

// NewToken makes a token of the user.
func (g *Girder) NewToken(scopes ...string) string {
	g.t.Helper()
	token, err := g.UserToken(g.User.ID, scopes...)
	if err != nil {
		g.t.Fatalf("make token: %v", err)
	}
	return token
}

// Item makes an empty item.
func (g *Girder) Item(name string) girdersim.Item {
	g.t.Helper()
	item, err := g.CreateItem(g.Folder.ID, name)
	if err != nil {
		g.t.Fatalf("create item: %v", err)
	}
	return item
}

// File makes an item with one file and returns the file.
func (g *Girder) File(name string, content []byte) girdersim.File {
	g.t.Helper()
	file, err := g.AddFile(g.Item(name).ID, name, bytes.NewReader(content))
	if err != nil {
		g.t.Fatalf("add file: %v", err)
	}
	return file
}

// Of returns a task's way to this Girder, with a Girder job of that title.
func (g *Girder) Of(title string) *contracts.Girder {
	return &contracts.Girder{
		APIURL: g.APIURL(), Token: contracts.Secret(g.DataAccess),
		Job: &contracts.GirderJob{Token: contracts.Secret(g.JobAccess), Title: title, Type: contracts.TaskDockerRun},
	}
}

// JobOf waits for the Girder job of a job of ours, and for the condition.
func (g *Girder) JobOf(ctx context.Context, ref *contracts.GirderJobRef, condition func(girdersim.Job) bool) girdersim.Job {
	g.t.Helper()
	job, err := g.AwaitJob(ctx, ref.ID, condition)
	if err != nil {
		g.t.Fatalf("await Girder job: %v (it is %+v)", err, job)
	}
	return job
}

// Cancel cancels a Girder job as a person does, with Girder's REST interface.
func (g *Girder) Cancel(ctx context.Context, id string) {
	g.t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodPut, g.APIURL()+"/job/"+id+"/cancel", nil)
	if err != nil {
		g.t.Fatal(err)
	}
	request.Header.Set("Girder-Token", g.Login)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		g.t.Fatalf("cancel Girder job: %v", err)
	}
	if err := response.Body.Close(); err != nil {
		g.t.Errorf("cancel Girder job: %v", err)
	}
	if response.StatusCode != http.StatusOK {
		g.t.Fatalf("cancel Girder job: %s", response.Status)
	}
}

// Uploaded returns the only file of an item.
func (g *Girder) Uploaded(itemID string) (girdersim.File, []byte) {
	g.t.Helper()
	files := g.Files(itemID)
	if len(files) != 1 {
		g.t.Fatalf("the item has %d files, want 1", len(files))
	}
	content, err := g.ReadFile(files[0].ID)
	if err != nil {
		g.t.Fatalf("read uploaded file: %v", err)
	}
	return files[0], content
}

// SHA512 is a content's checksum in Girder's form.
func SHA512(content []byte) string {
	sum := sha512.Sum512(content)
	return hex.EncodeToString(sum[:])
}

// LogOf is all of a Girder job's log.
func LogOf(job girdersim.Job) string { return strings.Join(job.Log, "") }
