package girder_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/testport"
	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// site is a simulated Girder with a user, an item and a file.
type site struct {
	*girdersim.Server
	user  girdersim.User
	item  girdersim.Item
	file  girdersim.File
	token string // reads and writes data
}

const content = "Hello, Girder\n"

func startSite(t *testing.T) *site {
	t.Helper()
	return startSiteWith(t, girdersim.Options{})
}

func startSiteWith(t *testing.T, options girdersim.Options) *site {
	t.Helper()
	options.Addr = testport.Address(t)
	sim, err := girdersim.Start(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sim.Close() })
	s := &site{Server: sim}
	var folder girdersim.Folder
	for _, step := range []func() error{
		func() (err error) { s.user, err = sim.CreateUser("alice", "password"); return err },
		func() (err error) { folder, err = sim.CreateFolder(s.user.ID, "data", false); return err },
		func() (err error) { s.item, err = sim.CreateItem(folder.ID, "item"); return err },
		func() (err error) {
			s.file, err = sim.AddFile(s.item.ID, "in.txt", strings.NewReader(content))
			return err
		},
		func() (err error) {
			s.token, err = sim.UserToken(s.user.ID, girdersim.ScopeDataRead, girdersim.ScopeDataWrite)
			return err
		},
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *site) client(t *testing.T, token string) *girder.Client {
	t.Helper()
	c, err := girder.New(girder.Options{
		APIURL: s.APIURL(), Token: token,
		Retry: girder.Retry{Total: 10 * time.Minute, First: time.Millisecond, Max: 5 * time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdle)
	return c
}

func TestSimDownloadAndUpload(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	c := s.client(t, s.token)
	doc, err := c.GetFile(t.Context(), girder.FileID(s.file.ID))
	if err != nil || doc.Name != "in.txt" || *doc.Size != int64(len(content)) || doc.ItemID != girder.ItemID(s.item.ID) {
		t.Fatalf("%+v, %v", doc, err)
	}
	for _, offset := range []int64{0, 7, int64(len(content))} {
		d, err := c.DownloadFile(t.Context(), doc.ID, offset)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(d)
		if err != nil || string(got) != content[offset:] || d.Size != int64(len(content)) {
			t.Errorf("from %d: %q, %v", offset, got, err)
		}
		_ = d.Close()
	}
	data := bytes.Repeat([]byte("0123456789"), girder.MinChunk/10+1)
	up, err := c.StartUpload(t.Context(), girder.NewFile{Parent: girder.InItem(doc.ItemID), Name: "big", Size: int64(len(data))})
	if err != nil {
		t.Fatal(err)
	}
	id := up.ID
	for at := int64(0); up.File == nil; at = up.Received {
		n := min(girder.MinChunk, int64(len(data))-at)
		if up, err = c.UploadChunk(t.Context(), id, at, bytes.NewReader(data[at:at+n]), n); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.ReadFile(string(up.File.ID)); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d other bytes, %v", len(got), err)
	}
	var names []string
	for f, err := range c.ListItemFiles(t.Context(), doc.ItemID) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, f.Name)
	}
	if strings.Join(names, " ") != "big in.txt" {
		t.Error(names)
	}
}

func TestSimRefusals(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	stranger, err := s.CreateUser("mallory", "password")
	if err != nil {
		t.Fatal(err)
	}
	hers, err := s.UserToken(stranger.ID, girdersim.ScopeUser)
	if err != nil {
		t.Fatal(err)
	}
	id := girder.FileID(s.file.ID)
	for name, test := range map[string]struct {
		token string
		id    girder.FileID
		want  error
	}{
		"no token":       {"", id, girder.ErrUnauthorized},
		"worthless":      {"nonsense-nonsense", id, girder.ErrUnauthorized},
		"somebody else":  {hers, id, girder.ErrForbidden},
		"unknown":        {s.token, "5f0c00000000000000000001", girder.ErrNotFound},
		"malformed":      {s.token, "nonsense", girder.ErrNotFound},
		"not an id even": {s.token, "../folder", girder.ErrNotFound},
	} {
		c := s.client(t, test.token)
		if _, err := c.GetFile(t.Context(), test.id); !errors.Is(err, test.want) || girder.IsTemporary(err) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := c.DownloadFile(t.Context(), test.id, 0); !errors.Is(err, test.want) {
			t.Errorf("%s: download: %v", name, err)
		}
	}
}

func TestSimOutageIsWaitedOut(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	c := s.client(t, s.token)
	s.Down()
	answered := make(chan error, 1)
	go func() {
		_, err := c.GetFile(t.Context(), girder.FileID(s.file.ID))
		answered <- err
	}()
	if err := s.Up(); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
}

func TestSimJob(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	token, err := s.UserToken(s.user.ID, girdersim.ScopeCreateJob)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.client(t, s.token).CreateJob(t.Context(), girder.NewJob{Title: "t", Type: "docker_run"})
	if !errors.Is(err, girder.ErrUnauthorized) && !errors.Is(err, girder.ErrForbidden) {
		t.Fatal("created without the scope:", err)
	}
	created, err := s.client(t, token).CreateJob(t.Context(), girder.NewJob{
		Title: "t", Type: "docker_run", Handler: "celery_handler", OtherFields: []byte(`{"celeryTaskId":"x"}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	job, err := girder.NewJobClient(*created.Spec, girder.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(job.CloseIdle)
	running, success := contracts.GirderRunning, contracts.GirderSuccess
	if _, err := job.Update(t.Context(), girder.JobUpdate{Status: &success, Log: "not stored"}); !errors.Is(err, girder.ErrValidation) {
		t.Fatal("success from inactive:", err)
	}
	half := 0.5
	updated, err := job.Update(t.Context(), girder.JobUpdate{Status: &running, Log: "a;b\xff\n", Progress: girder.Progress{Current: &half}})
	if err != nil || updated.Status != running || updated.Log != nil {
		t.Fatalf("%+v, %v", updated, err)
	}
	read, err := job.Get(t.Context())
	if err != nil || len(read.Log) != 1 || read.Log[0] != "a;b\uFFFD\n" || *read.Progress.Current != half {
		t.Fatalf("%+v, %v", read, err)
	}
	seen, err := s.AwaitJob(t.Context(), string(created.ID), func(j girdersim.Job) bool { return j.Status == int(running) })
	if err != nil || len(seen.Timestamps) != 1 {
		t.Fatalf("%+v, %v", seen, err)
	}
}

func TestSimTokens(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	known, err := s.client(t, s.token).CurrentToken(t.Context())
	if err != nil || len(known.Scope) != 2 || known.UserID != girder.UserID(s.user.ID) {
		t.Fatalf("%+v, %v", known, err)
	}
	if none, err := s.client(t, "nonsense-nonsense").CurrentToken(t.Context()); none != nil || err != nil {
		t.Fatalf("%+v, %v", none, err)
	}
}

func TestSimFaults(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	faults := make(chan *girdersim.Fault, 4)
	for _, fault := range []*girdersim.Fault{
		{Status: http.StatusTooManyRequests}, {Close: true}, {Status: http.StatusBadGateway, Body: "<html>bad</html>", ContentType: "text/html"}, {CutAfter: 5},
	} {
		faults <- fault
	}
	s.SetFault(func(*http.Request) *girdersim.Fault {
		select {
		case fault := <-faults:
			return fault
		default:
			return nil
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	if _, err := s.client(t, s.token).GetFile(ctx, girder.FileID(s.file.ID)); err != nil || len(faults) != 0 {
		t.Fatal(err, len(faults))
	}
}
