package girdersim

import "strings"

// Access levels of a user to a folder or job.
const (
	none  = -1
	read  = 0
	write = 1
	admin = 2
)

// levelOf is the access of u to something that is shared with the given users.
func levelOf(u *user, shared map[string]int, public bool) int {
	if u != nil {
		if u.Admin {
			return admin
		}
		if level, ok := shared[u.ID]; ok {
			return level
		}
	}
	if public {
		return read
	}
	return none
}

// requireLevel refuses where the access is below what is needed.
func requireLevel(u *user, model, id string, level, needed int) error {
	if level >= needed {
		return nil
	}
	who := "None"
	if u != nil {
		who = u.ID
	}
	kind := map[int]string{read: "Read", write: "Write", admin: "Admin"}[needed]
	return accessError(u, "%s access denied for %s %s (user %s).", kind, model, id, who)
}

// checkID refuses what cannot be an id at all.
func checkID(id string) error {
	if !isID(id) {
		return validationError("id", "Invalid ObjectId: %s", id)
	}
	return nil
}

// folderFor loads a folder that the caller may read or write.
func (q *request) folderFor(id string, needed int) (*folder, error) {
	f, err := q.findFolder(id, needed)
	if err == nil && f == nil {
		err = invalidID("folder", id)
	}
	return f, err
}

// findFolder is folderFor, but returns nil for a folder that is not there.
func (q *request) findFolder(id string, needed int) (*folder, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	f := q.st.folders.get(strings.ToLower(id))
	if f == nil {
		return nil, nil
	}
	return f, requireLevel(q.user, "folder", f.ID, levelOf(q.user, f.Access, f.Public), needed)
}

// itemFor loads an item; its folder decides about the access.
func (q *request) itemFor(id string, needed int) (*item, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	i := q.st.items.get(strings.ToLower(id))
	if i == nil {
		return nil, invalidID("item", id)
	}
	_, err := q.folderFor(i.FolderID, needed)
	return i, err
}

// fileFor loads a file; the folder of its item decides about the access.
func (q *request) fileFor(id string, needed int) (*file, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	f := q.st.files.get(strings.ToLower(id))
	if f == nil {
		return nil, invalidID("file", id)
	}
	_, err := q.itemFor(f.ItemID, needed)
	return f, err
}

func (q *request) uploadFor(id string) (*upload, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	u := q.st.uploads.get(strings.ToLower(id))
	if u == nil {
		return nil, invalidID("upload", id)
	}
	return u, nil
}

// jobFor loads a job without asking who may see it.
func (q *request) jobFor(id string) (*job, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	j := q.st.jobs.get(strings.ToLower(id))
	if j == nil {
		return nil, invalidID("job", id)
	}
	return j, nil
}
