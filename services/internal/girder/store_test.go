package girder_test

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// atStore chooses requests to the object store.
func atStore(fault *girdersim.Fault) func(*http.Request) *girdersim.Fault {
	return func(r *http.Request) *girdersim.Fault {
		if strings.HasPrefix(r.URL.Path, "/api/v1/") {
			return nil
		}
		return fault
	}
}

// The bytes lie in an object store that refuses whoever shows it a token, and
// knows Range alone.
func TestObjectStore(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusSeeOther, http.StatusTemporaryRedirect} {
		s := startSiteWith(t, girdersim.Options{ObjectStore: &girdersim.ObjectStore{Status: status}})
		c := s.client(t, s.token)
		size := int64(len(content))
		for _, offset := range []int64{0, 7, size} {
			s.ForgetRequests()
			d, err := c.DownloadFile(t.Context(), girder.FileID(s.file.ID), offset)
			if err != nil {
				t.Fatalf("%d, from %d: %v", status, offset, err)
			}
			got, err := io.ReadAll(d)
			if string(got) != content[offset:] || err != nil || d.Size != size || d.Close() != nil {
				t.Errorf("%d, from %d: %q of %d, %v", status, offset, got, d.Size, err)
			}
			var sent int64
			for _, r := range s.Requests() {
				if r.ObjectStore && r.Status < 400 {
					sent += r.Sent
				}
			}
			if sent != size-offset {
				t.Errorf("%d, from %d: the store sent %d bytes", status, offset, sent)
			}
		}
	}
}

// A URL that Girder signs does not live long: whoever tries again asks Girder.
func TestEachRetryStartsAtGirder(t *testing.T) {
	t.Parallel()
	s := startSiteWith(t, girdersim.Options{ObjectStore: &girdersim.ObjectStore{}})
	c := s.client(t, s.token)
	faults := make(chan *girdersim.Fault, 3)
	for range 3 {
		faults <- &girdersim.Fault{Status: http.StatusServiceUnavailable}
	}
	s.SetFault(func(r *http.Request) *girdersim.Fault {
		if strings.HasPrefix(r.URL.Path, "/api/v1/") {
			return nil
		}
		select {
		case fault := <-faults:
			s.ExpireURLs()
			return fault
		default:
			return nil
		}
	})
	d, err := c.DownloadFile(t.Context(), girder.FileID(s.file.ID), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if got, err := io.ReadAll(d); string(got) != content || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	var asked []bool
	for _, r := range s.Requests() {
		asked = append(asked, r.ObjectStore)
	}
	if diff := cmp.Diff([]bool{false, true, false, true, false, true, false}, asked[:min(len(asked), 7)]); diff != "" {
		t.Errorf("asked of the store (-want +got)\n%s", diff)
	}
}

func TestErrorsOfTheObjectStore(t *testing.T) {
	t.Parallel()
	s := startSiteWith(t, girdersim.Options{ObjectStore: &girdersim.ObjectStore{}})
	at, err := url.Parse(s.ObjectStoreURL())
	if err != nil {
		t.Fatal(err)
	}
	c, err := girder.New(girder.Options{APIURL: s.APIURL(), Token: s.token, Retry: girder.Retry{Total: -1}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdle)
	const denied = `<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Request has expired</Message><AWSAccessKeyId>AKIA</AWSAccessKeyId></Error>`
	for name, test := range map[string]struct {
		fault     *girdersim.Fault
		class     error // nil: no answer
		temporary bool
		want      string
	}{
		"denied":    {&girdersim.Fault{Status: 403, Body: denied, ContentType: "application/xml"}, girder.ErrElsewhere, false, "403 Forbidden: AccessDenied: Request has expired"},
		"who":       {&girdersim.Fault{Status: 401, Body: "no", ContentType: "text/plain"}, girder.ErrElsewhere, false, "401 Unauthorized: no"},
		"gone":      {&girdersim.Fault{Status: 404, Body: "no", ContentType: "text/plain"}, girder.ErrElsewhere, false, "404 Not Found: no"},
		"slow down": {&girdersim.Fault{Status: 503}, girder.ErrServer, true, "503 Service Unavailable"},
		"rate":      {&girdersim.Fault{Status: 429}, girder.ErrRateLimited, true, "429 Too Many Requests"},
		"closed":    {&girdersim.Fault{Close: true}, nil, true, "EOF"},
	} {
		s.SetFault(atStore(test.fault))
		_, err := c.DownloadFile(t.Context(), girder.FileID(s.file.ID), 3)
		var refusal *girder.Error
		var broken *girder.Unreachable
		switch {
		case test.class != nil && (!errors.As(err, &refusal) || !errors.Is(err, test.class) || refusal.Host != at.Host):
			t.Errorf("%s: %v", name, err)
		case test.class == nil && (!errors.As(err, &broken) || broken.Host != at.Host):
			t.Errorf("%s: %v", name, err)
		case errors.Is(err, girder.ErrUnauthorized) || errors.Is(err, girder.ErrForbidden) || errors.Is(err, girder.ErrNotFound):
			t.Errorf("%s: it is taken for Girder's: %v", name, err)
		case girder.IsTemporary(err) != test.temporary:
			t.Errorf("%s: temporary is not %t: %v", name, test.temporary, err)
		case !strings.Contains(err.Error(), "redirected to "+at.Host+": "+test.want):
			t.Errorf("%s: %v", name, err)
		case strings.Contains(err.Error(), "ignature") || strings.Contains(err.Error(), "AKIA"):
			t.Errorf("%s: it shows how the URL is signed: %v", name, err)
		}
	}
	s.SetFault(atStore(&girdersim.Fault{CutAfter: 2}))
	d, err := c.DownloadFile(t.Context(), girder.FileID(s.file.ID), 0)
	if err == nil {
		_, err = io.ReadAll(d)
		_ = d.Close()
	}
	if !girder.IsTemporary(err) || !strings.Contains(err.Error(), "redirected to "+at.Host+": ") {
		t.Errorf("cut: %v", err)
	}
}
