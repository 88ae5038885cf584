package girdersim

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// flow is what Girder's own client or worker sends for one operation, with the
// answers of a real server.
type flow struct {
	Name      string
	Exchanges []struct {
		Method, Target      string
		Headers             map[string]string
		Body                *string
		BodyLength          int64
		Status              int
		Response            *string
		ResponseContentType string
	}
}

func loadFlows(t *testing.T) []flow {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(contractDir(t), "client-flows", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no flows found: %v", err)
	}
	flows := make([]flow, len(files))
	for i, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &flows[i]); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	slices.SortFunc(flows, func(a, b flow) int { return cmp.Compare(a.Name, b.Name) })
	return flows
}

// exchanges are the flow's in the form of the recordings.
func (f *flow) exchanges() []*exchange {
	var out []*exchange
	for _, e := range f.Exchanges {
		x := &exchange{Name: f.Name}
		x.Request.Method, x.Request.Headers = e.Method, e.Headers
		x.Request.Path, x.Request.RawQuery, _ = strings.Cut(e.Target, "?")
		switch {
		case e.Body != nil:
			x.Request.Body = &recordedBody{Text: e.Body}
		case e.BodyLength > 0:
			x.Request.Body = &recordedBody{Generated: fmt.Sprintf("character 'x' repeated %d times", e.BodyLength)}
		}
		x.Response.Status, x.Response.Headers = e.Status, map[string]string{"content-type": e.ResponseContentType}
		if e.Response != nil {
			x.Response.Body = *e.Response
			if json.Valid([]byte(*e.Response)) {
				x.Response.JSON = json.RawMessage(*e.Response)
			}
		}
		out = append(out, x)
	}
	return out
}

// TestClientFlows replays what the stock client and worker send.
func TestClientFlows(t *testing.T) {
	t.Parallel()
	flows := loadFlows(t)
	known := loadExchanges(t)
	for i := range flows {
		known = append(known, flows[i].exchanges()...)
	}
	r := newReplay(t, known)
	alice := r.ours(t, "4186")
	r.bind(r.full(t, "JAPw4x"), must[string](t)(r.sim.UserToken(alice, ScopeUser)))
	for number, part := range map[int]string{30001: "4397", 30002: "4398", 30003: "4399"} {
		r.flowJob(t, number, part)
	}
	target := must[Item](t)(r.sim.CreateItem(r.folderNamed(t, r.full(t, "42e0")), "target"))
	r.bind(r.full(t, "437d"), target.ID)
	for i := range flows {
		t.Run(flows[i].Name, func(t *testing.T) {
			exchanges := flows[i].exchanges()
			r.plant(t, exchanges)
			for at, x := range exchanges {
				if flows[i].Name == "41-jobmanager-canceled" && at == 1 {
					if _, err := r.sim.CancelJob(r.ours(t, "4398")); err != nil {
						t.Fatal(err)
					}
				}
				r.playFlow(t, x)
			}
		})
	}
}

// flowJob makes a job that the stock worker reports to; its token is the one that
// the recorded requests for it carry.
func (r *replay) flowJob(t *testing.T, number int, part string) {
	t.Helper()
	j := must[Job](t)(r.sim.CreateJob(JobSpec{
		Title: fmt.Sprint("job ", number), Type: "docker", UserID: r.ours(t, "4186"),
		Other: map[string]any{"celeryTaskId": fmt.Sprint("task-", number)},
	}))
	recorded := r.full(t, part)
	r.bind(recorded, j.ID)
	for _, f := range loadFlows(t) {
		for _, e := range f.Exchanges {
			if e.Method == http.MethodPut && path.Base(e.Target) == recorded {
				r.bind(e.Headers["Girder-Token"], j.Token)
			}
		}
	}
}

func (r *replay) playFlow(t *testing.T, x *exchange) {
	t.Helper()
	status, header, body := r.send(t, x)
	if status != x.Response.Status {
		t.Fatalf("%s %s: status %d, recorded %d; body %.500s", x.Request.Method, x.Request.Path, status, x.Response.Status, body)
	}
	if want := x.Response.Headers["content-type"]; want != "" && header.Get("Content-Type") != want {
		t.Errorf("%s: content type %q, recorded %q", x.Request.Path, header.Get("Content-Type"), want)
	}
	if x.Response.JSON == nil {
		return // the bytes of files, and errors in HTML
	}
	r.compareJSON(t, body, x.Response.JSON)
	if got, want := r.plain(string(body)), r.plain(r.mapped().Replace(x.Response.Body)); got != want {
		t.Errorf("%s %s: body\n%.1500s\nrecorded\n%.1500s", x.Request.Method, x.Request.Path, got, want)
	}
}

// plant makes what the answers show and no recorded request made: folders, items
// and files, in the order in which they were made.
func (r *replay) plant(t *testing.T, exchanges []*exchange) {
	t.Helper()
	docs, made := map[string]map[string]any{}, map[string]bool{}
	for _, x := range exchanges {
		r.shown(x, docs, made)
	}
	for _, id := range slices.Sorted(maps.Keys(docs)) {
		if doc := docs[id]; r.known[id] == "" && !made[id] {
			r.plantOne(t, id, doc)
		}
	}
}

// shown collects the documents of an answer, and the items that requests name.
func (r *replay) shown(x *exchange, docs map[string]map[string]any, made map[string]bool) {
	if name, rest, _ := strings.Cut(strings.TrimPrefix(x.Request.Path, "/api/v1/"), "/"); name == "item" && rest != "" {
		id, _, _ := strings.Cut(rest, "/")
		if docs[id] == nil {
			docs[id] = map[string]any{"_modelType": "item", "name": id}
		}
	}
	var one map[string]any
	var many []map[string]any
	if json.Unmarshal(x.Response.JSON, &one) == nil {
		many = append(many, one)
	} else if json.Unmarshal(x.Response.JSON, &many) != nil {
		return
	}
	for _, doc := range many {
		id, _ := doc["_id"].(string)
		switch kind := doc["_modelType"]; {
		case id == "":
		case x.Request.Method != http.MethodGet:
			made[id] = true
		case kind == "folder" || kind == "item" || kind == "file":
			docs[id] = doc
		}
	}
}

func (r *replay) plantOne(t *testing.T, id string, doc map[string]any) {
	t.Helper()
	text := func(field string) string { s, _ := doc[field].(string); return s }
	switch doc["_modelType"] {
	case "folder":
		parent := r.folderNamed(t, text("parentId"))
		public, _ := doc["public"].(bool)
		r.bind(id, must[Folder](t)(r.sim.CreateFolder(parent, text("name"), public)).ID)
	case "item":
		r.bind(id, must[Item](t)(r.sim.CreateItem(r.folderNamed(t, text("folderId")), text("name"))).ID)
	case "file":
		item := r.known[text("itemId")]
		if item == "" {
			item = must[Item](t)(r.sim.CreateItem(r.ours(t, "4188"), text("itemId"))).ID
			r.bind(text("itemId"), item)
		}
		query := url.Values{"parentType": {"item"}, "parentId": {item}, "name": {text("name")}}
		var content io.Reader = http.NoBody
		if link := text("linkUrl"); link != "" {
			query.Set("linkUrl", link)
		} else {
			size, _ := doc["size"].(float64)
			query.Set("size", fmt.Sprint(int(size)))
			query.Set("mimeType", text("mimeType"))
			content = strings.NewReader(strings.Repeat("x", int(size)))
		}
		r.bind(id, r.post(t, http.MethodPost, "/file?"+query.Encode(), content)["_id"].(string))
	}
}

// folderNamed is our folder for a recorded one, which is made if need be.
func (r *replay) folderNamed(t *testing.T, id string) string {
	t.Helper()
	if id == "" {
		return r.ours(t, "4188")
	}
	if r.known[id] == "" {
		r.bind(id, must[Folder](t)(r.sim.CreateFolder(r.ours(t, "4188"), "flows "+id, false)).ID)
	}
	return r.known[id]
}
