package girder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/contracts"
)

// TestRecordedRefusals feeds every recorded answer to the client and checks its class.
func TestRecordedRefusals(t *testing.T) {
	t.Parallel()
	for _, folder := range []string{"exchanges", "exchanges-v3"} {
		files, err := filepath.Glob(filepath.Join(filepath.Dir(recordings(t)), folder, "*.json"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", folder, files, err)
		}
		for _, file := range files {
			number, _ := strconv.Atoi(filepath.Base(file)[:3])
			e := readExchange(t, file)
			if e.Request.Path == "/notifications/me" {
				continue // a websocket
			}
			t.Run(folder+"/"+e.Name, func(t *testing.T) {
				t.Parallel()
				checkRefusal(t, number, e)
			})
		}
	}
}

// Girder answers all of these with 400.
var (
	recordedMissing = []int{
		224, 225, 290, 291, 331, 356, 357, 426, 427, 428, 474, 506, 531, 629, 630, 631, 643, 645, 704, 705, 725, 745, 754,
	}
	recordedNoRoute = []int{131, 132, 134, 243, 301, 332, 801, 802, 803, 906}
)

func checkRefusal(t *testing.T, number int, e exchange) {
	server := serveAnswer(t, e)
	c := clientOf(t, server, "a-token-that-is-not-shown")
	_, err := c.s.send(t.Context(), &call{method: e.Request.Method, url: server, path: "x", accept: "*/*"})
	if status := e.Response.Status; status < 300 {
		if err != nil {
			t.Fatalf("status %d: %v", status, err)
		}
		return
	}
	var refusal *Error
	if e.Response.Status < 400 {
		if errors.As(err, &refusal) || err == nil {
			t.Fatalf("a redirect to nowhere gives %v", err)
		}
		return
	}
	if !errors.As(err, &refusal) {
		t.Fatalf("status %d gives %v", e.Response.Status, err)
	}
	if want := recordedClass(number, e.Response.Status); !errors.Is(err, want) {
		t.Errorf("%v is not of the class %q", err, want)
	}
	for _, class := range []error{ErrUnauthorized, ErrForbidden, ErrNotFound, ErrValidation, ErrNoRoute, ErrRateLimited, ErrServer} {
		if errors.Is(err, class) != (class == refusal.class()) {
			t.Errorf("%v: more than one class", err)
		}
	}
	if e.Request.Method != "HEAD" && refusal.Message == "" || strings.ContainsAny(err.Error(), "<>\n") {
		t.Errorf("not a readable message: %q", err)
	}
	if want := e.Response.Status >= 500 && number != 446; IsTemporary(err) != want {
		t.Errorf("%v: temporary is not %v", err, want)
	}
}

func recordedClass(number, status int) error {
	switch {
	case slices.Contains(recordedMissing, number):
		return ErrNotFound
	case slices.Contains(recordedNoRoute, number):
		return ErrNoRoute
	case status == 401:
		return ErrUnauthorized
	case status == 403:
		return ErrForbidden
	case status >= 500:
		return ErrServer
	}
	return ErrValidation
}

func TestRefusalFields(t *testing.T) {
	t.Parallel()
	for number, want := range map[int]Error{
		277: {Status: 400, Type: "validation", Field: "status", Message: "Invalid state transition to '1', Current state is '2'."},
		222: {
			Status: 401, Type: "access",
			Message: "Invalid token scope. Required: jobs.job_6b030acb560f11dd1300418b. Allowed: jobs.job_6b030acb560f11dd1300418d",
		},
		446: {
			Status: 500, Type: "girder", Identifier: "girder.utility.filesystem_assetstore_adapter.file-does-not-exist",
			Message: "File /assetstore/44/7e/447eb8a7b860ceefef84558b623e25cf961c80ad17edfdfccffd3beafd1ae201f44ad54b2254e7eb415e3f7ad609c3d5ee42cd6d2d4901360aedd26cea7d6010 does not exist.",
		},
		132: {Status: 404, Message: "Nothing matches the given URI"},
		268: {
			Status:  500,
			Message: "The server encountered an unexpected condition which prevented it from fulfilling the request.",
		},
	} {
		e := exchangeNamed(t, number)
		server := serveAnswer(t, e)
		_, err := clientOf(t, server, "").s.send(t.Context(), &call{method: "GET", url: server, path: "p"})
		var got *Error
		if !errors.As(err, &got) {
			t.Fatalf("%s: %v", e.Name, err)
		}
		want.Method, want.Path = "GET", "p"
		if diff := cmp.Diff(&want, got); diff != "" {
			t.Errorf("%s:\n%s", e.Name, diff)
		}
	}
}

// TestRecordedCalls makes the recorded request with the client's method and checks what it makes of the answer.
func TestRecordedCalls(t *testing.T) {
	t.Parallel()
	for number, test := range recordedCalls {
		e := exchangeNamed(t, number)
		t.Run(e.Name, func(t *testing.T) {
			t.Parallel()
			got, err := test.do(t.Context(), replay(t, e, test.defaults), &e)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

type recordedCall struct {
	do       func(context.Context, *Client, *exchange) (any, error)
	defaults map[string]string
	want     any
}

var (
	firstPage = map[string]string{"limit": "50", "offset": "0"}
	idPage    = map[string]string{"limit": "50", "offset": "0", "sort": "_id", "sortdir": "1"}
	two       = contracts.GirderStatus(2)
	three     = contracts.GirderStatus(3)
)

var recordedCalls = map[int]recordedCall{
	124: {do: func(ctx context.Context, c *Client, _ *exchange) (any, error) {
		tok, err := c.CurrentToken(ctx)
		return fmt.Sprint(tok.Scope), err
	}, want: "[core.data.read core.data.write]"},
	125: {do: func(ctx context.Context, c *Client, _ *exchange) (any, error) {
		return c.CurrentToken(ctx)
	}, want: (*Token)(nil)},
	204: {do: func(ctx context.Context, c *Client, e *exchange) (any, error) {
		p := e.parameters()
		job, err := c.CreateJob(ctx, NewJob{
			Title: p["title"], Type: p["type"], Handler: p["handler"],
			Args: json.RawMessage(p["args"]), Kwargs: json.RawMessage(p["kwargs"]), OtherFields: json.RawMessage(p["otherFields"]),
		})
		return fmt.Sprint(job.Spec.Method, " ", job.Spec.Reference == string(job.ID), " ", len(job.Spec.Headers[TokenHeader]), " ", job.Status), err
	}, want: "PUT true 64 INACTIVE"},
	221: {do: getJob, want: "celery_handler 0 []"},
	230: updateJob(JobUpdate{Log: "first line\n"}, 0),
	233: {do: getJob, want: `celery_handler 0 ["first line\n" "second line\n" "third via query\n"]`},
	236: updateJob(JobUpdate{Log: "only this\n", Overwrite: true}, 0),
	240: updateJob(JobUpdate{Log: "grüße 世界 🚀 \u2028 end\n"}, 0),
	245: updateJob(JobUpdate{Log: "nul\x00 esc\x1b[31mred\x1b[0m cr\r\nend"}, 0),
	265: updateJob(JobUpdate{Progress: Progress{Total: ptr(100.0), Current: ptr(12.5), Message: ptr("working")}}, 0),
	266: updateJob(JobUpdate{Progress: Progress{Current: ptr(13.0)}}, 0),
	275: updateJob(JobUpdate{Status: &two}, 2),
	285: updateJob(JobUpdate{Status: &three, Log: "done\n", Progress: Progress{Total: ptr(1.0), Current: ptr(1.0)}}, 3),
	288: updateJob(JobUpdate{}, 3),
	402: {do: getFile, want: "hello.txt 13 text/plain "},
	436: {do: getFile, want: "link.txt -1  http://example.com/some/data.bin?x=1"},
	403: downloadFile(0, "Hello, world\n", 13),
	413: downloadFile(7, "world\n", 13),
	417: downloadFile(13, "", 13),
	433: downloadFile(0, "", 0),
	510: {do: func(ctx context.Context, c *Client, e *exchange) (any, error) {
		item, err := c.GetItem(ctx, ItemID(e.id()))
		return item.Name, err
	}, want: "many"},
	512: {do: func(ctx context.Context, c *Client, e *exchange) (any, error) {
		return names(c.ListItemFiles(ctx, ItemID(e.id())), func(f File) string { return f.Name })
	}, defaults: firstPage, want: []string{"part0.dat", "part1.dat", "part2.dat", "part3.dat", "part4.dat"}},
	626: {do: foldersPage, defaults: idPage, want: []string{"deeper"}},
	627: {do: foldersPage, defaults: idPage, want: []string(nil)},
	801: {do: uploadArtifact("result.csv", "text/csv", "a,b\n1,2\n"), want: "no such endpoint"},
	802: {do: uploadArtifact("result.bin", "None", "a,b\n1,2\n"), want: "no such endpoint"},
	803: {do: func(ctx context.Context, c *Client, e *exchange) (any, error) {
		_, err := c.JobArtifacts(ctx, JobID(e.id()))
		return noRoute(err)
	}, defaults: map[string]string{"limit": "0"}, want: "no such endpoint"},
	602: {do: func(ctx context.Context, c *Client, e *exchange) (any, error) {
		f, err := c.CreateFolder(ctx, FolderID(e.parameters()["parentId"]), "sub", true)
		return f.Name, err
	}, want: "sub"},
	621: {do: func(ctx context.Context, c *Client, e *exchange) (any, error) {
		f, err := c.GetFolder(ctx, FolderID(e.id()))
		return f.Name + " " + f.ParentType, err
	}, want: "sub folder"},
	701: {do: func(ctx context.Context, c *Client, e *exchange) (any, error) {
		p := e.parameters()
		up, err := c.StartUpload(ctx, NewFile{
			Parent: InFolder(FolderID(p["parentId"])), Name: p["name"], Size: 5, MIMEType: p["mimeType"], Reference: p["reference"],
		})
		return fmt.Sprint(up.ID, " ", up.Received, " ", up.File), err
	}, want: "6b030acc560f11dd13004225 0 <nil>"},
	432: {do: func(ctx context.Context, c *Client, e *exchange) (any, error) {
		up, err := c.StartUpload(ctx, NewFile{Parent: InFolder(FolderID(e.parameters()["parentId"])), Name: "empty.bin"})
		return fmt.Sprint(up.ID, up.File.Name, " ", *up.File.Size), err
	}, want: "empty.bin 0"},
	702: {do: func(ctx context.Context, c *Client, e *exchange) (any, error) {
		return c.UploadOffset(ctx, UploadID(e.parameters()["uploadId"]))
	}, want: int64(0)},
	712: {do: func(ctx context.Context, c *Client, e *exchange) (any, error) {
		return c.UploadOffset(ctx, UploadID(e.parameters()["uploadId"]))
	}, want: int64(5 << 20)},
	711: uploadChunk(0, strings.Repeat("a", 5<<20), "6b030acc560f11dd13004228 5242880"),
	722: uploadChunk(5<<20, strings.Repeat("b", 1000), "finished multi.bin 5243880"),
	771: uploadChunk(0, "new bytes", "finished hello2.txt 9"),
	724: {do: func(ctx context.Context, c *Client, e *exchange) (any, error) {
		return nil, c.CancelUpload(ctx, UploadID(strings.Split(e.Request.Path, "/")[5]))
	}},
	770: {do: func(ctx context.Context, c *Client, e *exchange) (any, error) {
		up, err := c.ReplaceContents(ctx, FileID(e.id()), 9, "")
		return fmt.Sprint(up.ID, " ", up.File), err
	}, want: "6b030ad1560f11dd13004259 <nil>"},
	773: {do: func(ctx context.Context, c *Client, e *exchange) (any, error) {
		up, err := c.ReplaceContents(ctx, FileID(e.id()), 0, "")
		return fmt.Sprint(string(up.File.ID) == e.id(), " ", *up.File.Size), err
	}, want: "true 0"},
}

func foldersPage(ctx context.Context, c *Client, e *exchange) (any, error) {
	page, err := c.FoldersPage(ctx, FolderID(e.parameters()["parentId"]), 0)
	var names []string
	for _, folder := range page {
		names = append(names, folder.Name)
	}
	return names, err
}

func uploadArtifact(name, mime, content string) func(context.Context, *Client, *exchange) (any, error) {
	return func(ctx context.Context, c *Client, e *exchange) (any, error) {
		a := Artifact{Name: name, Size: int64(len(content)), MIMEType: mime}
		_, err := c.UploadArtifact(ctx, JobID(e.id()), a, strings.NewReader(content))
		return noRoute(err)
	}
}

// noRoute is for requests that are refused for want of an endpoint.
func noRoute(err error) (any, error) {
	if errors.Is(err, ErrNoRoute) && !IsTemporary(err) {
		return ErrNoRoute.Error(), nil
	}
	return nil, fmt.Errorf("not refused as expected: %w", err)
}

func ptr[T any](v T) *T { return &v }

func getJob(ctx context.Context, c *Client, e *exchange) (any, error) {
	job, err := c.GetJob(ctx, JobID(e.id()))
	return fmt.Sprintf("%s %d %q", job.Handler, job.Status, []string(job.Log)), err
}

func updateJob(u JobUpdate, want contracts.GirderStatus) recordedCall {
	return recordedCall{do: func(ctx context.Context, c *Client, e *exchange) (any, error) {
		job, err := c.UpdateJob(ctx, JobID(e.id()), u)
		return job.Status, err
	}, want: want}
}

func getFile(ctx context.Context, c *Client, e *exchange) (any, error) {
	f, err := c.GetFile(ctx, FileID(e.id()))
	size := int64(-1)
	if f.Size != nil {
		size = *f.Size
	}
	return fmt.Sprintf("%s %d %s %s", f.Name, size, f.MIMEType, f.LinkURL), err
}

func downloadFile(offset int64, want string, size int64) recordedCall {
	return recordedCall{do: func(ctx context.Context, c *Client, e *exchange) (any, error) {
		d, err := c.DownloadFile(ctx, FileID(e.id()), offset)
		if err != nil {
			return nil, err
		}
		defer d.Close()
		body, err := io.ReadAll(d)
		return fmt.Sprintf("%q of %d", body, d.Size), err
	}, want: fmt.Sprintf("%q of %d", want, size)}
}

func uploadChunk(offset int64, chunk, want string) recordedCall {
	return recordedCall{do: func(ctx context.Context, c *Client, e *exchange) (any, error) {
		id := UploadID(e.parameters()["uploadId"])
		up, err := c.UploadChunk(ctx, id, offset, strings.NewReader(chunk), int64(len(chunk)))
		if up.File != nil {
			return fmt.Sprint("finished ", up.File.Name, " ", *up.File.Size), err
		}
		return fmt.Sprint(up.ID, " ", up.Received), err
	}, want: want}
}

func names[T any](docs iter.Seq2[T, error], name func(T) string) ([]string, error) {
	var all []string
	for doc, err := range docs {
		if err != nil {
			return all, err
		}
		all = append(all, name(doc))
	}
	return all, nil
}
