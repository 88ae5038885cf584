package girdersim

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

const recordedURL = "http://127.0.0.1:8080"

// patience is how long a machine that does much else may take for one thing.
const patience = 10 * time.Minute

var (
	secretPattern = regexp.MustCompile(`^(?:[0-9a-f]{24}|[0-9A-Za-z]{40}|[0-9A-Za-z]{64})$`)
	timePattern   = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00`)

	// variable is what differs from server to server and from run to run.
	variable = []struct {
		pattern *regexp.Regexp
		name    string
	}{
		{timePattern, "<time>"},
		{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}`), "<uuid>"},
		{regexp.MustCompile(`b'[0-9a-f]{100,}'`), "<hash state>"},
		{regexp.MustCompile(`/assetstore/temp/\w+`), "<temporary file>"},
		{regexp.MustCompile(`/assetstore/[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{128}`), "<stored file>"},
		{regexp.MustCompile(`http://127\.0\.0\.1:\d+`), "<server>"},
	}
)

// replay is a server on its way through the recorded exchanges.
type replay struct {
	sim        *Server
	base       string            // the server that is asked
	known      map[string]string // recorded ids and secrets to ours
	all        map[string]bool   // every recorded id and secret
	fixtures   map[string]func(*testing.T)
	client     *http.Client
	lengthless *http.Client // sends POST and PUT without any length
}

func newReplay(t *testing.T, exchanges []*exchange) *replay {
	t.Helper()
	sim := start(t, Options{})
	r := &replay{
		sim: sim, base: sim.URL(), known: map[string]string{}, all: map[string]bool{},
		client:     newClient(http.DefaultTransport.(*http.Transport).DialContext),
		lengthless: newClient(dialLengthless),
	}
	word := regexp.MustCompile(`[0-9A-Za-z]+`)
	for _, x := range exchanges {
		text, err := json.Marshal(x)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range word.FindAllString(string(text), -1) {
			if secretPattern.MatchString(found) {
				r.all[found] = true
			}
		}
	}
	t.Cleanup(r.client.CloseIdleConnections)
	t.Cleanup(r.lengthless.CloseIdleConnections)
	r.fixtures = r.makeFixtures()
	r.people(t)
	return r
}

func newClient(dial dialer) *http.Client {
	return &http.Client{
		Transport:     &http.Transport{DialContext: dial, DisableCompression: true, ExpectContinueTimeout: patience},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// full completes an abbreviated recorded id (its end) or secret (its begin).
func (r *replay) full(t *testing.T, part string) string {
	t.Helper()
	var found []string
	for s := range r.all {
		if (len(s) == 24 && strings.HasSuffix(s, part)) || (len(s) > 24 && strings.HasPrefix(s, part)) {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%q stands for %v", part, found)
	}
	return found[0]
}

func (r *replay) bind(recorded, ours string) { r.known[recorded] = ours }

// ours is our id or secret for an abbreviated recorded one.
func (r *replay) ours(t *testing.T, part string) string {
	t.Helper()
	s := r.known[r.full(t, part)]
	if s == "" {
		t.Fatalf("nothing known for %q", part)
	}
	return s
}

// mapped replaces everything recorded by ours.
func (r *replay) mapped() *strings.Replacer {
	var pairs []string
	for recorded, ours := range r.known {
		pairs = append(pairs, recorded, ours)
	}
	return strings.NewReplacer(pairs...)
}

// plain puts names in place of everything variable.
func (r *replay) plain(text string) string {
	for _, v := range variable {
		text = v.pattern.ReplaceAllString(text, v.name)
	}
	return text
}

// start runs a server for the time of the test.
func start(t testing.TB, o Options) *Server {
	t.Helper()
	sim, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sim.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return sim
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// people makes the accounts and tokens that the recordings begin with.
func (r *replay) people(t *testing.T) {
	t.Helper()
	user, text := must[User](t), must[string](t)
	root := user(r.sim.CreateAdmin("admin", "adminpassword"))
	alice := user(r.sim.CreateUser("alice", "alicepassword"))
	bob := user(r.sim.CreateUser("bob", "bobpassword"))
	r.rename(t, root.ID, "Ad", "Min")
	r.rename(t, alice.ID, "Alice", "User")
	for part, ours := range map[string]string{
		"4183": root.ID, "4186": alice.ID, "4195": bob.ID,
		"4185": r.folderOf(t, root.ID, "Private"), "4187": r.folderOf(t, alice.ID, "Public"), "4188": r.folderOf(t, alice.ID, "Private"),
		"q5zzBV": text(r.sim.UserToken(alice.ID, ScopeUser)),
		"hbKkYU": text(r.sim.UserToken(bob.ID, ScopeUser)),
		"PTVCLh": text(r.sim.UserToken(alice.ID, ScopeUser)),
		"76IxHL": text(r.sim.UserToken(root.ID, ScopeUser)),
		"ouecTg": text(r.sim.UserToken(alice.ID, ScopeDataRead)),
		"1Noxjq": text(r.sim.ExpiringToken(alice.ID, time.Now().Add(-time.Hour), ScopeUser)),
		"BBTzyL": text(r.sim.UserToken(alice.ID, ScopeCreateJob)),
		"3gQRYD": text(r.sim.UserToken(root.ID, ScopeCreateJob)),
		"R8LsUf": text(r.sim.Token(ScopeCreateJob)),
		"Ypmtfg": text(r.sim.UserToken(alice.ID, ScopeListJob)),
	} {
		r.bind(r.full(t, part), ours)
	}
}

func (r *replay) rename(t *testing.T, userID, first, last string) {
	t.Helper()
	u := *r.sim.st.users.get(userID)
	u.FirstName, u.LastName = first, last
	if err := r.sim.st.users.put(userID, &u); err != nil {
		t.Fatal(err)
	}
}

func (r *replay) folderOf(t *testing.T, parentID, name string) string {
	t.Helper()
	for _, f := range r.sim.Folders(parentID) {
		if f.Name == name {
			return f.ID
		}
	}
	t.Fatalf("no folder %s", name)
	return ""
}

// post sends a request as alice and returns the document that comes back.
func (r *replay) post(t *testing.T, method, path string, content io.Reader) map[string]any {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.sim.APIURL()+path, content)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Girder-Token", r.ours(t, "q5zzBV"))
	resp, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var doc map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s %v %v", method, path, resp.Status, doc, err)
	}
	return doc
}

// breakOff sends a part of a chunk and closes the sending side. The answer, if
// there is one, does not matter.
func (r *replay) breakOff(t *testing.T, uploadID string, announced, sent int) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.sim.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /api/v1/file/chunk?uploadId=%s&offset=0 HTTP/1.1\r\nHost: sim\r\nGirder-Token: %s\r\n"+
		"Content-Type: application/octet-stream\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", uploadID, r.ours(t, "q5zzBV"), announced)
	if _, err := conn.Write(bytes.Repeat([]byte("x"), sent)); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, bufio.NewReader(conn)); err != nil {
		t.Fatal(err)
	}
}
