package girdersim

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
)

// makeFixtures says what the recorded server had been told before an exchange,
// beyond the exchanges themselves.
func (r *replay) makeFixtures() map[string]func(*testing.T) {
	private := func(t *testing.T) string { return r.ours(t, "4188") }
	golden := func(t *testing.T) string { return r.ours(t, "41a9") }
	upload := func(part, name string, size int) func(*testing.T) {
		return func(t *testing.T) { r.upload(t, part, golden(t), name, size) }
	}
	return map[string]func(*testing.T){
		"240-job-log-nonascii": r.jobs,
		"296-job-put-expired":  r.expiredJobToken,
		"304-job-put-owner":    r.repairProgress,
		"355-job-delete":       func(t *testing.T) { r.job(t, jobFixture{"41a8", "pAkME1", CeleryHandler, Running, true}, 17) },

		"401-file-create-small":    func(t *testing.T) { r.folder(t, "41a9", private(t), "golden-1795361484205") },
		"444-file-download-public": func(t *testing.T) { r.file(t, "41f0", r.ours(t, "4187"), "public.txt", "public", "text/plain") },
		"446-file-download-lost":   r.lostFile,
		"473-file-delete":          func(t *testing.T) { r.file(t, "41fa", golden(t), "gone.txt", "gone", "text/plain") },
		"480-latin1-name-download": func(t *testing.T) {
			r.folder(t, "439a", private(t), "golden-2")
			doc := r.file(t, "439d", r.ours(t, "439a"), "straße.txt", "hi", "")
			r.bind(r.full(t, "439c"), doc["itemId"].(string))
		},
		"489-file-download-range-unit": func(t *testing.T) { r.file(t, "43a0", r.ours(t, "439a"), "r.txt", "hello", "") },
		"512-item-files":               r.parts,
		"521-item-one-file-same-name":  func(t *testing.T) { r.itemWith(t, "420f", "one.txt", "4211", "one.txt", "one") },
		"522-item-one-file-other-name": func(t *testing.T) { r.itemWith(t, "4212", "one2", "4214", "different.txt", "two") },
		"523-item-two-files-same-name": func(t *testing.T) {
			r.create(t, "4216", "item", r.ours(t, "4212"), "different.txt", "six", "text/plain")
		},
		"626-folder-list-nested": func(t *testing.T) {
			doc := r.file(t, "4224", r.ours(t, "4221"), "leaf.txt", "leaf", "text/plain")
			r.bind(r.full(t, "4223"), doc["itemId"].(string))
		},
		"723-upload-chunk-min-minus-one":     upload("422b", "min.bin", 6000000),
		"726-upload-chunk-no-content-type":   upload("422c", "chunk-params-form.bin", 5),
		"727-upload-chunk-form-content-type": upload("422f", "chunk-form.bin", 5),
		"730-upload-chunk-text-type":         upload("4232", "chunk-text.bin", 5),
		"731-upload-chunk-chunked-encoding":  upload("4235", "chunk-te.bin", 5242885),
		"752-upload-completion-early":        upload("424b", "early.bin", 9),
		"755-upload-chunk-no-offset":         upload("424f", "nooff.bin", 3),
		"756-upload-cancel-other-user":       upload("4252", "other.bin", 3),
		"757-upload-offset-other-user":       upload("4253", "other.bin", 3),
		"760-upload-offset-after-crash":      r.crashedUpload,
		"762-upload-offset-after-broken-connection": func(t *testing.T) {
			r.upload(t, "4257", golden(t), "broken.bin", 10000000)
			r.breakOff(t, r.ours(t, "4257"), 5242980, 5242930)
		},
		"763-upload-offset-after-broken-connection-early": func(t *testing.T) {
			r.upload(t, "4258", golden(t), "broken2.bin", 10000000)
			r.breakOff(t, r.ours(t, "4258"), 5242980, 300000)
		},
		"778-upload-chunk-110mib":       upload("425e", "huge-chunk.bin", 115343360),
		"779-upload-init-no-assetstore": r.noAssetstore,
		"801-job-artifact-post":         func(t *testing.T) { r.job(t, jobFixture{"4261", "pr7CLf", CeleryHandler, Running, true}, 18) },
	}
}

// jobFixture is a job of alice's whose status was set in the database.
type jobFixture struct {
	id, token string // as recorded, abbreviated; no token: never used
	handler   string
	status    int
	hasTask   bool
}

func (r *replay) jobs(t *testing.T) {
	t.Helper()
	for i, f := range []jobFixture{
		{"4198", "NMOJsA", CeleryHandler, Inactive, true},
		{"4199", "x8etYw", CeleryHandler, Inactive, true},
		{"419a", "e2ser1", CeleryHandler, Inactive, true},
		{"419b", "RZvelQ", CeleryHandler, Inactive, true},
		{"419c", "iFMFA1", CeleryHandler, Inactive, true},
		{"419d", "wBiKlk", CeleryHandler, Inactive, true},
		{"419e", "3x5gVA", CeleryHandler, Running, true},
		{"419f", "ElQs2Z", CeleryHandler, Canceling, true},
		{"41a0", "4NYwkB", CeleryHandler, Inactive, true},
		{"41a1", "SKpZH8", CeleryHandler, Queued, true},
		{"41a2", "vUvFfa", CeleryHandler, Success, true},
		{"41a3", "hU1wLG", CeleryHandler, Running, false},
		{"41a4", "", CeleryHandler, FetchingInput, true},
		{"41a5", "G1J9zS", WorkerHandler, Running, true},
		{"41a6", "7Mvllj", "my_handler", Running, false},
		{"41a7", "OYCkgo", "my_handler", Success, false},
	} {
		r.job(t, f, i+1)
	}
}

func (r *replay) job(t *testing.T, f jobFixture, number int) {
	t.Helper()
	spec := JobSpec{Title: fmt.Sprint("job ", number), Type: "docker", Handler: f.handler, UserID: r.ours(t, "4186")}
	spec.Other = map[string]any{"celeryTaskId": nil}
	if f.hasTask {
		spec.Other["celeryTaskId"] = fmt.Sprintf("task-%04d", number)
	}
	j := must[Job](t)(r.sim.CreateJob(spec))
	if err := r.sim.SetJobStatus(j.ID, f.status); err != nil {
		t.Fatal(err)
	}
	r.bind(r.full(t, f.id), j.ID)
	if f.token != "" {
		r.bind(r.full(t, f.token), j.Token)
	}
}

func (r *replay) expiredJobToken(t *testing.T) {
	token := must[string](t)(r.sim.Token(jobScope(r.ours(t, "419d"))))
	if err := r.sim.RevokeToken(token); err != nil {
		t.Fatal(err)
	}
	r.bind(r.full(t, "KdEMRG"), token)
}

// repairProgress replaces the NaN that made a job unreadable.
func (r *replay) repairProgress(t *testing.T) {
	r.post(t, http.MethodPut, "/job/"+r.ours(t, "419b")+"?progressCurrent=14", http.NoBody)
}

func (r *replay) folder(t *testing.T, part, parentID, name string) {
	t.Helper()
	r.bind(r.full(t, part), must[Folder](t)(r.sim.CreateFolder(parentID, name, false)).ID)
}

func (r *replay) create(t *testing.T, part, parentType, parentID, name, content, mimeType string) map[string]any {
	t.Helper()
	query := url.Values{"parentType": {parentType}, "parentId": {parentID}, "name": {name}, "size": {fmt.Sprint(len(content))}}
	if mimeType != "" {
		query.Set("mimeType", mimeType)
	}
	doc := r.post(t, http.MethodPost, "/file?"+query.Encode(), strings.NewReader(content))
	r.bind(r.full(t, part), doc["_id"].(string))
	return doc
}

func (r *replay) file(t *testing.T, part, folderID, name, content, mimeType string) map[string]any {
	t.Helper()
	return r.create(t, part, "folder", folderID, name, content, mimeType)
}

func (r *replay) lostFile(t *testing.T) {
	doc := r.file(t, "41f3", r.ours(t, "41a9"), "lost.txt", "bytes to lose", "")
	if err := r.sim.LoseBytes(doc["_id"].(string)); err != nil {
		t.Fatal(err)
	}
}

func (r *replay) parts(t *testing.T) {
	for i, part := range []string{"4206", "4208", "420a", "420c", "420e"} {
		r.create(t, part, "item", r.ours(t, "4201"), fmt.Sprintf("part%d.dat", 4-i), fmt.Sprintf("data%d", i), "text/plain")
	}
}

func (r *replay) itemWith(t *testing.T, itemPart, itemName, filePart, fileName, content string) {
	t.Helper()
	i := must[Item](t)(r.sim.CreateItem(r.ours(t, "41a9"), itemName))
	r.bind(r.full(t, itemPart), i.ID)
	r.create(t, filePart, "item", i.ID, fileName, content, "text/plain")
}

func (r *replay) upload(t *testing.T, part, folderID, name string, size int) {
	t.Helper()
	query := url.Values{"parentType": {"folder"}, "parentId": {folderID}, "name": {name}, "size": {fmt.Sprint(size)}}
	doc := r.post(t, http.MethodPost, "/file?"+query.Encode(), http.NoBody)
	r.bind(r.full(t, part), doc["_id"].(string))
}

// crashedUpload leaves bytes on disk that the server did not live to count.
func (r *replay) crashedUpload(t *testing.T) {
	r.upload(t, "4254", r.ours(t, "41a9"), "crashed.bin", 12)
	if err := os.WriteFile(r.sim.st.bytes.tempPath(r.ours(t, "4254")), []byte("abcdefgh"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// noAssetstore turns to another server, which cannot store files.
func (r *replay) noAssetstore(t *testing.T) {
	sim, err := Start(Options{NoAssetstore: true})
	if err != nil {
		t.Fatal(err)
	}
	before := r.base
	r.base = sim.URL()
	t.Cleanup(func() {
		r.base = before
		if err := sim.Close(); err != nil {
			t.Error(err)
		}
	})
	root := must[User](t)(sim.CreateAdmin("admin", "adminpassword"))
	r.bind(r.full(t, "XjA93h"), must[string](t)(sim.UserToken(root.ID, ScopeUser)))
	r.bind(r.full(t, "2828"), sim.Folders(root.ID)[0].ID)
}

type dialer = func(ctx context.Context, network, address string) (net.Conn, error)

// dialLengthless connects so that requests lose their Content-Length.
func dialLengthless(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	return &lengthless{Conn: conn}, err
}

type lengthless struct{ net.Conn }

func (c *lengthless) Write(p []byte) (int, error) {
	_, err := io.WriteString(c.Conn, strings.ReplaceAll(string(p), "Content-Length: 0\r\n", ""))
	return len(p), err
}
