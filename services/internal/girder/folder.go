package girder

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"
)

// Item is Girder's document of an item, which has no, one or many files.
type Item struct {
	ID       ItemID   `json:"_id"`
	Name     string   `json:"name"`
	FolderID FolderID `json:"folderId"`
	Size     int64    `json:"size"`
	Created  string   `json:"created"`
}

// Folder is Girder's document of a folder.
type Folder struct {
	ID         FolderID `json:"_id"`
	Name       string   `json:"name"`
	ParentID   string   `json:"parentId"`
	ParentType string   `json:"parentCollection"`
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

// PageSize is how many documents a page has, but for the last, which has fewer.
const PageSize = 50

// FilesPage asks for the files of an item from an offset on. Pages are in the
// order of their ids: documents that came in meanwhile are at the end, and
// equal names do not change places between two requests.
func (c *Client) FilesPage(ctx context.Context, id ItemID, offset int) ([]File, error) {
	if err := checkID("item", string(id)); err != nil {
		return nil, err
	}
	return listPage[File](ctx, c, "item/"+string(id)+"/files", byID(), offset)
}

// ItemsPage asks for the items of a folder, as [Client.FilesPage] does.
func (c *Client) ItemsPage(ctx context.Context, id FolderID, offset int) ([]Item, error) {
	if err := checkID("folder", string(id)); err != nil {
		return nil, err
	}
	query := byID()
	query.Set("folderId", string(id))
	return listPage[Item](ctx, c, "item", query, offset)
}

// FoldersPage asks for the folders directly in a folder, as [Client.FilesPage] does.
func (c *Client) FoldersPage(ctx context.Context, id FolderID, offset int) ([]Folder, error) {
	if err := checkID("folder", string(id)); err != nil {
		return nil, err
	}
	query := byID()
	query.Set("parentType", "folder")
	query.Set("parentId", string(id))
	return listPage[Folder](ctx, c, "folder", query, offset)
}

// NewestItems asks for the items of a folder from an offset on, the youngest first.
func (c *Client) NewestItems(ctx context.Context, id FolderID, offset int) ([]Item, error) {
	if err := checkID("folder", string(id)); err != nil {
		return nil, err
	}
	return listPage[Item](ctx, c, "item", url.Values{"folderId": {string(id)}, "sort": {"created"}, "sortdir": {"-1"}}, offset)
}

func byID() url.Values { return url.Values{"sort": {"_id"}, "sortdir": {"1"}} }

// list asks for one page after the other while the caller goes on. An error ends it.
func list[T any](ctx context.Context, c *Client, path string, query url.Values) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for offset := 0; ; offset += PageSize {
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
			if len(page) < PageSize {
				return
			}
		}
	}
}

func listPage[T any](ctx context.Context, c *Client, path string, query url.Values, offset int) ([]T, error) {
	req := c.call(http.MethodGet, path)
	req.query = url.Values{"limit": {strconv.Itoa(PageSize)}, "offset": {strconv.Itoa(offset)}}
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
