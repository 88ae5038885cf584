package girdersim

import (
	"slices"
	"strings"
	"time"
)

// folder holds items and folders. Its access list decides about all in it.
type folder struct {
	ID, Name, Description string
	ParentType, ParentID  string // "folder" or "user"
	BaseID, CreatorID     string // the user at the root; who made it
	Public                bool
	Access                map[string]int
	Meta                  map[string]any
	Created, Updated      time.Time
}

func (st *store) folderView(f *folder, viewer *user) map[string]any {
	return map[string]any{
		"_accessLevel": levelOf(viewer, f.Access, f.Public), "_id": f.ID, "_modelType": "folder",
		"baseParentId": f.BaseID, "baseParentType": "user", "created": iso(f.Created), "creatorId": f.CreatorID,
		"description": f.Description, "meta": f.Meta, "name": f.Name, "parentCollection": f.ParentType,
		"parentId": f.ParentID, "public": f.Public, "size": st.folderSize(f.ID), "updated": iso(f.Updated),
	}
}

// folderSize is the size of the items in the folder, without its subfolders.
func (st *store) folderSize(id string) int64 {
	var size int64
	for _, i := range st.items.in(id) {
		size += st.itemSize(i.ID)
	}
	return size
}

func (st *store) childFolder(parentType, parentID, name string) *folder {
	for _, f := range st.folders.in(parentID) {
		if f.ParentType == parentType && f.Name == name {
			return f
		}
	}
	return nil
}

// newFolder checks the name, stores the folder and returns it as created.
func (st *store) newFolder(f *folder) (*folder, error) {
	f.Name = strings.TrimSpace(f.Name)
	if f.Name == "" {
		return nil, validationError("name", "Folder name must not be empty.")
	}
	if st.itemNamed(f.ParentID, f.Name) != nil {
		return nil, validationError("name", "An item with that name already exists here.")
	}
	if st.childFolder(f.ParentType, f.ParentID, f.Name) != nil {
		return nil, validationError("name", "A folder with that name already exists here.")
	}
	f.ID, f.Created, f.Meta = st.ids.next(), stamp(), map[string]any{}
	f.Updated = f.Created
	kept := *f
	kept.Created, kept.Updated = stored(f.Created), stored(f.Updated)
	return f, st.folders.put(f.ID, &kept)
}

func getFolder(q *request) (any, error) {
	f, err := q.folderFor(q.id, read)
	if err != nil {
		return nil, err
	}
	return q.st.folderView(f, q.user), nil
}

func folderDetails(q *request) (any, error) {
	f, err := q.folderFor(q.id, read)
	if err != nil {
		return nil, err
	}
	return map[string]any{"nFolders": len(q.st.folders.in(f.ID)), "nItems": len(q.st.items.in(f.ID))}, nil
}

// parent is what a folder is made in: a folder or a user.
type parent struct {
	kind, id, baseID string
	public           bool
	access           map[string]int
}

func (q *request) parentFor(needed int) (*parent, error) {
	kind, err := q.p.enum("parentType", "folder", "user", "collection")
	if err != nil {
		return nil, err
	}
	id, err := q.p.required("parentId")
	if err != nil {
		return nil, err
	}
	if err := checkID(id); err != nil {
		return nil, err
	}
	switch kind {
	case "folder":
		f, err := q.findFolder(id, needed)
		if err != nil {
			return nil, err
		}
		if f != nil {
			return &parent{kind, f.ID, f.BaseID, f.Public, f.Access}, nil
		}
	case "user":
		if u := q.st.users.get(id); u != nil {
			access := map[string]int{u.ID: admin}
			return &parent{kind, u.ID, u.ID, true, access}, requireLevel(q.user, "user", u.ID, levelOf(q.user, access, true), needed)
		}
	}
	return nil, noSuch(kind, id)
}

func createFolder(q *request) (any, error) {
	p, err := q.parentFor(write)
	if err != nil {
		return nil, err
	}
	name, err := q.p.required("name")
	if err != nil {
		return nil, err
	}
	if q.p.boolean("reuseExisting", false) {
		if f := q.st.childFolder(p.kind, p.id, strings.TrimSpace(name)); f != nil {
			return q.st.folderView(f, q.user), nil
		}
	}
	f, err := q.st.newFolder(&folder{
		Name: name, Description: q.p.text("description"), ParentType: p.kind, ParentID: p.id, BaseID: p.baseID,
		CreatorID: q.user.ID, Public: q.p.boolean("public", p.public), Access: p.access,
	})
	if err != nil {
		return nil, err
	}
	return q.st.folderView(f, q.user), nil
}

func listFolders(q *request) (any, error) {
	p, err := q.parentFor(read)
	if err != nil {
		return nil, err
	}
	pg, err := q.p.page("lowerName", false)
	if err != nil {
		return nil, err
	}
	name, byName := q.p.optional("name")
	found := slices.DeleteFunc(q.st.folders.in(p.id), func(f *folder) bool {
		return (byName && f.Name != name) || levelOf(q.user, f.Access, f.Public) < read
	})
	return q.counted(views(found, func(f *folder) map[string]any { return q.st.folderView(f, q.user) }), pg), nil
}
