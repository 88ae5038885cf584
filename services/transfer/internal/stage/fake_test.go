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
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts/client/leaktest"
	"github.com/gantry-worker/gantry/services/internal/girder"
)

// long is longer than anything takes that comes at all, on whatever machine.
const long = 5 * time.Minute

func TestMain(m *testing.M) {
	answerTime, cleanupTime = long, long
	leaktest.Main(m)
}

// quick retries at once, and long enough for any test.
var quick = girder.Retry{Total: long, First: time.Millisecond, Max: 2 * time.Millisecond}

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
	tree    fakeTree
	shelves map[girder.FolderID]*shelf
	hook    func(request string) error
	asked   []string
}

type fakeFile struct {
	doc  girder.File
	data []byte
}

type fakeUpload struct {
	into   *fakeFile       // nil: a new file
	folder girder.FolderID // empty: in the item
	name   string
	mime   string
	size   int64
	data   bytes.Buffer
}

func newFake() *fakeGirder {
	return &fakeGirder{uploads: map[girder.UploadID]*fakeUpload{}, shelves: map[girder.FolderID]*shelf{}, tree: fakeTree{
		folders: map[girder.FolderID]girder.Folder{}, items: map[girder.ItemID]girder.Item{},
		foldersOf: map[girder.FolderID][]girder.Folder{}, itemsOf: map[girder.FolderID][]girder.Item{},
		filesOf: map[girder.ItemID][]girder.File{}, contents: map[girder.FileID][]byte{},
	}}
}

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
	doc := f.doc
	err := f.request("get", func() error {
		for _, file := range f.everyFile() {
			if file.doc.ID == id {
				doc = file.doc
				return nil
			}
		}
		for _, in := range f.tree.filesOf {
			for _, file := range in {
				if file.ID == id {
					doc = file
					return nil
				}
			}
		}
		if id != f.doc.ID {
			return &girder.Error{Status: 400, Message: "Invalid file id (" + string(id) + ")."}
		}
		return nil
	})
	return doc, err
}

func (f *fakeGirder) GetItem(_ context.Context, id girder.ItemID) (doc girder.Item, err error) {
	err = f.request("get item", func() error {
		doc = f.tree.items[id]
		for _, on := range f.shelves {
			for _, item := range on.items {
				if item.doc.ID == id {
					doc = item.doc
				}
			}
		}
		return nil
	})
	return doc, err
}

func (f *fakeGirder) GetFolder(_ context.Context, id girder.FolderID) (doc girder.Folder, err error) {
	err = f.request("get folder", func() error { doc = f.tree.folders[id]; return nil })
	return doc, err
}

func (f *fakeGirder) FilesPage(_ context.Context, id girder.ItemID, offset int) (page []girder.File, err error) {
	err = f.request(fmt.Sprint("files ", offset), func() error {
		page = pageOf(f.tree.filesOf[id], offset)
		for _, file := range f.everyFile() {
			if file.doc.ItemID == id {
				page = append(page, file.doc)
			}
		}
		return nil
	})
	return page, err
}

func (f *fakeGirder) ItemsPage(_ context.Context, id girder.FolderID, offset int) (page []girder.Item, err error) {
	err = f.request(fmt.Sprint("items ", offset), func() error { page = pageOf(f.tree.itemsOf[id], offset); return nil })
	return page, err
}

func (f *fakeGirder) FoldersPage(_ context.Context, id girder.FolderID, offset int) (page []girder.Folder, err error) {
	err = f.request(fmt.Sprint("folders ", offset), func() error { page = pageOf(f.tree.foldersOf[id], offset); return nil })
	return page, err
}

func pageOf[T any](all []T, offset int) []T {
	all = all[min(offset, len(all)):]
	return all[:min(girder.PageSize, len(all))]
}

// fakeTree is folders and items with files to download.
type fakeTree struct {
	folders   map[girder.FolderID]girder.Folder
	items     map[girder.ItemID]girder.Item
	foldersOf map[girder.FolderID][]girder.Folder
	itemsOf   map[girder.FolderID][]girder.Item
	filesOf   map[girder.ItemID][]girder.File
	contents  map[girder.FileID][]byte
}

// folder adds a folder, to another or to none.
func (f *fakeGirder) folder(in girder.FolderID, name string) girder.FolderID {
	doc := girder.Folder{ID: girder.FolderID(fmt.Sprint("folder", len(f.tree.folders))), Name: name}
	f.tree.folders[doc.ID] = doc
	f.tree.foldersOf[in] = append(f.tree.foldersOf[in], doc)
	return doc.ID
}

// add adds an item with files: pairs of name and content.
func (f *fakeGirder) add(in girder.FolderID, name string, files ...string) girder.ItemID {
	doc := girder.Item{ID: girder.ItemID(fmt.Sprint("item", len(f.tree.items))), Name: name}
	f.tree.items[doc.ID] = doc
	f.tree.itemsOf[in] = append(f.tree.itemsOf[in], doc)
	for i := 0; i < len(files); i += 2 {
		id := girder.FileID(fmt.Sprint("f-", len(f.tree.contents)))
		f.tree.contents[id] = []byte(files[i+1])
		f.tree.filesOf[doc.ID] = append(f.tree.filesOf[doc.ID], girder.File{ID: id, Name: files[i], Size: size(len(files[i+1]))})
	}
	return doc.ID
}

func (f *fakeGirder) DownloadFile(_ context.Context, id girder.FileID, offset int64) (*girder.Download, error) {
	var body io.Reader
	var data []byte
	err := f.request(fmt.Sprint("download ", offset), func() error {
		data = f.data
		if content, ok := f.tree.contents[id]; ok {
			data = content
		}
		for _, file := range f.everyFile() {
			if file.doc.ID == id {
				data = file.data
			}
		}
		rest := data[offset:]
		body = bytes.NewReader(rest)
		if f.pieces > 0 && f.pieces < len(rest) {
			body = io.MultiReader(bytes.NewReader(rest[:f.pieces]), broken{f.quiet})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	total := int64(len(data))
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
		u := &fakeUpload{name: n.Name, mime: n.MIMEType, size: n.Size}
		for id := range f.shelves {
			if n.Parent == girder.InFolder(id) {
				u.folder = id
			}
		}
		up = f.begin(u)
		return nil
	})
	return up, err
}

// shelf is a folder that takes files, each as an item of its own.
type shelf struct {
	parent girder.FolderID
	name   string
	items  []*shelved // oldest first
}

type shelved struct {
	doc  girder.Item
	file *fakeFile
}

// put makes the item of a new file.
func (f *fakeGirder) put(into girder.FolderID, file *fakeFile) {
	on := f.shelves[into]
	name := file.doc.Name
	for n := 1; slices.ContainsFunc(on.items, func(i *shelved) bool { return i.doc.Name == name }); n++ {
		name = fmt.Sprintf("%s (%d)", file.doc.Name, n)
	}
	f.made++
	created := time.UnixMilli(int64(f.made)).UTC().Format(time.RFC3339Nano)
	doc := girder.Item{ID: girder.ItemID(fmt.Sprint("item", f.made)), Name: name, FolderID: into, Created: created}
	file.doc.ItemID = doc.ID
	on.items = append(on.items, &shelved{doc, file})
}

// shelve makes a folder that takes files.
func (f *fakeGirder) shelve(parent girder.FolderID, name string) girder.FolderID {
	f.made++
	id := girder.FolderID(fmt.Sprint("shelf", f.made))
	f.shelves[id] = &shelf{parent: parent, name: name}
	return id
}

// shelvedIn lists what a folder has: files by the path of their item.
func (f *fakeGirder) shelvedIn(id girder.FolderID) map[string]string {
	found := map[string]string{}
	for _, item := range f.shelves[id].items {
		found[item.doc.Name] = string(item.file.data)
	}
	for sub, on := range f.shelves {
		if on.parent != id {
			continue
		}
		found[on.name+"/"] = ""
		for path, content := range f.shelvedIn(sub) {
			found[on.name+"/"+path] = content
		}
	}
	return found
}

func (f *fakeGirder) CreateFolder(_ context.Context, parent girder.FolderID, name string, reuse bool) (doc girder.Folder, err error) {
	err = f.request("create folder", func() error {
		for id, on := range f.shelves {
			if on.parent == parent && on.name == name && reuse {
				doc = girder.Folder{ID: id, Name: name}
				return nil
			}
		}
		doc = girder.Folder{ID: f.shelve(parent, name), Name: name}
		return nil
	})
	return doc, err
}

func (f *fakeGirder) NewestItems(_ context.Context, id girder.FolderID, offset int) (page []girder.Item, err error) {
	err = f.request("newest", func() error {
		var all []girder.Item
		for _, item := range slices.Backward(f.shelves[id].items) {
			all = append(all, item.doc)
		}
		page = pageOf(all, offset)
		return nil
	})
	return page, err
}

// everyFile goes through the files that were uploaded.
func (f *fakeGirder) everyFile() []*fakeFile {
	all := slices.Clone(f.item)
	for _, on := range f.shelves {
		for _, item := range on.items {
			all = append(all, item.file)
		}
	}
	return all
}

func (f *fakeGirder) ReplaceContents(_ context.Context, id girder.FileID, size int64, _ string) (up girder.Upload, err error) {
	err = f.request("replace", func() error {
		for _, file := range f.everyFile() {
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
		if u.folder != "" {
			f.put(u.folder, u.into)
		} else {
			f.item = append(f.item, u.into)
		}
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
