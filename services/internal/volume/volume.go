// Package volume is about the volumes of an attempt: folders of the host that
// are mounted into its container.
//
// What a container leaves in a volume is not to be trusted. Paths on a volume
// are relative and stay inside it by their text alone (Clean), files are touched
// through os.Root, which never leaves the folder, and symbolic links are refused
// and not followed, wherever they lead.
package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
)

// Errors that a caller decides on.
var (
	// ErrPath: a path that is no path on a volume.
	ErrPath = errors.New("bad volume path")

	// ErrSymlink: a path that leads over a symbolic link.
	ErrSymlink = errors.New("symbolic link")
)

// Volume is a folder of the host and the place where the container sees it. It
// is plain data: an executor that adopts an attempt fills it from what the other
// one stored.
type Volume struct {
	Host      string // absolute
	Container string // absolute
}

// Clean returns a path on a volume in its shortest form, or an error (ErrPath)
// that says why it is none: it has to be relative, and must not leave the volume
// on its way, not even to come back. "." is the volume itself.
func Clean(rel string) (string, error) {
	refuse := func(why string) (string, error) {
		return "", fmt.Errorf("%w %q: %s", ErrPath, rel, why)
	}
	switch {
	case rel == "":
		return refuse("it is empty")
	case strings.ContainsRune(rel, 0):
		return refuse("it has a NUL byte")
	case path.IsAbs(rel):
		return refuse("it is absolute; paths are relative to the volume")
	}
	depth := 0
	for name := range strings.SplitSeq(rel, "/") {
		switch name {
		case "", ".":
		case "..":
			depth--
		default:
			depth++
		}
		if depth < 0 {
			return refuse("it leaves the volume")
		}
	}
	return path.Clean(rel), nil
}

// ContainerPath returns where a path on the volume is inside the container.
func (v Volume) ContainerPath(rel string) (string, error) {
	clean, err := Clean(rel)
	if err != nil {
		return "", err
	}
	return path.Join(v.Container, clean), nil
}

// Within calls f with the volume's folder and the cleaned path, after a look
// that no symbolic link lies on it. Should one be put there meanwhile, os.Root
// still keeps f inside the volume.
func (v Volume) Within(rel string, f func(root *os.Root, clean string) error) (err error) {
	clean, err := Clean(rel)
	if err != nil {
		return err
	}
	root, err := OpenRoot(v.Host)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if err := refuseSymlinks(root, clean); err != nil {
		return err
	}
	return f(root, clean)
}

func refuseSymlinks(root *os.Root, clean string) error {
	sofar := "."
	for name := range strings.SplitSeq(clean, "/") {
		sofar = path.Join(sofar, name)
		info, err := root.Lstat(sofar)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // what is not there is no link; using it says what is missing
		case err != nil:
			return err
		case info.Mode()&fs.ModeSymlink != 0:
			return linkError(clean, sofar)
		}
	}
	return nil
}

func linkError(clean, link string) error {
	return fmt.Errorf("volume path %q: %s is a %w, which is not followed", clean, link, ErrSymlink)
}

// Remove removes the volume with all that is in it, as [RemoveTree] does.
func (v Volume) Remove() error { return RemoveTree(v.Host) }
