package girder

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
)

// MinChunk is the smallest size that every chunk but the last must have. It is
// Girder's default; the true value is a setting that a worker cannot read.
const MinChunk = 5 << 20

// Parent is where a new file goes.
type Parent struct {
	kind string
	id   string
}

// InItem puts a file into an item.
func InItem(id ItemID) Parent { return Parent{kind: "item", id: string(id)} }

// InFolder puts a file into a new item of its name in a folder.
func InFolder(id FolderID) Parent { return Parent{kind: "folder", id: string(id)} }

// NewFile asks for an upload.
type NewFile struct {
	Parent    Parent
	Name      string
	Size      int64
	MIMEType  string // empty: Girder's default
	Reference string // passed through to those who listen in Girder
}

// Upload is the state of an upload: either unfinished, with an ID, or finished, with the File.
type Upload struct {
	ID       UploadID
	Received int64
	File     *File
}

// UnmarshalJSON tells Girder's two answers apart.
func (u *Upload) UnmarshalJSON(data []byte) error {
	var doc struct {
		Model    string   `json:"_modelType"`
		ID       UploadID `json:"_id"`
		Received int64    `json:"received"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return err
	}
	*u = Upload{ID: doc.ID, Received: doc.Received}
	if doc.Model != "file" {
		return nil
	}
	*u = Upload{File: &File{}}
	return json.Unmarshal(data, u.File)
}

// StartUpload begins an upload; one of size 0 is finished at once. It is sent
// once: after an unknown finish an empty file may be there already.
func (c *Client) StartUpload(ctx context.Context, f NewFile) (Upload, error) {
	if err := checkID(f.Parent.kind, f.Parent.id); err != nil {
		return Upload{}, err
	}
	req := c.call(http.MethodPost, "file")
	req.query = url.Values{
		"parentType": {f.Parent.kind}, "parentId": {f.Parent.id},
		"name": {f.Name}, "size": {strconv.FormatInt(f.Size, 10)},
	}
	if f.MIMEType != "" {
		req.query.Set("mimeType", f.MIMEType)
	}
	if f.Reference != "" {
		req.query.Set("reference", f.Reference)
	}
	return ask[Upload](ctx, c.s, req)
}

// ReplaceContents begins an upload of new bytes for a file that keeps its id; one of size 0 is finished at once.
func (c *Client) ReplaceContents(ctx context.Context, id FileID, size int64, reference string) (Upload, error) {
	if err := checkID("file", string(id)); err != nil {
		return Upload{}, err
	}
	req := c.call(http.MethodPut, "file/"+string(id)+"/contents")
	req.query = url.Values{"size": {strconv.FormatInt(size, 10)}}
	if reference != "" {
		req.query.Set("reference", reference)
	}
	return ask[Upload](ctx, c.s, req)
}

// UploadChunk sends length bytes of body as the next part, at the offset that
// the server has received. It is sent once: after any error ask
// [Client.UploadOffset] what the server has.
func (c *Client) UploadChunk(ctx context.Context, id UploadID, offset int64, body io.Reader, length int64) (Upload, error) {
	if err := checkID("upload", string(id)); err != nil {
		return Upload{}, err
	}
	req := c.call(http.MethodPost, "file/chunk")
	req.query = url.Values{"uploadId": {string(id)}, "offset": {strconv.FormatInt(offset, 10)}}
	req.body, req.length = body, length
	return ask[Upload](ctx, c.s, req)
}

// UploadOffset asks how many bytes of an unfinished upload the server has.
// [ErrNotFound] means that it is finished or canceled.
func (c *Client) UploadOffset(ctx context.Context, id UploadID) (int64, error) {
	if err := checkID("upload", string(id)); err != nil {
		return 0, err
	}
	req := c.call(http.MethodGet, "file/offset")
	req.query = url.Values{"uploadId": {string(id)}}
	type received struct {
		Offset int64 `json:"offset"`
	}
	doc, err := ask[received](ctx, c.s, req)
	return doc.Offset, err
}

// CancelUpload throws an unfinished upload away. [ErrNotFound] means that there is nothing to throw away.
func (c *Client) CancelUpload(ctx context.Context, id UploadID) error {
	if err := checkID("upload", string(id)); err != nil {
		return err
	}
	return c.s.json(ctx, c.call(http.MethodDelete, "file/upload/"+string(id)), nil)
}
