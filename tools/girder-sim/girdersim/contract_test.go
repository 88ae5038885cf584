package girdersim

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// outOfScope are the recorded exchanges that the simulator does not answer: the
// websocket is outside of the REST interface, and opens for no token that a
// worker is given.
var outOfScope = map[string]string{
	"901-notification-websocket":               "websocket",
	"902-notification-websocket-no-token":      "websocket",
	"903-notification-websocket-invalid-token": "websocket",
	"904-notification-websocket-jobtoken":      "websocket",
	"905-notification-websocket-data-token":    "websocket",
}

// TestRecordedExchanges replays what a real server was asked, in the recorded
// order, and compares the answers byte for byte, after names for ids, secrets
// and times.
func TestRecordedExchanges(t *testing.T) {
	t.Parallel()
	exchanges := loadExchanges(t)
	r := newReplay(t, exchanges)
	for _, x := range exchanges {
		t.Run(x.Name, func(t *testing.T) {
			if reason, out := outOfScope[x.Name]; out {
				t.Skip("out of scope: " + reason)
			}
			if prepare := r.fixtures[x.Name]; prepare != nil {
				prepare(t)
			}
			r.play(t, x)
		})
	}
}

// contractDir finds the recordings, which are not part of this repository.
func contractDir(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("GIRDER_CONTRACT"); dir != "" {
		return dir
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		candidate := filepath.Join(dir, "shared", "girder-contract")
		if _, err := os.Stat(candidate); err == nil {
			return candidate
		}
		if dir == filepath.Dir(dir) {
			t.Skip("no recorded exchanges: set GIRDER_CONTRACT to their folder")
		}
		dir = filepath.Dir(dir)
	}
}

// exchange is one recorded request with its answer.
type exchange struct {
	Name    string
	Request struct {
		Method, Path, RawQuery string
		Headers                map[string]string
		Body                   *recordedBody
	}
	Response struct {
		Status      int
		Headers     map[string]string
		Body        string
		JSON        json.RawMessage
		BodyBase64  []byte
		BodyOmitted *struct{ Length int }
	}
	ClientReadError string
}

type recordedBody struct {
	Form      map[string]json.RawMessage
	Text      *string
	Base64    []byte
	Generated string
}

func loadExchanges(t *testing.T) []*exchange {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(contractDir(t), "exchanges", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no exchanges found: %v", err)
	}
	var out []*exchange
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		x := &exchange{}
		if err := json.Unmarshal(text, x); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b *exchange) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// repeatedText recognizes the description of a large body.
var repeatedText = regexp.MustCompile(`^character '(.)' repeated (\d+) times$`)

// content is the described bytes and their number.
func described(t *testing.T, description string) (io.Reader, int64) {
	t.Helper()
	m := repeatedText.FindStringSubmatch(description)
	if m == nil {
		t.Fatalf("unknown description of a body: %q", description)
	}
	n, err := strconv.ParseInt(m[2], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return io.LimitReader(endless(m[1][0]), n), n
}

// endless is a character without end.
type endless byte

func (e endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(e)
	}
	return len(p), nil
}

// content is the body to send and its length.
func (b *recordedBody) content(t *testing.T, rewrite *strings.Replacer) (io.Reader, int64) {
	t.Helper()
	switch {
	case b == nil:
		return http.NoBody, 0
	case b.Text != nil:
		text := rewrite.Replace(*b.Text)
		return strings.NewReader(text), int64(len(text))
	case b.Base64 != nil:
		return bytes.NewReader(b.Base64), int64(len(b.Base64))
	case b.Generated != "":
		return described(t, b.Generated)
	}
	var form []string
	for _, name := range slices.Sorted(maps.Keys(b.Form)) {
		var value string
		if json.Unmarshal(b.Form[name], &value) != nil {
			var large struct{ Generated string }
			if err := json.Unmarshal(b.Form[name], &large); err != nil {
				t.Fatalf("form field %s: %v", name, err)
			}
			from, _ := described(t, large.Generated)
			text, err := io.ReadAll(from)
			if err != nil {
				t.Fatal(err)
			}
			value = string(text)
		}
		form = append(form, name+"="+value)
	}
	text := strings.Join(form, "&")
	return strings.NewReader(text), int64(len(text))
}

// play sends the request with our ids for the recorded ones and compares.
func (r *replay) play(t *testing.T, x *exchange) {
	t.Helper()
	status, header, body := r.send(t, x)
	if status != x.Response.Status {
		t.Fatalf("status %d, recorded %d; body %.500s", status, x.Response.Status, body)
	}
	for _, name := range []string{"Content-Type", "Content-Range", "Accept-Ranges", "Location", "Content-Disposition", "Girder-Total-Count", "Allow"} {
		if got, want := header.Get(name), x.Response.Headers[strings.ToLower(name)]; got != want {
			t.Errorf("header %s: %q, recorded %q", name, got, want)
		}
	}
	switch {
	case x.Response.BodyBase64 != nil:
		compareZips(t, body, x.Response.BodyBase64)
		return
	case x.Response.BodyOmitted != nil:
		want := x.Response.BodyOmitted.Length + len(r.sim.URL()) - len(recordedURL)
		if len(body) != want {
			t.Errorf("body of %d bytes, recorded %d", len(body), want)
		}
		return
	case x.Response.JSON != nil:
		r.compareJSON(t, body, x.Response.JSON)
	case x.Request.Method != http.MethodHead || header.Get("Accept-Ranges") != "":
		if got, want := header.Get("Content-Length"), x.Response.Headers["content-length"]; got != want && status < 500 {
			t.Errorf("content length %s, recorded %s", got, want)
		}
	}
	if got, want := r.plain(string(body)), r.plain(r.mapped().Replace(x.Response.Body)); got != want {
		t.Errorf("body\n%.1500s\nrecorded\n%.1500s", got, want)
	}
}

// drained is how much of a refused body net/http's server reads before it closes
// the connection.
const drained = 256 << 10

func (r *replay) send(t *testing.T, x *exchange) (int, http.Header, []byte) {
	t.Helper()
	rewrite := r.mapped()
	target := r.base + rewrite.Replace(x.Request.Path)
	if x.Request.RawQuery != "" {
		target += "?" + rewrite.Replace(x.Request.RawQuery)
	}
	content, length := x.Request.Body.content(t, rewrite)
	if x.Request.Headers["Transfer-Encoding"] == "chunked" {
		length = -1
	}
	req, err := http.NewRequestWithContext(t.Context(), x.Request.Method, target, content)
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = length
	for name, value := range x.Request.Headers {
		if name != "Content-Length" && name != "Transfer-Encoding" {
			req.Header.Set(name, rewrite.Replace(value))
		}
	}
	if x.Response.Status >= http.StatusBadRequest && length > drained {
		req.Header.Set("Expect", "100-continue") // or the answer may be lost with the connection
		req.Close = true                         // or the body is sent all the same
	}
	client := r.client
	if _, ok := x.Request.Headers["Content-Length"]; !ok && length == 0 && hasBody(x.Request.Method) {
		client = r.lengthless
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil && (x.ClientReadError == "" || !errors.Is(err, io.ErrUnexpectedEOF)) {
		t.Fatalf("read body: %v", err)
	}
	return resp.StatusCode, resp.Header, body
}

// compareJSON binds recorded ids and secrets to ours and compares the shapes.
func (r *replay) compareJSON(t *testing.T, body, recorded []byte) {
	t.Helper()
	got, err := decodeJSON(body)
	if err != nil {
		t.Fatalf("body is not JSON: %v: %.500s", err, body)
	}
	want, err := decodeJSON(recorded)
	if err != nil {
		t.Fatal(err)
	}
	r.bindAll(t, "", got, want)
}

func (r *replay) bindAll(t *testing.T, path string, got, want any) {
	t.Helper()
	switch want := want.(type) {
	case map[string]any:
		doc, ok := got.(map[string]any)
		if !ok {
			t.Fatalf("%s: %T, recorded an object", path, got)
		}
		for _, key := range slices.Sorted(maps.Keys(want)) {
			r.bindAll(t, path+"."+key, doc[key], want[key])
		}
	case []any:
		values, ok := got.([]any)
		if !ok || len(values) != len(want) {
			t.Fatalf("%s: %d values in %.300v, recorded %d in %.300v", path, len(values), got, len(want), want)
		}
		for i := range want {
			r.bindAll(t, fmt.Sprintf("%s[%d]", path, i), values[i], want[i])
		}
	case string:
		text, _ := got.(string)
		if secretPattern.MatchString(want) && secretPattern.MatchString(text) && r.known[want] == "" {
			r.bind(want, text)
		}
		if timePattern.MatchString(want) && strings.HasSuffix(want, "000+00:00") && !strings.HasSuffix(text, "000+00:00") {
			t.Errorf("%s: time %s, recorded %s, to the millisecond", path, text, want)
		}
	}
}

func compareZips(t *testing.T, got, want []byte) {
	t.Helper()
	entries := func(content []byte) map[string]string {
		z, err := zip.NewReader(bytes.NewReader(content), int64(len(content)))
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]string{}
		for _, f := range z.File {
			from, err := f.Open()
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(from)
			if err != nil {
				t.Fatal(err)
			}
			out[f.Name] = string(text)
		}
		return out
	}
	if g, w := entries(got), entries(want); !maps.Equal(g, w) {
		t.Errorf("zip of %v, recorded %v", g, w)
	}
}
