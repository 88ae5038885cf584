package girder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// A recordedAsk is a request that the client makes, and the method that makes it.
type recordedAsk struct {
	name string
	line *regexp.Regexp // method and path
	do   func(context.Context, *Client, *exchange) error
}

func asks(name, line string, do func(context.Context, *Client, *exchange) error) recordedAsk {
	return recordedAsk{name, regexp.MustCompile("^" + strings.ReplaceAll(line, "ID", "([0-9a-f]{24}|nonsense)") + "$"), do}
}

// recordedAsks are tried in this order.
var recordedAsks = []recordedAsk{
	asks("CurrentToken", "GET /token/current", func(ctx context.Context, c *Client, _ *exchange) error {
		return second(c.CurrentToken(ctx))
	}),
	asks("GetFile", "GET /file/ID", func(ctx context.Context, c *Client, _ *exchange) error { return second(c.GetFile(ctx, testID)) }),
	asks("DownloadFile", "GET /file/ID/download(/.*)?", downloadRecorded),
	asks("StartUpload", "POST /file", func(ctx context.Context, c *Client, _ *exchange) error {
		return second(c.StartUpload(ctx, NewFile{Parent: InFolder(testID), Name: "a", Size: 1}))
	}),
	asks("UploadChunk", "POST /file/chunk", func(ctx context.Context, c *Client, _ *exchange) error {
		return second(c.UploadChunk(ctx, testID, 0, strings.NewReader("a"), 1))
	}),
	asks("UploadOffset", "GET /file/offset", func(ctx context.Context, c *Client, _ *exchange) error { return second(c.UploadOffset(ctx, testID)) }),
	asks("CancelUpload", "DELETE /file/upload/ID", func(ctx context.Context, c *Client, _ *exchange) error { return c.CancelUpload(ctx, testID) }),
	asks("ReplaceContents", "PUT /file/ID/contents", func(ctx context.Context, c *Client, _ *exchange) error {
		return second(c.ReplaceContents(ctx, testID, 1, ""))
	}),
	asks("GetItem", "GET /item/ID", func(ctx context.Context, c *Client, _ *exchange) error { return second(c.GetItem(ctx, testID)) }),
	asks("FilesPage", "GET /item/ID/files", func(ctx context.Context, c *Client, _ *exchange) error { return second(c.FilesPage(ctx, testID, 0)) }),
	asks("ItemsPage", "GET /item", func(ctx context.Context, c *Client, _ *exchange) error { return second(c.ItemsPage(ctx, testID, 0)) }),
	asks("GetFolder", "GET /folder/ID", func(ctx context.Context, c *Client, _ *exchange) error { return second(c.GetFolder(ctx, testID)) }),
	asks("FoldersPage", "GET /folder", func(ctx context.Context, c *Client, _ *exchange) error { return second(c.FoldersPage(ctx, testID, 0)) }),
	asks("CreateFolder", "POST /folder", func(ctx context.Context, c *Client, _ *exchange) error {
		return second(c.CreateFolder(ctx, testID, "a", true))
	}),
	asks("CreateJob", "POST /job", func(ctx context.Context, c *Client, _ *exchange) error {
		return second(c.CreateJob(ctx, NewJob{Title: "a", Type: "a"}))
	}),
	asks("GetJob", "GET /job/ID", func(ctx context.Context, c *Client, _ *exchange) error { return second(c.GetJob(ctx, testID)) }),
	asks("UpdateJob", "PUT /job/ID", func(ctx context.Context, c *Client, _ *exchange) error {
		return second(c.UpdateJob(ctx, testID, JobUpdate{Log: "a"}))
	}),
	asks("UploadArtifact", "POST /job/ID/artifact", func(ctx context.Context, c *Client, _ *exchange) error {
		return second(c.UploadArtifact(ctx, testID, Artifact{Name: "a", Size: 1}, strings.NewReader("a")))
	}),
	asks("JobArtifacts", "GET /job/ID/artifact", func(ctx context.Context, c *Client, _ *exchange) error { return second(c.JobArtifacts(ctx, testID)) }),
}

// neverAsked are requests that the client does not make. What refuses them goes
// through what reads every refusal, as does all the rest in [TestRecordedRefusals].
var neverAsked = regexp.MustCompile(`^(` + strings.Join([]string{
	"HEAD /.*", // what is to be known stands in documents
	"(GET|POST) /(user|api_key|system|worker)/.*", // tokens come from whoever submits
	"POST /api_key",
	"GET //system/version",
	"GET /job(/all|/typeandstatus)?", "(PUT|POST) /job/ID/cancel", "(POST|PATCH|DELETE) /job/ID", "GET /job/x/y/z", // jobs of others
	"(POST|DELETE) /item(/ID)?", "GET /item/ID/download", "PUT /item/ID/metadata", // items are made by files that go into folders
	"GET /folder/ID/details", "GET /resource/.*",
	"(PUT|DELETE) /file/ID", "POST /file/completion",
	"GET /nosuchthing",
	"GET /notification.*", "GET ws", // a job's token hears nothing there
}, "|") + `)$`)

func second[T any](_ T, err error) error { return err }

// downloadRecorded asks for the part that was asked for.
func downloadRecorded(ctx context.Context, c *Client, e *exchange) error {
	offset, _ := strconv.ParseInt(e.parameters()["offset"], 10, 64)
	if from, ok := strings.CutPrefix(e.Request.Headers["Range"], "bytes="); ok {
		first, _, _ := strings.Cut(from, "-")
		offset, _ = strconv.ParseInt(first, 10, 64)
	}
	d, err := c.DownloadFile(ctx, testID, max(offset, 0))
	if err != nil {
		return err
	}
	defer d.Close()
	got, err := io.ReadAll(d)
	if err == nil && e.Response.Body != nil && !strings.HasSuffix(*e.Response.Body, string(got)) {
		return fmt.Errorf("got %q of %q", got, *e.Response.Body)
	}
	return err
}

// unasked are answers to requests that the client does not make just so. It asks
// for all behind an offset, which these are not.
var unasked = map[string]string{
	"405-file-download-range":            "a part with an end",
	"407-file-download-range-suffix":     "the last bytes",
	"408-file-download-range-multi":      "several parts",
	"409-file-download-range-beyond":     "all of a file that is shorter than the offset",
	"414-file-download-offset-end":       "a part with an end",
	"418-file-download-offset-negative":  "a range that cannot be",
	"419-file-download-range-and-offset": "a part with an end",
	"489-file-download-range-unit":       "a part with an end",
}

// omitted are documents that are too large to be recorded: these have a log.
var omitted = map[string]bool{"256-job-log-3mb-get": true, "260-job-log-5mb-overwrite-get": true}

// TestEveryRecording feeds each recorded answer to the method that makes such a
// request.
func TestEveryRecording(t *testing.T) {
	t.Parallel()
	base := filepath.Dir(recordings(t))
	fed := map[string]int{}
	for _, folder := range []string{"exchanges", "exchanges-v3"} {
		files, err := filepath.Glob(filepath.Join(base, folder, "*.json"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", folder, files, err)
		}
		for _, file := range files {
			e := readExchange(t, file)
			name := folder + "/" + strings.TrimSuffix(filepath.Base(file), ".json")
			line := e.Request.Method + " " + strings.TrimPrefix(e.Request.Path, "/api/v1")
			if e.Request.Path == "/notifications/me" {
				line = "GET ws"
			}
			if omitted[filepath.Base(name)] {
				e.Response.Body = ptr(`{"_id":"` + testID + `","log":["` + strings.Repeat("x", 3_000_000) + `"]}`)
			}
			a, ok := methodOf(line)
			switch {
			case ok:
				fed[a.name]++
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					checkFed(t, name, a, e)
				})
			case !neverAsked.MatchString(idPattern.ReplaceAllString(line, "ID")):
				t.Errorf("%s: %s is neither a request of the client nor known as none", name, line)
			}
		}
	}
	for _, a := range recordedAsks {
		if fed[a.name] == 0 {
			t.Errorf("nothing recorded goes to %s", a.name)
		}
	}
	t.Log(fed)
}

var idPattern = regexp.MustCompile(`[0-9a-f]{24}`)

func methodOf(line string) (recordedAsk, bool) {
	for _, a := range recordedAsks {
		if a.line.MatchString(line) {
			return a, true
		}
	}
	return recordedAsk{}, false
}

func checkFed(t *testing.T, name string, a recordedAsk, e exchange) {
	number, _ := strconv.Atoi(filepath.Base(name)[:3])
	err := a.do(t.Context(), clientOf(t, serveAnswer(t, e), "a-token-that-is-not-shown"), &e)
	var refusal *Error
	var broken *Unreachable
	status := e.Response.Status
	switch why, odd := unasked[filepath.Base(name)]; {
	case odd:
		if !errors.As(err, &broken) || !IsTemporary(err) {
			t.Errorf("%s (%s): %v", a.name, why, err)
		}
	case status < 300 && err != nil:
		t.Errorf("%s: status %d: %v", a.name, status, err)
	case status < 300:
	case status < 400: // a link to a host that is not there
		if !errors.As(err, &broken) || broken.Host == "" {
			t.Errorf("%s: status %d: %v", a.name, status, err)
		}
	case !errors.As(err, &refusal) || refusal.Status != status || !errors.Is(err, recordedClass(number, status)):
		t.Errorf("%s: status %d gives %v", a.name, status, err)
	}
}
