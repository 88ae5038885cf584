package girdersim

import (
	"archive/zip"
	"fmt"
	"io"
	"path"
)

// downloadItem sends the one file of an item, or a zip of none or several.
func downloadItem(q *request) (any, error) {
	q.st.mu.Lock()
	i, err := q.itemFor(q.id, read)
	if err != nil {
		q.st.mu.Unlock()
		return nil, err
	}
	files := q.st.filesOf(i.ID)
	q.st.mu.Unlock()
	if len(files) == 1 && q.p.text("format") != "zip" {
		return q.send(files[0])
	}
	disposition, err := contentDisposition(i.Name+".zip", "")
	if err != nil {
		return nil, internalError()
	}
	q.w.Header().Set("Content-Disposition", disposition)
	q.w.Header().Set("Content-Type", "application/zip")
	var found []archived
	for _, f := range files {
		found = append(found, archived{path.Join(i.Name, f.Name), f})
	}
	return streamed{}, q.sendZip(found)
}

// downloadResources sends a zip of items and folders.
func downloadResources(q *request) (any, error) {
	resources, err := q.p.object("resources")
	if err != nil {
		return nil, err
	}
	if resources == nil {
		return nil, restError("Parameter \"resources\" is required.")
	}
	q.st.mu.Lock()
	files, err := q.collect(resources)
	q.st.mu.Unlock()
	if err != nil {
		return nil, err
	}
	q.w.Header().Set("Content-Disposition", `attachment; filename="Resources.zip"`)
	q.w.Header().Set("Content-Type", "application/zip")
	return streamed{}, q.sendZip(files)
}

// archived is a file on its way into a zip.
type archived struct {
	name string
	file *file
}

func (q *request) collect(resources map[string]any) ([]archived, error) {
	var files []archived
	for _, kind := range []string{"folder", "item"} {
		ids, _ := resources[kind].([]any)
		for _, value := range ids {
			id, _ := value.(string)
			if kind == "folder" {
				f, err := q.folderFor(id, read)
				if err != nil {
					return nil, err
				}
				files = append(files, q.inFolder(f, f.Name)...)
				continue
			}
			i, err := q.itemFor(id, read)
			if err != nil {
				return nil, err
			}
			files = append(files, q.inItem(i, "")...)
		}
	}
	return files, nil
}

// inFolder are the files below a folder, as far as the caller may see them.
func (q *request) inFolder(f *folder, at string) []archived {
	var files []archived
	for _, child := range q.st.folders.in(f.ID) {
		if levelOf(q.user, child.Access, child.Public) >= read {
			files = append(files, q.inFolder(child, path.Join(at, child.Name))...)
		}
	}
	for _, i := range q.st.items.in(f.ID) {
		files = append(files, q.inItem(i, at)...)
	}
	return files
}

// inItem are the files of an item. The one file of an item of the same name gets
// no folder of its own.
func (q *request) inItem(i *item, at string) []archived {
	found := q.st.filesOf(i.ID)
	if len(found) != 1 || found[0].Name != i.Name {
		at = path.Join(at, i.Name)
	}
	var files []archived
	for _, f := range found {
		files = append(files, archived{path.Join(at, f.Name), f})
	}
	return files
}

func (q *request) sendZip(files []archived) error {
	z := zip.NewWriter(q.w)
	for _, a := range files {
		if a.file.LinkURL != "" {
			continue
		}
		if err := q.addToZip(z, a.name, a.file); err != nil {
			return err
		}
	}
	return z.Close()
}

func (q *request) addToZip(z *zip.Writer, name string, f *file) error {
	content, err := q.st.bytes.open(f.SHA512)
	if err != nil {
		return fmt.Errorf("open bytes of file %s: %w", f.ID, err)
	}
	defer content.Close()
	entry, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
	if err != nil {
		return fmt.Errorf("add %s to zip: %w", name, err)
	}
	_, err = io.Copy(entry, content)
	return err
}
