package faultproxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts/client/leaktest"
	"github.com/gantry-worker/gantry/contracts/client/testport"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// girder is a server that answers with what it got, as JSON, and begins uploads.
type girder struct {
	*httptest.Server
	got  atomic.Int32 // whole requests
	last atomic.Value // the last body
}

func startGirder(t *testing.T) *girder {
	t.Helper()
	g := &girder{}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		g.last.Store(string(body))
		fmt.Fprintf(w, `{"_id": "upload%d", "body": %q}`, g.got.Add(1), body)
	}))
	t.Cleanup(g.Close)
	return g
}

// through starts a proxy and a client.
func through(t *testing.T, g *girder, o Options) (*Proxy, *http.Client) {
	t.Helper()
	p, err := Start(g.URL+"/api/v1", o)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p, &http.Client{Transport: transport}
}

// post sends a body and returns what the client has of the answer.
func post(client *http.Client, url, body string) (status int, answer string, err error) {
	resp, err := client.Post(url, "application/octet-stream", strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(data), err
}

// impatient ends its requests with a context.
type impatient struct {
	http.RoundTripper
	ctx context.Context
}

func (i *impatient) RoundTrip(r *http.Request) (*http.Response, error) {
	return i.RoundTripper.RoundTrip(r.WithContext(i.ctx))
}

// await returns when a fault of a kind has happened, or the context has ended.
func (p *Proxy) await(ctx context.Context, kind Kind) {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for p.Counts()[kind] == 0 && ctx.Err() == nil {
		<-ticker.C
	}
}

// TestKinds sends a chunk through each kind of fault, and looks at what either
// side had of it.
func TestKinds(t *testing.T) {
	t.Parallel()
	const body = "0123456789"
	whole := fmt.Sprintf(`{"_id": "upload1", "body": %q}`, body)
	broken := func(status int, answer string, err error) bool { return err != nil }
	tests := map[Kind]struct {
		got    []int32 // how often Girder may have had the request
		client func(status int, answer string, err error) bool
		body   string // that Girder had, "*" for any other of the same length, "<" for a part
	}{
		"":         {[]int32{1}, func(_ int, answer string, _ error) bool { return answer == whole }, body},
		CutRequest: {[]int32{0}, broken, ""},
		CutAnswer:  {[]int32{1}, broken, body},
		Stall:      {[]int32{1}, broken, body},
		LostAnswer: {[]int32{1}, broken, body},
		LongLength: {[]int32{1}, broken, body},
		ShortLength: {[]int32{1}, func(_ int, answer string, _ error) bool {
			return len(answer) < len(whole) && strings.HasPrefix(whole, answer)
		}, body},
		Duplicate:   {[]int32{2}, func(status int, _ string, _ error) bool { return status == 200 }, body},
		IdleReset:   {[]int32{1}, func(_ int, answer string, _ error) bool { return answer == whole }, body},
		ServerError: {[]int32{0, 1}, func(status int, _ string, err error) bool { return status == 500 || err != nil }, body},
		BadGateway:  {[]int32{0, 1}, func(status int, _ string, err error) bool { return status == 502 || err != nil }, body},
		RateLimited: {[]int32{0}, func(status int, _ string, err error) bool { return status == 429 || err != nil }, ""},
		Page: {[]int32{0, 1}, func(_ int, answer string, err error) bool {
			return strings.HasPrefix(answer, "<html>") || err != nil
		}, body},
		CorruptUpload: {[]int32{1}, func(status int, _ string, _ error) bool { return status == 200 }, "*"},
		ShortBody:     {[]int32{1}, func(status int, _ string, _ error) bool { return status == 200 }, "<"},
		CorruptDocument: {[]int32{1}, func(_ int, answer string, _ error) bool {
			return !json.Valid([]byte(answer)) && len(answer) == len(whole)
		}, body},
	}
	for _, kind := range append([]Kind{""}, Kinds...) {
		test, ok := tests[kind]
		if !ok && kind != CorruptDownload {
			t.Errorf("no test of %q", kind)
		}
		for seed := range uint64(8) {
			if !ok {
				continue
			}
			t.Run(fmt.Sprint(kind, " ", seed), func(t *testing.T) {
				t.Parallel()
				g := startGirder(t)
				o := Options{Seed: seed, Always: map[Route]Kind{Chunk: kind}}
				if kind == "" {
					o.Always = nil
				}
				p, client := through(t, g, o)
				if kind == Stall { // the client's patience ends when the answer does stand still
					ctx, giveUp := context.WithCancel(t.Context())
					client.Transport = &impatient{client.Transport, ctx}
					go func() {
						defer giveUp()
						p.await(t.Context(), Stall)
					}()
				}
				status, answer, err := post(client, p.APIURL()+"/file/chunk?uploadId=u&offset=0", body)
				if !test.client(status, answer, err) {
					t.Errorf("the client had %d %q, %v", status, answer, err)
				}
				if kind == IdleReset { // which is seen by the next request
					_, _, _ = post(client, p.APIURL()+"/file/offset", "")
				} else if n := g.got.Load(); n != test.got[0] && n != test.got[len(test.got)-1] {
					t.Errorf("Girder had it %d times", n)
				}
				had, _ := g.last.Load().(string)
				same := had == test.body || had == "" && test.got[0] == 0 || kind == IdleReset ||
					test.body == "*" && had != body && len(had) == len(body) || test.body == "<" && len(had) < len(body) && strings.HasPrefix(body, had)
				if !same {
					t.Errorf("Girder had %q", had)
				}
				if n := p.Counts()[kind]; kind != "" && n != 1 {
					t.Errorf("counted %d: %v", n, p.Story())
				}
			})
		}
	}
}

func TestCorruptDownload(t *testing.T) {
	t.Parallel()
	p, client := through(t, startGirder(t), Options{Always: map[Route]Kind{Download: CorruptDownload}})
	resp, err := client.Get(p.APIURL() + "/file/1/download")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	whole := `{"_id": "upload1", "body": ""}`
	if err != nil || string(data) == whole || len(data) != len(whole) || p.Counts()[CorruptDownload] != 1 {
		t.Errorf("%q, %v", data, err)
	}
}

// TestUploadsThatNobodyKnows: of two uploads the answer to one is lost, and one
// is used.
func TestUploadsThatNobodyKnows(t *testing.T) {
	t.Parallel()
	p, client := through(t, startGirder(t), Options{Always: map[Route]Kind{Begin: Duplicate}})
	_, answer, err := post(client, p.APIURL()+"/file?name=a&size=3", "")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		ID string `json:"_id"`
	}
	if err := json.Unmarshal([]byte(answer), &doc); err != nil {
		t.Fatal(err)
	}
	if _, _, err := post(client, p.APIURL()+"/file/chunk?uploadId="+doc.ID, "abc"); err != nil {
		t.Fatal(err)
	}
	for _, up := range p.Uploads() {
		if mine := up.ID == doc.ID; up.Told != mine || up.Used != mine {
			t.Errorf("%s was told: %+v", doc.ID, up)
		}
	}
	if n := len(p.Uploads()); n != 2 {
		t.Errorf("%d uploads", n)
	}
}

func TestFilesMadeTwice(t *testing.T) {
	t.Parallel()
	p, client := through(t, startGirder(t), Options{Always: map[Route]Kind{Empty: Duplicate, Artifact: CutRequest}})
	if _, _, err := post(client, p.APIURL()+"/file?name=none&size=0", ""); err != nil {
		t.Fatal(err)
	}
	if twice := p.Twice(); len(twice) != 1 || twice[0] != "none" {
		t.Error(twice)
	}
	if _, _, err := post(client, p.APIURL()+"/job/1/artifact?name=a&size=3", "abc"); err == nil || p.PartsAttached() != 1 {
		t.Error(err, p.PartsAttached())
	}
}

// TestCutAndMend ends the client's process, so to say, before and after Girder
// has what it asked.
func TestCutAndMend(t *testing.T) {
	t.Parallel()
	for _, answered := range []bool{false, true} {
		g := startGirder(t)
		p, client := through(t, g, Options{})
		ask := func() error {
			_, _, err := post(client, p.APIURL()+"/file/offset", "")
			return err
		}
		p.Interrupt(1, answered, p.Cut)
		first, second, third := ask(), ask(), ask()
		if first != nil || second == nil || third == nil {
			t.Errorf("answered %v: %v, %v, %v", answered, first, second, third)
		}
		if n := g.got.Load(); n != map[bool]int32{false: 1, true: 2}[answered] {
			t.Errorf("answered %v: Girder had %d requests", answered, n)
		}
		p.Mend()
		if err := ask(); err != nil {
			t.Errorf("mended: %v", err)
		}
	}
}

// TestSameSeedSameFaults: what happens follows from the seed.
func TestSameSeedSameFaults(t *testing.T) {
	t.Parallel()
	stories := map[uint64]string{}
	for _, seed := range []uint64{1, 2, 1} {
		plan := plan{options: Options{Seed: seed, Rate: 0.5, Most: 20}, seen: map[Route]uint64{}}
		story, faults := "", 0
		for range 100 {
			f := plan.next(Document, false)
			story += string(f.kind) + ","
			if f.kind != "" {
				faults++
			}
		}
		if before, ok := stories[seed]; ok && before != story {
			t.Errorf("seed %d: %s and %s", seed, before, story)
		}
		if faults != 20 {
			t.Errorf("%d faults", faults)
		}
		stories[seed] = story
	}
	if stories[1] == stories[2] {
		t.Error("two seeds have the same faults")
	}
}

func TestNothingToStandBefore(t *testing.T) {
	t.Parallel()
	if _, err := Start("http://girder\n/api/v1", Options{}); err == nil {
		t.Error("an address that is none was taken")
	}
	// Nobody else listens there either.
	g := &girder{Server: &httptest.Server{URL: "http://" + testport.Address(t)}}
	p, client := through(t, g, Options{})
	_, _, err := post(client, p.APIURL()+"/file/offset", "")
	var network net.Error
	if err == nil || errors.As(err, &network) && network.Timeout() {
		t.Errorf("a Girder that is not there: %v", err)
	}
}
