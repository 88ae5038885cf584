package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gantry-worker/gantry/services/internal/girder"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quick retries at once, and long enough for any test.
var quick = girder.Retry{Total: time.Minute, First: time.Millisecond, Max: 2 * time.Millisecond}

// impatient gives up soon.
var impatient = girder.Retry{Total: 20 * time.Millisecond, First: time.Millisecond, Max: time.Millisecond}

var errCut = &girder.Unreachable{Method: "X", Path: "y", Err: errors.New("connection reset")}

// fakeGirder is one file to download and one item to upload to, in memory. A
// hook is called with the name of a request; before it is carried out or, with
// the suffix " answered", after: its error replaces the answer.
type fakeGirder struct {
	mu      sync.Mutex
	doc     girder.File
	data    []byte
	pieces  int  // bytes until a download breaks, 0: never
	quiet   bool // a download that breaks ends like a whole one
	unsized bool // downloads do not say how long the file is
	item    []*fakeFile
	uploads map[girder.UploadID]*fakeUpload
	made    int
	spoil   int // uploads that end up with other bytes
	hook    func(request string) error
	asked   []string
}

type fakeFile struct {
	doc  girder.File
	data []byte
}

type fakeUpload struct {
	into *fakeFile // nil: a new file
	name string
	mime string
	size int64
	data bytes.Buffer
}

func newFake() *fakeGirder { return &fakeGirder{uploads: map[girder.UploadID]*fakeUpload{}} }

func (f *fakeGirder) offers(name string, data []byte) girder.FileID {
	f.doc = girder.File{ID: "f1", Name: name, Size: size(len(data))}
	f.data = data
	return f.doc.ID
}

func size(n int) *int64 { s := int64(n); return &s }

// request runs one request between its hooks.
func (f *fakeGirder) request(name string, do func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, name)
	if f.hook != nil {
		if err := f.hook(name); err != nil {
			return err
		}
	}
	if err := do(); err != nil {
		return err
	}
	if f.hook != nil {
		return f.hook(name + " answered")
	}
	return nil
}

func (f *fakeGirder) count(request string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, asked := range f.asked {
		if asked == request {
			n++
		}
	}
	return n
}

func (f *fakeGirder) GetFile(_ context.Context, id girder.FileID) (girder.File, error) {
	err := f.request("get", func() error {
		if id != f.doc.ID {
			return &girder.Error{Status: 400, Message: "Invalid file id (" + string(id) + ")."}
		}
		return nil
	})
	return f.doc, err
}

func (f *fakeGirder) DownloadFile(_ context.Context, _ girder.FileID, offset int64) (*girder.Download, error) {
	var body io.Reader
	err := f.request(fmt.Sprint("download ", offset), func() error {
		rest := f.data[offset:]
		body = bytes.NewReader(rest)
		if f.pieces > 0 && f.pieces < len(rest) {
			body = io.MultiReader(bytes.NewReader(rest[:f.pieces]), broken{f.quiet})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	total := int64(len(f.data))
	if f.unsized {
		total = -1
	}
	return &girder.Download{ReadCloser: io.NopCloser(body), Size: total}, nil
}

type broken struct{ quiet bool }

func (b broken) Read([]byte) (int, error) {
	if b.quiet {
		return 0, io.EOF
	}
	return 0, errCut
}

func (f *fakeGirder) ListItemFiles(context.Context, girder.ItemID) iter.Seq2[girder.File, error] {
	var docs []girder.File
	err := f.request("list", func() error {
		for _, file := range f.item {
			docs = append(docs, file.doc)
		}
		return nil
	})
	return func(yield func(girder.File, error) bool) {
		for _, doc := range docs {
			if !yield(doc, nil) {
				return
			}
		}
		if err != nil {
			yield(girder.File{}, err)
		}
	}
}

func (f *fakeGirder) StartUpload(_ context.Context, n girder.NewFile) (up girder.Upload, err error) {
	err = f.request("start", func() error {
		up = f.begin(&fakeUpload{name: n.Name, mime: n.MIMEType, size: n.Size})
		return nil
	})
	return up, err
}

func (f *fakeGirder) ReplaceContents(_ context.Context, id girder.FileID, size int64, _ string) (up girder.Upload, err error) {
	err = f.request("replace", func() error {
		for _, file := range f.item {
			if file.doc.ID == id {
				up = f.begin(&fakeUpload{into: file, name: file.doc.Name, size: size})
				return nil
			}
		}
		return &girder.Error{Status: 400, Message: "Invalid file id (" + string(id) + ")."}
	})
	return up, err
}

func (f *fakeGirder) begin(u *fakeUpload) girder.Upload {
	if u.size == 0 {
		return girder.Upload{File: f.finish(u)}
	}
	f.made++
	id := girder.UploadID(fmt.Sprint("u", f.made))
	f.uploads[id] = u
	return girder.Upload{ID: id}
}

func (f *fakeGirder) finish(u *fakeUpload) *girder.File {
	f.made++
	if u.into == nil {
		u.into = &fakeFile{doc: girder.File{ID: girder.FileID(fmt.Sprint("file", f.made)), ItemID: "item", Name: u.name, MIMEType: u.mime}}
		f.item = append(f.item, u.into)
	}
	u.into.data = bytes.Clone(u.data.Bytes())
	if f.spoil > 0 {
		f.spoil--
		u.into.data[0]++
		u.into.doc.SHA512 = "another"
	} else {
		u.into.doc.SHA512 = ""
	}
	u.into.doc.Size, u.into.doc.Created = &u.size, fmt.Sprint("time ", f.made)
	doc := u.into.doc
	return &doc
}

func (f *fakeGirder) UploadChunk(_ context.Context, id girder.UploadID, offset int64, body io.Reader, length int64) (up girder.Upload, err error) {
	err = f.request(fmt.Sprint("chunk ", offset), func() error {
		u := f.uploads[id]
		if u == nil {
			return gone(id)
		}
		if have := int64(u.data.Len()); have != offset {
			return &girder.Error{Status: 400, Message: fmt.Sprintf("Server has received %d bytes, but client sent offset %d.", have, offset)}
		}
		n, err := io.Copy(&u.data, body)
		if err != nil || n != length {
			u.data.Truncate(int(offset))
			return &girder.Unreachable{Err: fmt.Errorf("request body of %d instead of %d: %w", n, length, err)}
		}
		up = girder.Upload{ID: id, Received: int64(u.data.Len())}
		if up.Received == u.size {
			delete(f.uploads, id)
			up = girder.Upload{File: f.finish(u)}
		}
		return nil
	})
	return up, err
}

func (f *fakeGirder) UploadOffset(_ context.Context, id girder.UploadID) (offset int64, err error) {
	err = f.request("offset", func() error {
		if f.uploads[id] == nil {
			return gone(id)
		}
		offset = int64(f.uploads[id].data.Len())
		return nil
	})
	return offset, err
}

func (f *fakeGirder) CancelUpload(_ context.Context, id girder.UploadID) error {
	return f.request("cancel", func() error {
		if f.uploads[id] == nil {
			return gone(id)
		}
		delete(f.uploads, id)
		return nil
	})
}

func gone(id girder.UploadID) error {
	return &girder.Error{Status: 400, Message: "Invalid upload id (" + string(id) + ")."}
}

// once fails the request of that name the given number of times.
func fail(times int, request string, err error) func(string) error {
	return func(asked string) error {
		if times > 0 && asked == request {
			times--
			return err
		}
		return nil
	}
}

// files lists everything below a folder: path, mode and content.
func files(t *testing.T, folder string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(folder, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		found[strings.TrimPrefix(path, folder+"/")] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
