package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
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

func startCommand(t *testing.T, dir string) *command {
	t.Helper()
	c := &command{Cmd: exec.Command(os.Args[0], "--addr", "127.0.0.1:0", "--dir", dir, "--seed")}
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
