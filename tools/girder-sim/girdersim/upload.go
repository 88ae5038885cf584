package girdersim

import (
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"mime"
	"strings"
	"sync"
	"time"
)

// upload is a file whose bytes are still arriving.
type upload struct {
	ID, Name, UserID     string
	ParentType, ParentID string
	FileID               string // the file whose content it replaces, instead of a parent
	MimeType             *string
	Reference            string
	Size, Received       int64
	Hash                 hashState // of the received bytes
	Created, Updated     time.Time

	busy sync.Mutex // held while a chunk arrives; taken before the store's
}

func (st *store) uploadView(u *upload) map[string]any {
	doc := map[string]any{
		"_id": u.ID, "assetstoreId": st.assetstoreID(), "created": iso(u.Created), "mimeType": nil, "name": u.Name,
		"received": u.Received, "sha512state": "b'" + hex.EncodeToString(u.Hash) + "'", "size": u.Size,
		"tempFile": "/assetstore/temp/" + u.ID, "updated": iso(u.Updated), "userId": u.UserID,
	}
	if u.MimeType != nil {
		doc["mimeType"] = *u.MimeType
	}
	if u.FileID != "" {
		doc["fileId"] = u.FileID
	} else {
		doc["parentType"], doc["parentId"] = u.ParentType, u.ParentID
	}
	if u.Reference != "" {
		doc["reference"] = u.Reference
	}
	return doc
}

func (st *store) keepUpload(u *upload) error {
	u.Created, u.Updated = stored(u.Created), stored(u.Updated)
	return st.uploads.put(u.ID, u)
}

// newUpload stores an upload and shows it as created.
func (st *store) newUpload(u *upload) (*upload, map[string]any, error) {
	if u.Size < 0 {
		return nil, nil, validationError("", "File size must not be negative.")
	}
	var err error
	if u.Hash, err = newHashState(); err != nil {
		return nil, nil, err
	}
	u.ID, u.Created = st.ids.next(), stamp()
	u.Updated = stamp()
	if u.Size == 0 {
		if err := st.bytes.create(u.ID); err != nil {
			return nil, nil, fmt.Errorf("create upload: %w", err)
		}
	}
	view := st.uploadView(u)
	return u, view, st.keepUpload(u)
}

// finish turns a complete upload into a file.
func (st *store) finish(u *upload) (*file, error) {
	sum, err := u.Hash.sum()
	if err != nil {
		return nil, err
	}
	f, replaced, err := st.fileOf(u)
	if err != nil {
		return nil, err
	}
	if err := st.bytes.keep(u.ID, sum); err != nil {
		return nil, fmt.Errorf("keep bytes of upload %s: %w", u.ID, err)
	}
	size := u.Size
	f.SHA512, f.Size, f.Created = sum, &size, stamp()
	if err := st.keepFile(f); err != nil {
		return nil, err
	}
	if err := st.dropBytes(replaced); err != nil {
		return nil, err
	}
	return f, st.uploads.remove(u.ID)
}

// fileOf is the file that an upload is for: a copy of the one whose content it
// replaces, with the name of its old bytes, or a new one.
func (st *store) fileOf(u *upload) (f *file, replaced string, err error) {
	if u.FileID != "" {
		old := st.files.get(u.FileID)
		if old == nil {
			return nil, "", noSuch("file", u.FileID)
		}
		changed := *old
		return &changed, old.SHA512, nil
	}
	if u.ParentType == "item" && u.Name == "" {
		return nil, "", validationError("name", "File name must not be empty.")
	}
	itemID, err := st.itemForFile(u.ParentType, u.ParentID, u.Name, u.UserID)
	if err != nil {
		return nil, "", err
	}
	return &file{ID: st.ids.next(), Name: u.Name, ItemID: itemID, CreatorID: u.UserID, MimeType: u.MimeType}, "", nil
}

// createFile starts an upload, takes the whole file in one request, or makes a
// link.
func createFile(q *request) (any, error) {
	u, view, err := q.startUpload()
	if u == nil || err != nil {
		return view, err
	}
	if !q.hasContent() {
		return view, nil
	}
	return q.receive(u, 0)
}

// hasContent reports whether the body is bytes of a file: never with chunked
// encoding, nor where it was read as a form.
func (q *request) hasContent() bool {
	kind, _, err := mime.ParseMediaType(q.r.Header.Get("Content-Type"))
	isForm := err == nil && (kind == "application/x-www-form-urlencoded" || strings.HasPrefix(kind, "multipart/"))
	return q.r.ContentLength > 0 && !isForm
}

// startUpload does what needs no bytes. Without an upload the answer is final.
func (q *request) startUpload() (*upload, map[string]any, error) {
	q.st.mu.Lock()
	defer q.st.mu.Unlock()
	u, err := q.newFileTarget()
	if err != nil {
		return nil, nil, err
	}
	if link, ok := q.p.optional("linkUrl"); ok {
		f, err := q.createLink(u, link)
		return nil, f, err
	}
	if _, ok := q.p.optional("size"); !ok {
		return nil, nil, restError("Parameter \"size\" is required.")
	}
	if q.p.text("assetstoreId") != "" {
		if err := q.ensureAdmin("You must be an admin to select a destination assetstore."); err != nil {
			return nil, nil, err
		}
	}
	if q.options.NoAssetstore {
		return nil, nil, girderError("model.assetstore.no-current-assetstore", "No current assetstore is set.")
	}
	return q.begin(u)
}

// begin stores the upload; one without bytes is complete at once.
func (q *request) begin(u *upload) (*upload, map[string]any, error) {
	u, view, err := q.st.newUpload(u)
	if err != nil || u.Size > 0 {
		return u, view, err
	}
	f, err := q.st.finish(u)
	if err != nil {
		return nil, nil, err
	}
	return nil, f.view(), nil
}

// newFileTarget reads the parameters of a new file.
func (q *request) newFileTarget() (*upload, error) {
	kind, err := q.p.enum("parentType", "folder", "item")
	if err != nil {
		return nil, err
	}
	id, err := q.p.required("parentId")
	if err != nil {
		return nil, err
	}
	name, err := q.p.required("name")
	if err != nil {
		return nil, err
	}
	size, _, err := q.p.integer("size", 0)
	if err != nil {
		return nil, err
	}
	parentID, err := q.fileParent(kind, id)
	if err != nil {
		return nil, err
	}
	mimeType := defaultType
	if m, ok := q.p.optional("mimeType"); ok {
		mimeType = m
	}
	return &upload{
		Name: name, UserID: q.user.ID, ParentType: kind, ParentID: parentID, MimeType: &mimeType,
		Reference: q.p.text("reference"), Size: size,
	}, nil
}

func (q *request) fileParent(kind, id string) (string, error) {
	if err := checkID(id); err != nil {
		return "", err
	}
	id = strings.ToLower(id)
	if kind == "item" {
		if q.st.items.get(id) == nil {
			return "", noSuch(kind, id)
		}
		_, err := q.itemFor(id, write)
		return id, err
	}
	f, err := q.findFolder(id, write)
	if err == nil && f == nil {
		err = noSuch(kind, id)
	}
	return id, err
}

func (q *request) createLink(u *upload, link string) (map[string]any, error) {
	f := &file{Name: u.Name, LinkURL: link, CreatorID: u.UserID}
	if _, ok := q.p.optional("size"); ok {
		f.Size = &u.Size
	}
	if _, ok := q.p.optional("mimeType"); ok {
		f.MimeType = u.MimeType
	}
	f, err := q.st.newLink(f, u.ParentType, u.ParentID)
	if err != nil {
		return nil, err
	}
	return f.view(), nil
}

// replaceContents starts an upload that replaces the bytes of a file.
func replaceContents(q *request) (any, error) {
	f, err := q.fileFor(q.id, write)
	if err != nil {
		return nil, err
	}
	if _, err := q.p.required("size"); err != nil {
		return nil, err
	}
	size, _, err := q.p.integer("size", 0)
	if err != nil {
		return nil, err
	}
	if f.LinkURL != "" {
		return nil, internalError()
	}
	_, view, err := q.begin(&upload{
		Name: f.Name, UserID: q.user.ID, FileID: f.ID, MimeType: f.MimeType, Reference: q.p.text("reference"), Size: size,
	})
	return view, err
}

// readChunk takes the next bytes of an upload.
func readChunk(q *request) (any, error) {
	if strings.HasPrefix(q.r.Header.Get("Content-Type"), "multipart/") {
		return nil, restError("Multipart encoding is no longer supported. Send the chunk in the request body, and other parameters in the query string.")
	}
	u, offset, err := q.chunkTarget()
	if err != nil {
		return nil, err
	}
	return q.receive(u, offset)
}

func (q *request) chunkTarget() (*upload, int64, error) {
	q.st.mu.Lock()
	defer q.st.mu.Unlock()
	id, err := q.p.required("uploadId")
	if err != nil {
		return nil, 0, err
	}
	u, err := q.uploadFor(id)
	if err != nil {
		return nil, 0, err
	}
	offset, _, err := q.p.integer("offset", 0)
	if err != nil {
		return nil, 0, err
	}
	return u, offset, q.ownUpload(u)
}

func (q *request) ownUpload(u *upload) error {
	if u.UserID != q.user.ID {
		return accessError(q.user, "You did not initiate this upload.")
	}
	return nil
}

// receive streams a chunk to disk. Only then does it take the store's lock
// again, so that a slow client holds up nobody else.
func (q *request) receive(u *upload, offset int64) (any, error) {
	u.busy.Lock()
	defer u.busy.Unlock()
	sum, err := q.checkChunk(u, offset)
	if err != nil {
		return nil, err
	}
	n, err := q.st.bytes.write(u.ID, offset, q.r.Body, u.Size-offset+1, sum)
	if err != nil {
		return nil, fmt.Errorf("write chunk of upload %s: %w", u.ID, err)
	}
	q.st.mu.Lock()
	defer q.st.mu.Unlock()
	if q.st.uploads.get(u.ID) == nil {
		return nil, invalidID("upload", u.ID)
	}
	if err := q.options.checkSize(u, n); err != nil {
		if err := q.st.bytes.truncate(u.ID, u.Received); err != nil {
			return nil, err
		}
		return nil, err
	}
	return q.st.received(u, n, sum)
}

// checkChunk refuses a chunk whose place or announced length is wrong before
// any of it is read.
func (q *request) checkChunk(u *upload, offset int64) (hash.Hash, error) {
	q.st.mu.Lock()
	defer q.st.mu.Unlock()
	if q.st.uploads.get(u.ID) == nil {
		return nil, invalidID("upload", u.ID)
	}
	if u.Received != offset {
		return nil, restError("Server has received %d bytes, but client sent offset %d.", u.Received, offset)
	}
	if q.r.ContentLength >= 0 {
		if err := q.options.checkSize(u, q.r.ContentLength); err != nil {
			return nil, err
		}
	}
	return u.Hash.restore()
}

// checkSize refuses too many bytes, and too few of a chunk that is not the last.
func (o Options) checkSize(u *upload, n int64) error {
	if u.Received+n > u.Size {
		return validationError("", "Received too many bytes.")
	}
	if u.Received+n < u.Size && n < o.MinimumChunk {
		return validationError("", "Chunk is smaller than the minimum size.")
	}
	return nil
}

// received counts bytes that are on disk and finishes the upload if it can.
func (st *store) received(u *upload, n int64, sum hash.Hash) (map[string]any, error) {
	state, err := saveHash(sum)
	if err != nil {
		return nil, fmt.Errorf("save hash: %w", err)
	}
	u.Hash, u.Received, u.Updated = state, u.Received+n, stamp()
	if u.Received < u.Size {
		view := st.uploadView(u)
		return view, st.keepUpload(u)
	}
	f, err := st.finish(u)
	if err != nil {
		return nil, err
	}
	return f.view(), nil
}

// uploadOffset tells where to continue. It counts bytes that were written
// before the server could note them.
func uploadOffset(q *request) (any, error) {
	id, err := q.p.required("uploadId")
	if err != nil {
		return nil, err
	}
	q.st.mu.Lock()
	u, err := q.uploadFor(id)
	q.st.mu.Unlock()
	if err != nil {
		return nil, err
	}
	u.busy.Lock()
	defer u.busy.Unlock()
	q.st.mu.Lock()
	defer q.st.mu.Unlock()
	if _, err := q.uploadFor(id); err != nil {
		return nil, err
	}
	if err := q.st.recount(u); err != nil {
		return nil, fmt.Errorf("recount upload %s: %w", u.ID, err)
	}
	return map[string]any{"offset": u.Received}, nil
}

func (st *store) recount(u *upload) error {
	onDisk, err := st.bytes.received(u.ID)
	if err != nil || onDisk == u.Received {
		return err
	}
	if onDisk < u.Received {
		return io.ErrUnexpectedEOF
	}
	sum, err := u.Hash.restore()
	if err != nil {
		return err
	}
	if err := st.bytes.hashFrom(u.ID, u.Received, sum); err != nil {
		return err
	}
	if u.Hash, err = saveHash(sum); err != nil {
		return err
	}
	u.Received = onDisk
	return st.keepUpload(u)
}

// completeUpload finishes an upload explicitly, which chunks make unnecessary.
func completeUpload(q *request) (any, error) {
	u, _, err := q.chunkTarget()
	if err != nil {
		return nil, err
	}
	u.busy.Lock()
	defer u.busy.Unlock()
	q.st.mu.Lock()
	defer q.st.mu.Unlock()
	if q.st.uploads.get(u.ID) == nil {
		return nil, invalidID("upload", u.ID)
	}
	if u.Received != u.Size {
		return nil, restError("Server has only received %d bytes, but the file should be %d bytes.", u.Received, u.Size)
	}
	f, err := q.st.finish(u)
	if err != nil {
		return nil, err
	}
	return f.view(), nil
}

func cancelUpload(q *request) (any, error) {
	u, err := q.uploadFor(q.id)
	if err != nil {
		return nil, err
	}
	if err := q.ownUpload(u); err != nil {
		return nil, err
	}
	if err := q.st.uploads.remove(u.ID); err != nil {
		return nil, err
	}
	return map[string]any{"message": "Upload canceled."}, q.st.bytes.discard(u.ID)
}

func listUploads(q *request) (any, error) {
	if err := q.ensureAdmin("Administrator access required."); err != nil {
		return nil, err
	}
	pg, err := q.p.page("created", false)
	if err != nil {
		return nil, err
	}
	parentID, byParent := q.p.optional("parentId")
	found := q.st.uploads.find(func(u *upload) bool { return !byParent || u.ParentID == parentID })
	return pg.cut(views(found, q.st.uploadView)), nil
}
