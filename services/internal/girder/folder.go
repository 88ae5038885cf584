package girder

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"strconv"
)

// Item is Girder's document of an item, which has no, one or many files.
type Item struct {
	ID       ItemID          `json:"_id"`
	Name     string          `json:"name"`
	FolderID FolderID        `json:"folderId"`
	Size     int64           `json:"size"`
	Meta     json.RawMessage `json:"meta"`
}

// Folder is Girder's document of a folder.
type Folder struct {
	ID         FolderID        `json:"_id"`
	Name       string          `json:"name"`
	ParentID   string          `json:"parentId"`
	ParentType string          `json:"parentCollection"`
	Meta       json.RawMessage `json:"meta"`
}

// GetItem reads an item's document.
func (c *Client) GetItem(ctx context.Context, id ItemID) (Item, error) {
	if err := checkID("item", string(id)); err != nil {
		return Item{}, err
	}
	return ask[Item](ctx, c.s, c.call(http.MethodGet, "item/"+string(id)))
}

// GetFolder reads a folder's document.
func (c *Client) GetFolder(ctx context.Context, id FolderID) (Folder, error) {
	if err := checkID("folder", string(id)); err != nil {
		return Folder{}, err
	}
	return ask[Folder](ctx, c.s, c.call(http.MethodGet, "folder/"+string(id)))
}

// ListItemFiles goes through the files of an item, by name. Names may repeat.
func (c *Client) ListItemFiles(ctx context.Context, id ItemID) iter.Seq2[File, error] {
	if err := checkID("item", string(id)); err != nil {
		return refused[File](err)
	}
	return list[File](ctx, c, "item/"+string(id)+"/files", nil)
}

// ListItems goes through the items of a folder, by name.
func (c *Client) ListItems(ctx context.Context, id FolderID) iter.Seq2[Item, error] {
	if err := checkID("folder", string(id)); err != nil {
		return refused[Item](err)
	}
	return list[Item](ctx, c, "item", url.Values{"folderId": {string(id)}})
}

// ListFolders goes through the folders directly in a folder, by name.
func (c *Client) ListFolders(ctx context.Context, id FolderID) iter.Seq2[Folder, error] {
	if err := checkID("folder", string(id)); err != nil {
		return refused[Folder](err)
	}
	return list[Folder](ctx, c, "folder", url.Values{"parentType": {"folder"}, "parentId": {string(id)}})
}

// CreateFolder makes a folder in a folder. With reuse it returns the one that
// has the name already, and may be repeated without harm.
func (c *Client) CreateFolder(ctx context.Context, parent FolderID, name string, reuse bool) (Folder, error) {
	if err := checkID("folder", string(parent)); err != nil {
		return Folder{}, err
	}
	req := c.call(http.MethodPost, "folder")
	req.form = url.Values{
		"parentType": {"folder"}, "parentId": {string(parent)},
		"name": {name}, "reuseExisting": {strconv.FormatBool(reuse)},
	}
	req.again = reuse
	return ask[Folder](ctx, c.s, req)
}

// pageSize is how many documents one request asks for.
const pageSize = 50

// list asks for one page after the other while the caller goes on. An error ends it.
func list[T any](ctx context.Context, c *Client, path string, query url.Values) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for offset := 0; ; offset += pageSize {
			page, err := listPage[T](ctx, c, path, query, offset)
			if err != nil {
				refused[T](err)(yield)
				return
			}
			for _, doc := range page {
				if !yield(doc, nil) {
					return
				}
			}
			if len(page) < pageSize {
				return
			}
		}
	}
}

func listPage[T any](ctx context.Context, c *Client, path string, query url.Values, offset int) ([]T, error) {
	req := c.call(http.MethodGet, path)
	req.query = url.Values{"limit": {strconv.Itoa(pageSize)}, "offset": {strconv.Itoa(offset)}}
	for name, values := range query {
		req.query[name] = values
	}
	return ask[[]T](ctx, c.s, req)
}

// refused is a listing that ends at once.
func refused[T any](err error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		yield(none, err)
	}
}
