package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gantry-worker/gantry/tools/girder-sim/simseed"
)

// asCommand makes the test binary behave as the command itself.
const asCommand = "GIRDER_SIM_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// command is a running girder-sim with its seed.
type command struct {
	*exec.Cmd
	seed simseed.Seed
}

func startCommand(t *testing.T, dir string, more ...string) *command {
	t.Helper()
	c := &command{Cmd: exec.Command(os.Args[0], append([]string{"--addr", "127.0.0.1:0", "--dir", dir, "--seed"}, more...)...)}
	c.Env = append(os.Environ(), asCommand+"=1")
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill() }) // no harm if it has ended
	address, err := bufio.NewReader(stderr).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(stdout).Decode(&c.seed); err != nil {
		t.Fatal(err)
	}
	if want := strings.TrimSpace(address) + "/api/v1"; c.seed.APIURL != want {
		t.Fatalf("printed %s, listens on %s", c.seed.APIURL, want)
	}
	return c
}

func (c *command) post(t *testing.T, path string, query url.Values, token string, body io.Reader) map[string]any {
	t.Helper()
	query.Set("token", token)
	resp, err := http.Post(c.seed.APIURL+path+"?"+query.Encode(), "application/octet-stream", body)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var doc map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %v %v", path, resp.Status, doc, err)
	}
	return doc
}

// TestKilled kills the command between two chunks; the next one goes on with
// the same seed, job and upload, and then stops when it is told to.
func TestKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := startCommand(t, dir)
	job := first.post(t, "/job", url.Values{"title": {"t"}, "type": {"x"}}, first.seed.JobCreationToken, http.NoBody)
	const chunk = 5 << 20
	content := bytes.Repeat([]byte("0123456789abcdef"), chunk/16+10)
	upload := first.post(t, "/file", url.Values{
		"parentType": {"item"}, "parentId": {first.seed.ItemID}, "name": {"f"}, "size": {fmt.Sprint(len(content))},
	}, first.seed.DataToken, bytes.NewReader(content[:chunk]))
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := first.Wait(); err == nil {
		t.Fatal("ended well though killed")
	}

	second := startCommand(t, dir)
	again, before := second.seed, first.seed
	again.APIURL, before.APIURL = "", ""
	if again != before {
		t.Errorf("seed %+v, before %+v", again, before)
	}
	file := second.post(t, "/file/chunk", url.Values{"uploadId": {fmt.Sprint(upload["_id"])}, "offset": {fmt.Sprint(chunk)}},
		second.seed.DataToken, bytes.NewReader(content[chunk:]))
	for path, want := range map[string]string{
		"/file/" + fmt.Sprint(file["_id"]) + "/download": string(content),
		"/token/current":                 second.seed.UserToken,
		"/job/" + fmt.Sprint(job["_id"]): `"title": "t"`,
	} {
		resp, err := http.Get(second.seed.APIURL + path + "?token=" + second.seed.UserToken)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %s, %d bytes, %v", path, resp.Status, len(text), err)
		}
	}
	if err := second.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := second.Wait(); err != nil {
		t.Errorf("end on SIGTERM: %v", err)
	}
}

// TestTLS asks with what the command leaves in its folder, also after a restart.
func TestTLS(t *testing.T) {
	t.Parallel()
	dir, certificates := t.TempDir(), filepath.Join(t.TempDir(), "tls")
	with := []string{"--tls", certificates, "--client-cert", "--object-store", "127.0.0.1:0"}
	first := startCommand(t, dir, with...)
	client := clientOf(t, certificates)
	query := url.Values{"parentType": {"item"}, "parentId": {first.seed.ItemID}, "name": {"f"}, "size": {"5"}, "token": {first.seed.DataToken}}
	resp, err := client.Post(first.seed.APIURL+"/file?"+query.Encode(), "application/octet-stream", strings.NewReader("bytes"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		ID string `json:"_id"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&file); err != nil || file.ID == "" {
		t.Fatalf("upload: %s, %v", resp.Status, err)
	}
	resp.Body.Close()
	if err := first.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := first.Wait(); err != nil {
		t.Errorf("end on SIGTERM: %v", err)
	}
	second := startCommand(t, dir, with...)
	// The query is not the object store's, so the token does not go there.
	resp, err = client.Get(second.seed.APIURL + "/file/" + file.ID + "/download?token=" + second.seed.DataToken)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	// OpenSSL takes a certificate whose names are the same for one that signs itself.
	if shown := resp.TLS.PeerCertificates[0]; shown.Subject.String() == shown.Issuer.String() {
		t.Errorf("%s is signed by %s", shown.Subject, shown.Issuer)
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil || string(text) != "bytes" || strings.HasPrefix(resp.Request.URL.Path, "/api/v1/") {
		t.Errorf("%s %q from %s, %v", resp.Status, text, resp.Request.URL, err)
	}
	if resp, err := http.Get(second.seed.APIURL + "/system/version"); err == nil {
		resp.Body.Close()
		t.Error("answers without any certificate")
	}
}

// clientOf trusts and shows what is in the folder.
func clientOf(t *testing.T, certificates string) *http.Client {
	t.Helper()
	ca, err := os.ReadFile(filepath.Join(certificates, caFile))
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AppendCertsFromPEM(ca)
	mine := filepath.Join(certificates, clientFile)
	certificate, err := tls.LoadX509KeyPair(mine, mine)
	if err != nil {
		t.Fatal(err)
	}
	config.Certificates = []tls.Certificate{certificate}
	transport := &http.Transport{TLSClientConfig: config}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestClientCertNeedsTLS(t *testing.T) {
	t.Parallel()
	if err := (flags{ClientCert: true}).Validate(); err == nil {
		t.Error("a certificate is demanded over HTTP")
	}
}
