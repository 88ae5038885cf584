package girdersim

import (
	"strings"
	"time"
)

const defaultType = "application/octet-stream"

// file is bytes, or a link to some, with a name.
type file struct {
	ID, Name, ItemID, CreatorID string
	MimeType                    *string
	Size                        *int64 // nil: a link of unknown size
	LinkURL                     string
	SHA512                      string // empty: a link
	Created                     time.Time
	Updated                     *time.Time
}

// length is the size as far as it is known.
func (f *file) length() int64 {
	if f.Size == nil {
		return 0
	}
	return *f.Size
}

func (f *file) mimeType() string {
	if f.MimeType == nil || *f.MimeType == "" {
		return defaultType
	}
	return *f.MimeType
}

func (f *file) view() map[string]any {
	doc := map[string]any{
		"_id": f.ID, "_modelType": "file", "created": iso(f.Created), "creatorId": f.CreatorID,
		"exts": extensions(f.Name), "itemId": f.ItemID, "mimeType": nil, "name": f.Name,
	}
	if f.MimeType != nil {
		doc["mimeType"] = *f.MimeType
	}
	if f.Size != nil {
		doc["size"] = *f.Size
	}
	if f.LinkURL != "" {
		doc["linkUrl"] = f.LinkURL
	}
	if f.Updated != nil {
		doc["updated"] = iso(*f.Updated)
	}
	return doc
}

// addSums adds to the documents of files in an answer what a plugin makes known.
func (st *store) addSums(answer any) {
	docs, _ := answer.([]map[string]any)
	if doc, ok := answer.(map[string]any); ok {
		docs = []map[string]any{doc}
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, doc := range docs {
		id, _ := doc["_id"].(string)
		if f := st.files.get(id); f != nil && f.SHA512 != "" {
			doc["sha512"] = f.SHA512
		}
	}
}

// extensions are all parts of the name after its first dot.
func extensions(name string) []string {
	parts := strings.Split(strings.ToLower(name), ".")
	return parts[1:]
}

// keepFile stores the file with the precision of the database.
func (st *store) keepFile(f *file) error {
	kept := *f
	kept.Created = stored(f.Created)
	if f.Updated != nil {
		updated := stored(*f.Updated)
		kept.Updated = &updated
	}
	return st.files.put(f.ID, &kept)
}

func (st *store) removeFile(f *file) error {
	if err := st.files.remove(f.ID); err != nil {
		return err
	}
	return st.dropBytes(f.SHA512)
}

// dropBytes removes bytes that no file has any more.
func (st *store) dropBytes(sum string) error {
	if sum == "" || st.files.first(func(f *file) bool { return f.SHA512 == sum }) != nil {
		return nil
	}
	return st.bytes.remove(sum)
}

// itemForFile is the item that a new file belongs to: the given one, or a new
// one of the file's name in the given folder. A job stands for itself.
func (st *store) itemForFile(parentType, parentID, name, creator string) (string, error) {
	if parentType == "item" {
		if st.items.get(parentID) == nil {
			return "", noSuch("item", parentID)
		}
		return parentID, nil
	}
	if parentType == jobParent {
		return parentID, nil
	}
	in := st.folders.get(parentID)
	if in == nil {
		return "", noSuch("folder", parentID)
	}
	i, err := st.newItem(&item{Name: name, CreatorID: creator}, in)
	if err != nil {
		return "", err
	}
	return i.ID, nil
}

func (st *store) newLink(f *file, parentType, parentID string) (*file, error) {
	f.LinkURL = strings.TrimSpace(f.LinkURL)
	if !strings.HasPrefix(f.LinkURL, "http:") && !strings.HasPrefix(f.LinkURL, "https:") {
		return nil, validationError("linkUrl", "Linked file URL must start with http: or https:.")
	}
	if f.Name == "" {
		return nil, validationError("name", "File name must not be empty.")
	}
	itemID, err := st.itemForFile(parentType, parentID, f.Name, f.CreatorID)
	if err != nil {
		return nil, err
	}
	f.ID, f.ItemID, f.Created = st.ids.next(), itemID, stamp()
	return f, st.keepFile(f)
}

func getFile(q *request) (any, error) {
	f, err := q.fileFor(q.id, read)
	if err != nil {
		return nil, err
	}
	return f.view(), nil
}

func renameFile(q *request) (any, error) {
	f, err := q.fileFor(q.id, write)
	if err != nil {
		return nil, err
	}
	changed := *f
	if name, ok := q.p.optional("name"); ok {
		changed.Name = name
	}
	if kind, ok := q.p.optional("mimeType"); ok {
		changed.MimeType = &kind
	}
	if changed.Name == "" {
		return nil, validationError("name", "File name must not be empty.")
	}
	now := stamp()
	changed.Updated = &now
	return changed.view(), q.st.keepFile(&changed)
}

func deleteFile(q *request) (any, error) {
	f, err := q.fileFor(q.id, write)
	if err != nil {
		return nil, err
	}
	return nil, q.st.removeFile(f)
}
