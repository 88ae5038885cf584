package girder

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestBypass(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		bypass, url string
		want        bool
	}{
		{"", "http://girder", false},
		{"*", "http://girder", true},
		{"girder", "http://GIRDER:8080", true},
		{"example.org", "https://girder.example.org", true},
		{".example.org", "https://girder.example.org", true},
		{"*.example.org", "https://girder.example.org", true},
		{"example.org", "https://girder-example.org", false},
		{"girder.example.org", "https://example.org", false},
		{"a, b girder,", "http://girder", true},
		{"girder:80", "http://girder", true},
		{"girder:443", "https://girder", true},
		{"girder:8080", "http://girder", false},
		{"127.0.0.1", "http://127.0.0.1:8080", true},
		{"127.0.0.0/8", "http://127.9.9.9", true},
		{"10.0.0.0/8", "http://127.0.0.1", false},
		{"10.0.0.0/8", "http://10.example.org", false},
		{"::1", "http://[::1]:8080", true},
		{"[::1]:8080", "http://[::1]:8080", true},
		{"fd00::/8", "http://[fd12::1]", true},
		{",,", "http://girder", false},
		{".", "http://girder", false},
	} {
		u, err := url.Parse(test.url)
		if err != nil {
			t.Fatal(err)
		}
		if (proxies{bypass: test.bypass}).bypasses(u) != test.want {
			t.Errorf("%+v", test)
		}
	}
}

func FuzzBypass(f *testing.F) {
	f.Add("*.example.org,10.0.0.0/8 [::1]:80", "girder.example.org")
	f.Fuzz(func(t *testing.T, bypass, host string) {
		p := proxies{bypass: bypass}
		p.bypasses(&url.URL{Scheme: "http", Host: host})
		if host != "" && !strings.ContainsAny(host, ", :[]%") && host != "." && !strings.HasPrefix(host, "*") && !strings.HasPrefix(host, ".") {
			p.bypass += "," + host
			if !p.bypasses(&url.URL{Scheme: "http", Host: host}) {
				t.Errorf("%q does not stand for itself", host)
			}
		}
	})
}

func FuzzContentRange(f *testing.F) {
	for _, seed := range []string{"bytes 7-12/13", "bytes 50-12/13", "bytes -1-12/13", "bytes */13", "bytes 0-1/*", "8000000000000", "x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if start, size, err := contentRange(header); err == nil && (start < 0 || size < 0) {
			t.Errorf("%q: %d of %d", header, start, size)
		}
		sizeOf(header)
		if wait := retryAfter(header, time.Unix(0, 0)); wait < 0 {
			t.Errorf("%q: wait %s", header, wait)
		}
	})
}

// What an answer says ends up in messages that people read.
func FuzzReadError(f *testing.F) {
	for _, seed := range []string{
		`{"type":"rest","message":"Invalid file id (x)."}`, `{"message":5}`, `{"mess`, "<html><h1>502</h1><style>x", "<Error><Code>A</Code><Message>b</Message>", "\xff\x00",
	} {
		f.Add(seed, 400)
	}
	f.Fuzz(func(t *testing.T, body string, status int) {
		resp := &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body)), Header: http.Header{}}
		e, err := readError(&call{method: "GET", path: "x"}, resp, time.Now())
		if err != nil {
			return
		}
		if text := e.Error(); strings.ContainsAny(text, "\n\r") || len(e.Message) > maxMessage+10 || utf8.ValidString(body) && !utf8.ValidString(text) {
			t.Errorf("%q", text)
		}
		_ = e.class()
	})
}
