package girdersim

import (
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"
)

// redirected starts a server with an object store and a file, and returns where
// the download leads to.
func redirected(t *testing.T, o *ObjectStore, content string) (*bench, *http.Response) {
	t.Helper()
	b := newBench(t, Options{ObjectStore: o})
	i := must[Item](t)(b.sim.CreateItem(b.sim.Folders(b.owner.ID)[0].ID, "item"))
	f := must[File](t)(b.sim.AddFile(i.ID, "grün.txt", strings.NewReader(content)))
	return b, b.get(t, b.sim.APIURL()+"/file/"+f.ID+"/download?offset=3&endByte=5", http.Header{"Girder-Token": {b.token}})
}

// get asks without following redirects; the answer's body can be read again.
func (b *bench) get(t *testing.T, url string, header http.Header) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(req.Header, header)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body = io.NopCloser(strings.NewReader(string(text)))
	return resp
}

func text(t *testing.T, resp *http.Response) string {
	t.Helper()
	return string(must[[]byte](t)(io.ReadAll(resp.Body)))
}

func TestObjectStoreHonoursRangeAlone(t *testing.T) {
	t.Parallel()
	b, first := redirected(t, &ObjectStore{Addr: "localhost:0"}, "0123456789")
	target := first.Header.Get("Location")
	if first.StatusCode != http.StatusSeeOther || !strings.HasPrefix(target, b.sim.ObjectStoreURL()+"/") || !strings.HasPrefix(target, "http://localhost:") {
		t.Fatalf("%s to %s", first.Status, target)
	}
	for _, c := range []struct {
		header http.Header
		status int
		text   string
	}{
		{nil, 200, "0123456789"},
		{http.Header{"Range": {"bytes=4-"}}, 206, "456789"},
		{http.Header{"Range": {"bytes=2-3"}}, 206, "23"},
		{http.Header{"Range": {"bytes=10-"}}, 416, ""},
	} {
		resp := b.get(t, target, c.header)
		if got := text(t, resp); resp.StatusCode != c.status || c.text != "" && got != c.text {
			t.Errorf("%v: %s %q", c.header, resp.Status, got)
		}
	}
	last := b.sim.Requests()[2]
	if !last.ObjectStore || last.Range != "bytes=4-" || last.Sent != 6 || last.Status != 206 {
		t.Errorf("noted %+v", last)
	}
}

func TestObjectStoreRefuses(t *testing.T) {
	t.Parallel()
	b, first := redirected(t, &ObjectStore{Status: http.StatusTemporaryRedirect}, "0123456789")
	target := first.Header.Get("Location")
	if first.StatusCode != http.StatusTemporaryRedirect {
		t.Errorf("redirect %s", first.Status)
	}
	refused := func(what, url string, header http.Header, status int, code string) {
		t.Helper()
		resp := b.get(t, url, header)
		if got := text(t, resp); resp.StatusCode != status || !strings.Contains(got, "<Code>"+code+"</Code>") {
			t.Errorf("%s: %s %s", what, resp.Status, got)
		}
	}
	refused("the token as header", target, http.Header{"Girder-Token": {b.token}}, 400, "InvalidArgument")
	refused("the token as parameter", target+"&token="+b.token, nil, 400, "InvalidArgument")
	refused("the token as cookie", target, http.Header{"Cookie": {"girderToken=" + b.token}}, 400, "InvalidArgument")
	refused("another object", strings.Replace(target, "?", "0?", 1), nil, 403, "SignatureDoesNotMatch")
	b.sim.ExpireURLs()
	refused("an old URL", target, nil, 403, "SignatureDoesNotMatch")
}

func TestSignedURLsExpire(t *testing.T) {
	t.Parallel()
	b, first := redirected(t, &ObjectStore{Life: -time.Minute}, "0123456789")
	resp := b.get(t, first.Header.Get("Location"), nil)
	if got := text(t, resp); resp.StatusCode != 403 || !strings.Contains(got, "Request has expired") {
		t.Errorf("%s %s", resp.Status, got)
	}
}

func TestEmptyFilesAreNotRedirected(t *testing.T) {
	t.Parallel()
	if _, resp := redirected(t, &ObjectStore{}, ""); resp.StatusCode != http.StatusOK {
		t.Errorf("%s", resp.Status)
	}
}

func TestFaultsAndDowntimeOfTheObjectStore(t *testing.T) {
	t.Parallel()
	b, first := redirected(t, &ObjectStore{}, "0123456789")
	target := first.Header.Get("Location")
	b.sim.SetFault(func(r *http.Request) *Fault {
		if strings.HasPrefix(r.URL.Path, apiRoot) {
			return nil
		}
		return &Fault{Status: http.StatusServiceUnavailable, RetryAfter: "1"}
	})
	if resp := b.get(t, target, nil); resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "1" {
		t.Errorf("%s", resp.Status)
	}
	b.sim.SetFault(nil)
	b.sim.Down()
	if resp, err := http.Get(target); err == nil {
		resp.Body.Close()
		t.Error("the object store answers while everything is down")
	}
	if err := b.sim.Up(); err != nil {
		t.Fatal(err)
	}
	if got := text(t, b.get(t, target, nil)); got != "0123456789" {
		t.Errorf("%q after the downtime", got)
	}
}
