package girdersim

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// item is a set of files with metadata.
type item struct {
	ID, Name, Description       string
	FolderID, BaseID, CreatorID string
	Meta                        map[string]any // replaced, never changed in place
	Created, Updated            time.Time
}

func (st *store) itemView(i *item) map[string]any {
	return map[string]any{
		"_id": i.ID, "_modelType": "item", "baseParentId": i.BaseID, "baseParentType": "user", "created": iso(i.Created),
		"creatorId": i.CreatorID, "description": i.Description, "folderId": i.FolderID, "meta": i.Meta, "name": i.Name,
		"size": st.itemSize(i.ID), "updated": iso(i.Updated),
	}
}

func (st *store) filesOf(itemID string) []*file {
	return st.files.in(itemID)
}

func (st *store) itemSize(id string) int64 {
	var size int64
	for _, f := range st.filesOf(id) {
		size += f.length()
	}
	return size
}

func (st *store) itemNamed(folderID, name string) *item {
	for _, i := range st.items.in(folderID) {
		if i.Name == name {
			return i
		}
	}
	return nil
}

// newItem stores an item under a free name and returns it as created. A name
// that an item or a folder has gets a number.
func (st *store) newItem(i *item, in *folder) (*item, error) {
	base := strings.TrimSpace(i.Name)
	if base == "" {
		return nil, validationError("name", "Item name must not be empty.")
	}
	i.Name = base
	for n := 1; st.itemNamed(in.ID, i.Name) != nil || st.childFolder("folder", in.ID, i.Name) != nil; n++ {
		i.Name = fmt.Sprintf("%s (%d)", base, n)
	}
	if i.Meta == nil {
		i.Meta = map[string]any{}
	}
	i.ID, i.FolderID, i.BaseID = st.ids.next(), in.ID, in.BaseID
	i.Created = stamp()
	i.Updated = i.Created
	return i, st.keepItem(i)
}

func (st *store) keepItem(i *item) error {
	kept := *i
	kept.Created, kept.Updated = stored(i.Created), stored(i.Updated)
	return st.items.put(i.ID, &kept)
}

func (st *store) removeItem(i *item) error {
	for _, f := range st.filesOf(i.ID) {
		if err := st.removeFile(f); err != nil {
			return err
		}
	}
	return st.items.remove(i.ID)
}

func getItem(q *request) (any, error) {
	i, err := q.itemFor(q.id, read)
	if err != nil {
		return nil, err
	}
	return q.st.itemView(i), nil
}

func createItem(q *request) (any, error) {
	folderID, err := q.p.required("folderId")
	if err != nil {
		return nil, err
	}
	in, err := q.folderFor(folderID, write)
	if err != nil {
		return nil, err
	}
	name, err := q.p.required("name")
	if err != nil {
		return nil, err
	}
	meta, err := q.p.object("metadata")
	if err != nil {
		return nil, err
	}
	if q.p.boolean("reuseExisting", false) {
		if i := q.st.itemNamed(in.ID, strings.TrimSpace(name)); i != nil {
			return q.withMeta(i, meta)
		}
	}
	i, err := q.st.newItem(&item{Name: name, Description: q.p.text("description"), CreatorID: q.user.ID}, in)
	if err != nil {
		return nil, err
	}
	return q.withMeta(i, meta)
}

// withMeta merges metadata, if there is any, and shows the item.
func (q *request) withMeta(i *item, meta map[string]any) (any, error) {
	if len(meta) == 0 {
		return q.st.itemView(i), nil
	}
	changed, err := q.st.mergeMeta(i, meta, false)
	if err != nil {
		return nil, err
	}
	return q.st.itemView(changed), nil
}

// mergeMeta sets keys of an item's metadata; null removes a key unless kept.
func (st *store) mergeMeta(i *item, meta map[string]any, keepNull bool) (*item, error) {
	changed := *i
	changed.Meta = maps.Clone(i.Meta)
	for key, value := range meta {
		if strings.Contains(key, ".") {
			return nil, validationError("", "Invalid key %s: keys must not contain the \".\" character.", key)
		}
		if strings.HasPrefix(key, "$") {
			return nil, validationError("", "Invalid key %s: keys must not start with the \"$\" character.", key)
		}
		if value == nil && !keepNull {
			delete(changed.Meta, key)
			continue
		}
		changed.Meta[key] = value
	}
	changed.Updated = stamp()
	return &changed, st.keepItem(&changed)
}

func putMetadata(q *request) (any, error) {
	i, err := q.itemFor(q.id, write)
	if err != nil {
		return nil, err
	}
	meta, err := q.metadata()
	if err != nil {
		return nil, err
	}
	changed, err := q.st.mergeMeta(i, meta, q.p.boolean("allowNull", false))
	if err != nil {
		return nil, err
	}
	return q.st.itemView(changed), nil
}

// metadata is the JSON object of the parameter or else of the body.
func (q *request) metadata() (map[string]any, error) {
	if _, given := q.p.optional("metadata"); given {
		return q.p.object("metadata")
	}
	if q.r.ContentLength == 0 {
		return nil, restError("JSON parameter metadata must be passed in request body.")
	}
	text, err := io.ReadAll(q.r.Body)
	if err != nil {
		return nil, fmt.Errorf("read metadata: %w", err)
	}
	value, err := decodeJSON(text)
	if err != nil {
		return nil, invalidJSON(text)
	}
	meta, ok := value.(map[string]any)
	if !ok {
		return nil, restError("Parameter metadata must be a JSON object.")
	}
	return meta, nil
}

// pythonNumber finds strings, to step over them, and the numbers that Python
// reads beyond JSON.
var pythonNumber = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|-?Infinity|NaN`)

// invalidJSON tells text with NaN or Infinity, which Python reads and Girder
// refuses by name, from text that nobody reads.
func invalidJSON(text []byte) error {
	var name string
	plain := pythonNumber.ReplaceAllFunc(text, func(token []byte) []byte {
		if bytes.HasPrefix(token, []byte(`"`)) {
			return token
		}
		if name == "" {
			name = string(token)
		}
		return []byte("0")
	})
	if _, err := decodeJSON(plain); err == nil && name != "" {
		return restError("Error: \"%s\" is not valid JSON.", name)
	}
	return restError("Invalid JSON passed in request body.")
}

func listItems(q *request) (any, error) {
	folderID, ok := q.p.optional("folderId")
	if !ok {
		return nil, restError("Invalid search mode.")
	}
	in, err := q.folderFor(folderID, read)
	if err != nil {
		return nil, err
	}
	pg, err := q.p.page("lowerName", false)
	if err != nil {
		return nil, err
	}
	name, byName := q.p.optional("name")
	found := slices.DeleteFunc(q.st.items.in(in.ID), func(i *item) bool { return byName && i.Name != name })
	return q.counted(views(found, q.st.itemView), pg), nil
}

func listItemFiles(q *request) (any, error) {
	i, err := q.itemFor(q.id, read)
	if err != nil {
		return nil, err
	}
	pg, err := q.p.page("name", false)
	if err != nil {
		return nil, err
	}
	return q.counted(views(q.st.filesOf(i.ID), (*file).view), pg), nil
}

func deleteItem(q *request) (any, error) {
	i, err := q.itemFor(q.id, write)
	if err != nil {
		return nil, err
	}
	return map[string]any{"message": "Deleted item " + i.Name + "."}, q.st.removeItem(i)
}
