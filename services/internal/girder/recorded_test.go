package girder

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// exchange is one recorded request with its answer.
type exchange struct {
	Name    string `json:"name"`
	Request struct {
		Method   string            `json:"method"`
		Path     string            `json:"path"`
		Query    map[string]any    `json:"query"`
		Headers  map[string]string `json:"headers"`
		RawQuery string            `json:"rawQuery"`
		Body     *struct {
			Form map[string]any `json:"form"`
			Text string         `json:"text"`
		} `json:"body"`
	} `json:"request"`
	Response struct {
		Status  int               `json:"status"`
		Headers map[string]string `json:"headers"`
		Body    *string           `json:"body"`
	} `json:"response"`
}

// recordings finds the folder of recorded exchanges, or skips the test.
func recordings(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("GIRDER_CONTRACT"); dir != "" {
		return filepath.Join(dir, "exchanges")
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for dir != filepath.Dir(dir) {
		found := filepath.Join(dir, "shared", "girder-contract", "exchanges")
		if _, err := os.Stat(found); err == nil {
			return found
		}
		dir = filepath.Dir(dir)
	}
	t.Skip("no recorded exchanges: set GIRDER_CONTRACT to the folder that has them")
	return ""
}

func readExchange(t *testing.T, file string) exchange {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var e exchange
	if err := json.Unmarshal(data, &e); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return e
}

// exchangeNamed reads the exchange with that number.
func exchangeNamed(t *testing.T, number int) exchange {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(recordings(t), strconv.Itoa(number)+"-*.json"))
	if err != nil || len(found) != 1 {
		t.Fatalf("exchange %d: found %v, %v", number, found, err)
	}
	return readExchange(t, found[0])
}

// answerWith writes the recorded answer as it was on the wire.
func (e *exchange) answerWith(w http.ResponseWriter) {
	for name, value := range e.Response.Headers {
		w.Header().Set(name, value)
	}
	w.Header().Del("Transfer-Encoding")
	body := ""
	if e.Response.Body != nil {
		body = *e.Response.Body
	}
	if e.Request.Method != http.MethodHead {
		w.Header().Set("Content-Length", strconv.Itoa(len(body))) // recorded ones differ where a path was replaced
	}
	w.WriteHeader(e.Response.Status)
	_, _ = w.Write([]byte(body))
}

// parameters are those of query and form together, as Girder reads them.
func (e *exchange) parameters() map[string]string {
	all := map[string]any{}
	maps.Copy(all, e.Request.Query)
	if e.Request.Body != nil {
		maps.Copy(all, e.Request.Body.Form)
	}
	out := map[string]string{}
	for name, value := range all {
		if text, ok := value.(string); ok {
			out[name] = text
		}
	}
	return out
}

// token is the one of the recorded request.
func (e *exchange) token() string { return e.Request.Headers[TokenHeader] }

// id is the part of the recorded path behind the resource's name.
func (e *exchange) id() string { return strings.Split(e.Request.Path, "/")[4] }

// replay serves the recorded answer to whoever sends the recorded request, and
// tells the test of any difference. Parameters in defaults are sent by the
// client although the recorded request relied on the server's default.
func replay(t *testing.T, e exchange, defaults map[string]string) *Client {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := map[string]string{}
		if err := r.ParseForm(); err != nil {
			t.Errorf("parameters: %v", err)
		}
		for name, values := range r.Form {
			got[name] = values[0]
		}
		want := e.parameters()
		maps.Copy(want, defaults)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("parameters, recorded and sent:\n%s", diff)
		}
		if line, want := r.Method+" "+r.URL.Path, e.Request.Method+" "+e.Request.Path; line != want {
			t.Errorf("request: recorded %s, sent %s", want, line)
		}
		if r.Header.Get(TokenHeader) != e.token() {
			t.Errorf("token: recorded %q, sent %q", e.token(), r.Header.Get(TokenHeader))
		}
		if r.ContentLength < 0 {
			t.Error("request without a length")
		}
		e.answerWith(w)
	}))
	t.Cleanup(server.Close)
	return clientOf(t, server.URL, e.token())
}

// clientOf builds a client that tries once and whose connections end with the
// test. It knows no other host than this one: recorded files lead to some that are
// there, where there is a network.
func clientOf(t *testing.T, base, token string) *Client {
	t.Helper()
	transport := newTransport(nil, usedProxies{of: http.ProxyURL(nil)})
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if host, _, _ := net.SplitHostPort(address); !net.ParseIP(host).IsLoopback() {
			return nil, fmt.Errorf("no way to %s", address)
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	c, err := New(Options{APIURL: base + "/api/v1", Token: token, HTTPClient: &http.Client{Transport: transport}, Retry: Retry{Total: -1}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdle)
	return c
}

// serveAnswer gives the recorded answer to any request.
func serveAnswer(t *testing.T, e exchange) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { e.answerWith(w) }))
	t.Cleanup(server.Close)
	return server.URL
}
