package stage

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// jobSite is a Girder with a job, with or without an endpoint for artifacts.
type jobSite struct {
	*site
	job   girdersim.Job
	asked atomic.Int32
}

func startJobSite(t *testing.T, artifacts bool) *jobSite {
	t.Helper()
	s := &jobSite{site: startSiteWith(t, girdersim.Options{Artifacts: artifacts})}
	user, err := s.FindUser("alice")
	if err != nil {
		t.Fatal(err)
	}
	if s.job, err = s.Server.CreateJob(girdersim.JobSpec{Title: "t", UserID: user.ID}); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *jobSite) which(context.Context) (girder.JobID, error) {
	s.asked.Add(1)
	return girder.JobID(s.job.ID), nil
}

func (s *jobSite) attached(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, file := range s.Artifacts(s.job.ID) {
		data, err := s.ReadFile(file.ID)
		if err != nil {
			t.Fatal(err)
		}
		found[file.Name+" "+file.MimeType] += string(data)
	}
	return found
}

func TestAttach(t *testing.T) {
	t.Parallel()
	s, volume := startJobSite(t, true), t.TempDir()
	write(t, volume, "debug/a.csv", "a,b")
	write(t, volume, "debug/core", "dump")
	write(t, volume, "debug/empty.txt", "")
	write(t, volume, "debug/deeper/not.txt", "no")
	if err := os.Symlink("a.csv", filepath.Join(volume, "debug/link")); err != nil {
		t.Fatal(err)
	}
	var warnings []string
	o := Out{Volume: volume, Path: "debug", Retry: quick, Warn: func(text string) { warnings = append(warnings, text) }}
	sent, err := o.Attach(t.Context(), s.Client, s.which)
	if err != nil || len(sent) != 3 || sent[0].FileID == "" || len(sent[0].SHA512) != 128 {
		t.Fatal(sent, err)
	}
	want := map[string]string{"a.csv text/csv": "a,b", "core application/octet-stream": "dump", "empty.txt text/plain": ""}
	if diff := cmp.Diff(want, s.attached(t)); diff != "" {
		t.Error(diff)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "debug/link") {
		t.Error(warnings)
	}
	o.Path, o.Name = "debug/core", "core dump.bin"
	if _, err := o.Attach(t.Context(), s.Client, s.which); err != nil || s.attached(t)["core dump.bin application/octet-stream"] != "dump" {
		t.Error(err, s.attached(t))
	}
}

func TestAttachNothing(t *testing.T) {
	t.Parallel()
	s, volume := startJobSite(t, true), t.TempDir()
	if err := os.Mkdir(filepath.Join(volume, "hollow"), 0o777); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"none", "hollow", "none/deeper"} {
		sent, err := Out{Volume: volume, Path: path, MustExist: true, Retry: quick}.Attach(t.Context(), s.Client, s.which)
		if err != nil || sent != nil || s.asked.Load() != 0 || len(s.Requests()) != 0 {
			t.Errorf("%s: %v, %v, asked %v", path, sent, err, s.Requests())
		}
	}
}

func TestAttachWhereGirderHasNoEndpoint(t *testing.T) {
	t.Parallel()
	s, volume := startJobSite(t, false), t.TempDir()
	write(t, volume, "debug/a", "a")
	write(t, volume, "debug/b", "b")
	_, err := Out{Volume: volume, Path: "debug", Retry: quick}.Attach(t.Context(), s.Client, s.which)
	if !errors.Is(err, girder.ErrNoRoute) || len(s.Requests()) != 2 {
		t.Error(err, s.Requests())
	}
	s.SetFault(func(*http.Request) *girdersim.Fault {
		return &girdersim.Fault{Status: 404, Body: "<p>nothing here", ContentType: "text/html"}
	})
	if _, err := (Out{Volume: volume, Path: "debug", Retry: quick}).Attach(t.Context(), s.Client, s.which); !errors.Is(err, girder.ErrNoRoute) {
		t.Error(err)
	}
}

// TestAttachOnceThroughErrors loses requests and answers.
func TestAttachOnceThroughErrors(t *testing.T) {
	t.Parallel()
	s, volume := startJobSite(t, true), t.TempDir()
	content := string(noise(3 << 20))
	write(t, volume, "debug/big", content)
	write(t, volume, "debug/small", "s")
	var requests atomic.Int32
	s.SetFault(func(*http.Request) *girdersim.Fault {
		switch requests.Add(1) {
		case 1, 5:
			return &girdersim.Fault{Status: http.StatusServiceUnavailable}
		case 3, 7:
			return &girdersim.Fault{Perform: true, Close: true}
		case 4:
			return &girdersim.Fault{Close: true}
		}
		return nil
	})
	if sent, err := (Out{Volume: volume, Path: "debug", Retry: quick}).Attach(t.Context(), s.Client, s.which); err != nil || len(sent) != 2 {
		t.Fatal(sent, err)
	}
	want := map[string]string{"big application/octet-stream": content, "small application/octet-stream": "s"}
	if diff := cmp.Diff(want, s.attached(t)); diff != "" || len(s.Artifacts(s.job.ID)) != 2 {
		t.Error(s.Artifacts(s.job.ID))
	}
}

// TestAttachGoesOn: a later process sends nothing again, whatever answer its
// predecessor did not hear.
func TestAttachGoesOn(t *testing.T) {
	t.Parallel()
	for lost := range 3 {
		s, volume := startJobSite(t, true), t.TempDir()
		write(t, volume, "debug/a", "a")
		write(t, volume, "debug/b", "b")
		ctx, dies := context.WithCancelCause(t.Context())
		requests := 0
		s.SetFault(func(r *http.Request) *girdersim.Fault {
			if r.Method != http.MethodPost {
				return nil
			}
			if requests++; requests == lost+1 {
				dies(ErrSuspended)
				return &girdersim.Fault{Perform: true, Close: true}
			}
			return nil
		})
		var disk keeper
		o := Out{Volume: volume, Path: "debug", Retry: quick, Remember: disk.remember}
		_, err := o.Attach(ctx, s.Client, s.which)
		if errors.Is(err, ErrSuspended) != (lost < 2) {
			t.Fatal(lost, err)
		}
		// What was lost is done before anybody asks for it.
		if _, err := s.AwaitRequest(t.Context(), func(r girdersim.Request) bool {
			return r.Method == http.MethodPost && strings.Contains(r.Query, "name="+[]string{"a", "b", "b"}[lost])
		}); err != nil {
			t.Fatal(err)
		}
		o.Memory = disk.Memory
		sent, err := o.Attach(t.Context(), s.Client, s.which)
		if err != nil || len(sent) != 2 || len(s.Artifacts(s.job.ID)) != 2 {
			t.Errorf("lost %d: %v, %v, %v", lost, sent, err, s.Artifacts(s.job.ID))
		}
		dies(nil)
	}
}

// TestAttachBesideAnEarlierOne of the same name and size: where the request is
// lost, with the process or not, that one is not taken for ours.
func TestAttachBesideAnEarlierOne(t *testing.T) {
	t.Parallel()
	for _, dies := range []bool{false, true} {
		s, volume := startJobSite(t, true), t.TempDir()
		write(t, volume, "a", "old")
		o := Out{Volume: volume, Path: "a", Retry: quick}
		first, err := o.Attach(t.Context(), s.Client, s.which)
		if err != nil {
			t.Fatal(err)
		}
		write(t, volume, "a", "new")
		ctx, die := context.WithCancelCause(t.Context())
		lost := false
		s.SetFault(func(r *http.Request) *girdersim.Fault {
			if lost || r.Method != http.MethodPost {
				return nil
			}
			if lost = true; dies {
				die(ErrSuspended)
			}
			return &girdersim.Fault{Close: true}
		})
		var disk keeper
		o.Remember = disk.remember
		sent, err := o.Attach(ctx, s.Client, s.which)
		if dies {
			if !errors.Is(err, ErrSuspended) {
				t.Fatal(err)
			}
			o.Memory = disk.Memory
			sent, err = o.Attach(t.Context(), s.Client, s.which)
		}
		die(nil)
		if err != nil || len(sent) != 1 || sent[0].FileID == first[0].FileID || len(s.Artifacts(s.job.ID)) != 2 {
			t.Errorf("dies %t: %v after %v, %v", dies, sent, first, err)
		}
	}
}

// TestAttachTheOthersWhereOneIsRefused by its size, or because it is no file.
func TestAttachTheOthersWhereOneIsRefused(t *testing.T) {
	t.Parallel()
	s, volume := startJobSite(t, true), t.TempDir()
	write(t, volume, "debug/a", "a")
	write(t, volume, "debug/b", "b")
	s.SetFault(func(r *http.Request) *girdersim.Fault {
		if strings.Contains(r.URL.RawQuery, "name=a") {
			return &girdersim.Fault{Status: http.StatusRequestEntityTooLarge, Body: "too large", ContentType: "text/plain"}
		}
		return nil
	})
	sent, err := Out{Volume: volume, Path: "debug", Retry: quick}.Attach(t.Context(), s.Client, s.which)
	if err == nil || !strings.Contains(err.Error(), "debug/a") || len(sent) != 1 || sent[0].Name != "b" {
		t.Error(sent, err)
	}
	s.Down()
	if _, err := (Out{Volume: volume, Path: "debug", Retry: impatient}).Attach(t.Context(), s.Client, s.which); !girder.IsTemporary(err) {
		t.Error(err)
	}
}
