// Package volume makes and removes the temporary volumes of an attempt: folders
// of the host that are mounted into its container.
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
	"path/filepath"
	"strings"
)

// Errors that a caller decides on.
var (
	// ErrPath: a path that is no path on a volume.
	ErrPath = errors.New("bad volume path")

	// ErrSymlink: a path that leads over a symbolic link.
	ErrSymlink = errors.New("symbolic link")
)

// mode of a volume and its folders: any user of a container can write, and what
// is made there keeps the folder's group.
const mode = 0o777 | fs.ModeSetgid

// Volume is a folder of the host and the place where the container sees it. It
// is plain data: an executor that adopts an attempt fills it from what the other
// one stored.
type Volume struct {
	Host      string // absolute
	Container string // absolute
}

// Make makes a new folder of a random name in parent, which has to exist, to be
// mounted at containerPath. Every user may write there, whatever the umask is.
func Make(parent, containerPath string) (Volume, error) {
	parent, err := filepath.Abs(parent)
	if err != nil {
		return Volume{}, fmt.Errorf("make volume in %s: %w", parent, err)
	}
	if !path.IsAbs(containerPath) {
		return Volume{}, fmt.Errorf("make volume: container path %q is not absolute", containerPath)
	}
	dir, err := os.MkdirTemp(parent, "volume-")
	if err != nil {
		return Volume{}, fmt.Errorf("make volume: %w", err)
	}
	if err := os.Chmod(dir, mode); err != nil {
		return Volume{}, errors.Join(fmt.Errorf("make volume: %w", err), os.Remove(dir))
	}
	return Volume{Host: dir, Container: path.Clean(containerPath)}, nil
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

// HostPath returns where a path on the volume is on the host.
func (v Volume) HostPath(rel string) (string, error) {
	clean, err := Clean(rel)
	if err != nil {
		return "", err
	}
	return filepath.Join(v.Host, filepath.FromSlash(clean)), nil
}

// ContainerPath returns where a path on the volume is inside the container.
func (v Volume) ContainerPath(rel string) (string, error) {
	clean, err := Clean(rel)
	if err != nil {
		return "", err
	}
	return path.Join(v.Container, clean), nil
}

// MkdirAll makes a folder on the volume and those above it, writable for every
// user like the volume.
func (v Volume) MkdirAll(rel string) error {
	return v.Within(rel, func(root *os.Root, clean string) error {
		made := "."
		for name := range strings.SplitSeq(clean, "/") {
			made = path.Join(made, name)
			err := root.Mkdir(made, 0o777)
			if errors.Is(err, fs.ErrExist) {
				if info, statErr := root.Lstat(made); statErr == nil && info.IsDir() {
					continue
				}
			}
			if err != nil {
				return err
			}
			if err := root.Chmod(made, mode); err != nil {
				return err
			}
		}
		return nil
	})
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
