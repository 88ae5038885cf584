package girder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
)

const testID = "5f0c00000000000000000001"

// serve starts a server and builds a client of it that retries at once.
func serve(t *testing.T, o Options, handler http.HandlerFunc) (*Client, *httptest.Server) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	o.APIURL = server.URL + "/api/v1/"
	if o.Retry == (Retry{}) {
		o.Retry = Retry{Total: 10 * time.Minute, First: time.Millisecond, Max: 2 * time.Millisecond}
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdle)
	return c, server
}

func TestReadsAreRetried(t *testing.T) {
	t.Parallel()
	var tries atomic.Int32
	c, _ := serve(t, Options{Token: "tok"}, func(w http.ResponseWriter, r *http.Request) {
		switch tries.Add(1) {
		case 1:
			http.Error(w, "<h1>502 Bad Gateway</h1><hr>nginx", http.StatusBadGateway)
		case 2:
			panic(http.ErrAbortHandler) // the connection closes without an answer
		case 3:
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, `{"name":`) // and in the middle of one
		default:
			_, _ = io.WriteString(w, `{"_id":"`+testID+`","name":"a","size":3}`)
		}
	})
	f, err := c.GetFile(t.Context(), testID)
	if err != nil || f.Name != "a" || tries.Load() != 4 {
		t.Fatalf("%+v, %v after %d tries", f, err, tries.Load())
	}
}

func TestRefusalsAreNotRetried(t *testing.T) {
	t.Parallel()
	for _, status := range []int{400, 401, 403, 404, 411, 413, 501} {
		var tries atomic.Int32
		c, _ := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
			tries.Add(1)
			w.WriteHeader(status)
		})
		_, err := c.GetFile(t.Context(), testID)
		var refusal *Error
		if !errors.As(err, &refusal) || refusal.Status != status || tries.Load() != 1 {
			t.Errorf("status %d: %v after %d tries", status, err, tries.Load())
		}
	}
}

func TestWritesAreSentOnce(t *testing.T) {
	t.Parallel()
	var tries atomic.Int32
	c, _ := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		tries.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	ctx := t.Context()
	writes := map[string]func() error{
		"log":     func() error { _, err := c.UpdateJob(ctx, testID, JobUpdate{Log: "x"}); return err },
		"job":     func() error { _, err := c.CreateJob(ctx, NewJob{Title: "t", Type: "t"}); return err },
		"upload":  func() error { _, err := c.StartUpload(ctx, NewFile{Parent: InItem(testID)}); return err },
		"chunk":   func() error { _, err := c.UploadChunk(ctx, testID, 0, strings.NewReader("a"), 1); return err },
		"replace": func() error { _, err := c.ReplaceContents(ctx, testID, 1, ""); return err },
	}
	for name, write := range writes {
		tries.Store(0)
		if err := write(); !IsTemporary(err) || tries.Load() != 1 {
			t.Errorf("%s: %v after %d tries", name, err, tries.Load())
		}
	}
}

func TestUpdateIsRetriedWhereTheCallerSaysSo(t *testing.T) {
	t.Parallel()
	var forms []string
	c, _ := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		forms = append(forms, string(body))
		if len(forms) == 1 {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		_, _ = io.WriteString(w, `{"status":3}`)
	})
	job, err := c.UpdateJob(t.Context(), testID, JobUpdate{Status: &three, Retry: true})
	if err != nil || job.Status != 3 {
		t.Fatal(job, err)
	}
	if diff := cmp.Diff([]string{"status=3", "status=3"}, forms); diff != "" {
		t.Error(diff)
	}
}

func TestFormIsStrictAndValid(t *testing.T) {
	t.Parallel()
	u := JobUpdate{Log: "a;b&c=d +%\xff\xfe\u00e9", Progress: Progress{Total: ptr(math.NaN()), Current: ptr(math.Inf(1))}}
	if got, want := encode(u.form()), "log=a%3Bb%26c%3Dd+%2B%25%EF%BF%BD%C3%A9"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestRetryAfterIsHonored(t *testing.T) {
	t.Parallel()
	p := newPatience(Retry{Total: time.Hour, First: time.Millisecond, Max: time.Millisecond}, time.Now())
	p.note(false, &Error{Status: 429, RetryAfter: 7 * time.Minute})
	if got := p.NextBackOff(); got != 7*time.Minute {
		t.Errorf("waits %v", got)
	}
	p.note(false, &Error{Status: 503, RetryAfter: 2 * time.Hour})
	if got := p.NextBackOff(); got != -1 {
		t.Errorf("a wait beyond the whole patience is %v", got)
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"": 0, "soon": 0, "-3": 0, "12": 12 * time.Second,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute, "Fri, 02 Jan 2026 03:00:00 GMT": 0,
		"999999999999": longestRetryAfter, "Fri, 31 Dec 9999 23:59:59 GMT": longestRetryAfter,
	} {
		if got := retryAfter(header, now); got != want {
			t.Errorf("Retry-After %q: %v, want %v", header, got, want)
		}
	}
}

func TestPatienceEndsWithTheLastError(t *testing.T) {
	t.Parallel()
	c, _ := serve(t, Options{Retry: Retry{Total: 10 * time.Millisecond, First: time.Millisecond, Max: time.Millisecond}},
		func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	if _, err := c.GetFile(t.Context(), testID); !errors.Is(err, ErrServer) {
		t.Fatal(err)
	}
}

func TestContextEndsRetries(t *testing.T) {
	t.Parallel()
	why := errors.New("revoked")
	ctx, cancel := context.WithCancelCause(t.Context())
	c, _ := serve(t, Options{Retry: Retry{Total: time.Hour, First: time.Hour, Max: time.Hour}}, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		cancel(why)
	})
	if _, err := c.GetFile(ctx, testID); !errors.Is(err, why) || IsTemporary(err) {
		t.Fatal(err)
	}
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	c, server := serve(t, Options{Token: "secret-token", Retry: Retry{Total: -1}}, nil)
	server.Close()
	_, err := c.GetFile(t.Context(), testID)
	var broken *Unreachable
	if !errors.As(err, &broken) || !IsTemporary(err) || strings.Contains(err.Error(), "secret") {
		t.Fatal(err)
	}
}

func TestStillBodyIsGivenUp(t *testing.T) {
	t.Parallel()
	c, _ := serve(t, Options{Idle: 100 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		_, _ = io.WriteString(w, "abc")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	d, err := c.DownloadFile(t.Context(), testID, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	got, err := io.ReadAll(d)
	if !strings.HasPrefix("abc", string(got)) || !errors.Is(err, errStill) || !IsTemporary(err) {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestStillUploadIsGivenUp(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() // connections stay in its backlog, and nobody reads from them
	c, err := New(Options{APIURL: "http://" + listener.Addr().String() + "/api/v1", Idle: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	const size = 64 << 20
	_, err = c.UploadChunk(t.Context(), testID, 0, io.LimitReader(zeros{}, size), size)
	if !errors.Is(err, errStill) || !IsTemporary(err) {
		t.Fatal(err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestDownloadChecksTheRange(t *testing.T) {
	t.Parallel()
	answers := map[string]struct {
		status    int
		rng, body string
		other     bool
	}{
		"as asked":           {status: 206, rng: "bytes 3-6/7", body: "defg"},
		"the whole file":     {status: 200, body: "abcdefg"},
		"all as a range":     {status: 206, rng: "bytes 0-6/7", body: "abcdefg"},
		"from earlier on":    {status: 206, rng: "bytes 1-6/7", body: "bcdefg"},
		"from later on":      {status: 206, rng: "bytes 4-6/7", body: "efg", other: true},
		"too few":            {status: 206, rng: "bytes 3-6/7", body: "de", other: true},
		"no range":           {status: 206, body: "defg", other: true},
		"nonsense":           {status: 206, rng: "bytes x-y/z", body: "defg", other: true},
		"shorter than asked": {status: 200, body: "ab", other: true},
	}
	for name, answer := range answers {
		c, _ := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.RawQuery != "offset=3" || r.Header.Get("Range") != "bytes=3-" {
				t.Errorf("query %q, range %q", r.URL.RawQuery, r.Header.Get("Range"))
			}
			if answer.rng != "" {
				w.Header().Set("Content-Range", answer.rng)
			}
			w.WriteHeader(answer.status)
			_, _ = io.WriteString(w, answer.body)
		})
		d, err := c.DownloadFile(t.Context(), testID, 3)
		if answer.other {
			if !errors.Is(err, ErrOtherRange) || !IsTemporary(err) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := io.ReadAll(d)
		if err != nil || string(got) != "defg" || d.Size != 7 {
			t.Errorf("%s: %q of %d, %v", name, got, d.Size, err)
		}
		_ = d.Close()
	}
}

func TestDownloadFromTheEndOn(t *testing.T) {
	t.Parallel()
	for size, ok := range map[string]bool{"bytes */3": true, "bytes */2": false, "": false} {
		c, _ := serve(t, Options{}, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", size)
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		})
		d, err := c.DownloadFile(t.Context(), testID, 3)
		if (err == nil) != ok {
			t.Fatalf("%q: %v", size, err)
		}
		if !ok {
			continue
		}
		if got, err := io.ReadAll(d); len(got) != 0 || err != nil || d.Size != 3 || d.Close() != nil {
			t.Errorf("%q of %d, %v", got, d.Size, err)
		}
	}
}

func TestTokenStaysWithItsHost(t *testing.T) {
	t.Parallel()
	var leaked atomic.Value
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leaked.Store(r.Header.Get(TokenHeader) + r.Header.Get("Referer") + r.URL.RawQuery)
		_, _ = io.WriteString(w, "linked")
	}))
	t.Cleanup(other.Close)
	c, _ := serve(t, Options{Token: "secret-token"}, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(TokenHeader) != "secret-token" {
			t.Errorf("%s without the token", r.URL.Path)
		}
		if strings.HasSuffix(r.URL.Path, "/download") {
			http.Redirect(w, r, "/elsewhere", http.StatusSeeOther) // the same host
			return
		}
		http.Redirect(w, r, other.URL, http.StatusSeeOther)
	})
	d, err := c.DownloadFile(t.Context(), testID, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if body, err := io.ReadAll(d); string(body) != "linked" || err != nil || leaked.Load() != "" {
		t.Fatalf("%q, %v, leaked %q", body, err, leaked.Load())
	}
}

func TestRedirectedWriteIsAnError(t *testing.T) {
	t.Parallel()
	var writes atomic.Int32
	c, _ := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			writes.Add(1)
			http.Redirect(w, r, r.URL.Path, http.StatusMovedPermanently)
			return
		}
		_, _ = io.WriteString(w, `{"status":2}`) // what a client that follows would take for success
	})
	_, err := c.UpdateJob(t.Context(), testID, JobUpdate{Status: &two, Retry: true})
	var refusal *Error
	if !errors.As(err, &refusal) || refusal.Status != 301 || !strings.Contains(err.Error(), errRedirected.Error()) || writes.Load() != 1 {
		t.Fatal(err, writes.Load())
	}
}

// A redirect that keeps method and body would lead a write to where its token may
// not go, or to nobody, since a file's bytes cannot be sent twice.
func TestWriteThatIsRedirectedElsewhere(t *testing.T) {
	t.Parallel()
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("asked elsewhere") }))
	t.Cleanup(other.Close)
	c, _ := serve(t, Options{Token: "secret-token"}, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+r.URL.Path, http.StatusPermanentRedirect)
	})
	_, update := c.UpdateJob(t.Context(), testID, JobUpdate{Status: &two})
	_, chunk := c.UploadChunk(t.Context(), testID, 0, strings.NewReader("abc"), 3)
	for _, err := range []error{update, chunk} {
		var refusal *Error
		if !errors.As(err, &refusal) || refusal.Status != 308 || !strings.Contains(err.Error(), errRedirected.Error()) {
			t.Error(err)
		}
	}
}

func TestSameServer(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		asked, other string
		same         bool
	}{
		{"http://girder/a", "http://GIRDER/b", true},
		{"http://girder:80/a", "https://girder/b", true}, // what a proxy does for who forgot the s
		{"https://girder/a", "http://girder/b", false},
		{"http://girder:8080/a", "https://girder:8443/b", false},
		{"http://girder/a", "http://girder:8080/b", false},
		{"http://girder/a", "https://other/b", false},
		{"https://girder/a", "https://sub.girder/b", false},
	} {
		asked, _ := url.Parse(test.asked)
		other, _ := url.Parse(test.other)
		if sameServer(asked, other) != test.same {
			t.Errorf("%+v", test)
		}
	}
}

func TestTheOutermostErrorDecides(t *testing.T) {
	t.Parallel()
	refused := &Error{Status: 400}
	for err, want := range map[error]bool{
		refused:                    false,
		&Unreachable{Err: refused}: true,
		&Error{Status: 502}:        true,
		&Unreachable{Err: &SessionError{Field: "verify", Err: io.EOF}}: false,
		fmt.Errorf("x: %w", &Unreachable{Err: io.EOF}):                 true,
		io.EOF: false,
	} {
		if IsTemporary(err) != want {
			t.Errorf("%T %v: temporary is not %t", err, err, want)
		}
	}
}

func TestNothingShowsTheToken(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	const token = "abcdefSECRET"
	var tries atomic.Int32
	c, _ := serve(t, Options{Token: token, Logger: zerolog.New(&out)}, func(w http.ResponseWriter, r *http.Request) {
		status := http.StatusInternalServerError
		if tries.Add(1) > 1 {
			status = http.StatusBadRequest
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, `{"type":"rest","message":"no such token abcdefSECRET"}`)
	})
	_, err := c.GetFile(t.Context(), testID)
	if all := err.Error() + out.String(); strings.Contains(all, token) || !strings.Contains(all, "***") || out.Len() == 0 {
		t.Fatal(all)
	}
}

func TestClosedIdleConnection(t *testing.T) {
	t.Parallel()
	c, server := serve(t, Options{Retry: Retry{Total: -1}}, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{}`)
	})
	for range 20 {
		if _, err := c.GetFile(t.Context(), testID); err != nil {
			t.Fatal(err)
		}
		server.CloseClientConnections()
	}
}

func TestBadIDsAreNotSent(t *testing.T) {
	t.Parallel()
	c, _ := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) { t.Errorf("sent %s", r.URL) })
	for _, id := range []FileID{"", "..", "a/b", "a?b", "ü", "a b"} {
		_, err := c.GetFile(t.Context(), id)
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
	for _, err := range c.ListItemFiles(t.Context(), "x/y") {
		if !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
	}
}

func TestListAsksForPages(t *testing.T) {
	t.Parallel()
	var asked []string
	c, _ := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RawQuery)
		if len(asked) < 3 {
			_, _ = io.WriteString(w, "["+strings.Repeat(`{"name":"a"},`, PageSize-1)+`{"name":"b"}]`)
			return
		}
		_, _ = io.WriteString(w, `[{"name":"c"}]`)
	})
	got, err := names(c.ListItemFiles(t.Context(), testID), func(f File) string { return f.Name })
	if err != nil || len(got) != 2*PageSize+1 || got[len(got)-1] != "c" {
		t.Fatal(len(got), err)
	}
	want := []string{"limit=50&offset=0", "limit=50&offset=50", "limit=50&offset=100"}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Error(diff)
	}
}

// countingReader is not safe for two goroutines: the race detector tells if
// the transport still reads after a call has returned.
type countingReader struct{ n int }

func (r *countingReader) Read(p []byte) (int, error) { r.n += len(p); clear(p); return len(p), nil }

func TestBodyIsLeftAloneAfterTheCall(t *testing.T) {
	t.Parallel()
	c, _ := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadRequest) // without reading the body, as Girder 5 refuses a wrong offset
	})
	const size = 16 << 20
	var body countingReader
	for range 5 {
		if _, err := c.UploadChunk(t.Context(), testID, 0, io.LimitReader(&body, size), size); err == nil {
			t.Fatal("a refused chunk is no error")
		}
	}
	if body.n == 0 {
		t.Fatal("the body was never read")
	}
}
