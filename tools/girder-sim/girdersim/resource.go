package girdersim

import "strings"

// lookup finds an item, folder or file by its path. What the caller may not see
// is not found.
func lookup(q *request) (any, error) {
	text, err := q.p.required("path")
	if err != nil {
		return nil, err
	}
	text = strings.TrimLeft(text, "/")
	names := splitPath(text)
	if len(names) < 2 || (names[0] != "user" && names[0] != "collection") {
		return nil, validationError("", "Invalid path format")
	}
	if doc := q.walk(names); doc != nil {
		return doc, nil
	}
	if q.p.boolean("test", false) {
		return nil, nil
	}
	return nil, validationError("", "Path not found: %s", text)
}

// splitPath separates names: inside a name "\-" is a slash and "\\" a backslash.
func splitPath(text string) []string {
	names := strings.Split(strings.TrimRight(text, "/"), "/")
	for i, name := range names {
		names[i] = strings.NewReplacer(`\\`, `\`, `\-`, "/").Replace(name)
	}
	return names
}

// walk follows the names and shows what it arrives at, or is nil.
func (q *request) walk(names []string) any {
	u := q.st.users.first(func(u *user) bool { return names[0] == "user" && u.Login == names[1] })
	if u == nil {
		return nil
	}
	if len(names) == 2 {
		return u.view(q.user)
	}
	return q.walkFolder("user", u.ID, names[2:])
}

func (q *request) walkFolder(parentType, parentID string, names []string) any {
	if f := q.st.childFolder(parentType, parentID, names[0]); f != nil {
		switch {
		case levelOf(q.user, f.Access, f.Public) < read:
			return nil
		case len(names) == 1:
			return q.st.folderView(f, q.user)
		}
		return q.walkFolder("folder", f.ID, names[1:])
	}
	if i := q.st.itemNamed(parentID, names[0]); i != nil {
		return q.walkItem(i, names[1:])
	}
	return nil
}

func (q *request) walkItem(i *item, names []string) any {
	switch len(names) {
	case 0:
		return q.st.itemView(i)
	case 1:
		for _, f := range q.st.filesOf(i.ID) {
			if f.Name == names[0] {
				return f.view()
			}
		}
	}
	return nil
}
