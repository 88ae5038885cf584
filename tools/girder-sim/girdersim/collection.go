package girdersim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// collection holds the documents of one kind in the order of their creation
// and, with a folder, keeps a copy of each on disk. Its user does the locking.
type collection[T any] struct {
	dir      string // empty: memory only
	docs     map[string]*T
	order    []string
	parent   func(*T) string     // what a document belongs to, for ever; nil: nothing
	children map[string][]string // the order among those of one parent
}

// openCollection reads what is in the folder, made if need be.
func openCollection[T any](dir string, parent func(*T) string) (*collection[T], error) {
	c := &collection[T]{dir: dir, docs: map[string]*T{}, parent: parent, children: map[string][]string{}}
	if dir == "" {
		return c, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir) // sorted by name, so by id
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		id, isDoc := strings.CutSuffix(entry.Name(), ".json")
		if !isDoc {
			continue // left by a process that ended while it wrote
		}
		if err := c.load(id); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *collection[T]) path(id string) string { return filepath.Join(c.dir, id+".json") }

func (c *collection[T]) load(id string) error {
	text, err := os.ReadFile(c.path(id))
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	doc := new(T)
	if err := d.Decode(doc); err != nil {
		return fmt.Errorf("read document %s: %w", c.path(id), err)
	}
	c.add(id, doc)
	return nil
}

func (c *collection[T]) add(id string, doc *T) {
	_, there := c.docs[id]
	c.docs[id] = doc
	if there {
		return
	}
	c.order = append(c.order, id)
	if c.parent != nil {
		c.children[c.parent(doc)] = append(c.children[c.parent(doc)], id)
	}
}

func (c *collection[T]) get(id string) *T { return c.docs[id] }

// put stores a new or changed document.
func (c *collection[T]) put(id string, doc *T) error {
	if c.dir != "" {
		text, err := json.Marshal(doc)
		if err != nil {
			return fmt.Errorf("write document %s: %w", id, err)
		}
		if err := replaceFile(c.path(id), text); err != nil {
			return err
		}
	}
	c.add(id, doc)
	return nil
}

func (c *collection[T]) remove(id string) error {
	doc, there := c.docs[id]
	if !there {
		return nil
	}
	if c.dir != "" {
		if err := os.Remove(c.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	delete(c.docs, id)
	isIt := func(o string) bool { return o == id }
	c.order = slices.DeleteFunc(c.order, isIt)
	if c.parent != nil {
		p := c.parent(doc)
		c.children[p] = slices.DeleteFunc(c.children[p], isIt)
	}
	return nil
}

// in returns the documents of one parent, oldest first.
func (c *collection[T]) in(parent string) []*T {
	found := make([]*T, 0, len(c.children[parent]))
	for _, id := range c.children[parent] {
		found = append(found, c.docs[id])
	}
	return found
}

// find returns the documents that match, oldest first.
func (c *collection[T]) find(match func(*T) bool) []*T {
	var found []*T
	for _, id := range c.order {
		if doc := c.docs[id]; match(doc) {
			found = append(found, doc)
		}
	}
	return found
}

// first returns the oldest document that matches, or nil.
func (c *collection[T]) first(match func(*T) bool) *T {
	for _, id := range c.order {
		if doc := c.docs[id]; match(doc) {
			return doc
		}
	}
	return nil
}

// replaceFile writes under another name and renames, so that a file is there
// whole or not at all, whenever the process ends.
func replaceFile(path string, text []byte) error {
	temporary := path + ".new"
	if err := os.WriteFile(temporary, text, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
