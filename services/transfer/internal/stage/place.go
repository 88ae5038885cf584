package stage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/text/unicode/norm"

	"github.com/gantry-worker/gantry/contracts"
)

// makeFolders makes the missing parts of a path, open to every user of the
// container, and keeps the set-group bit that new folders inherit.
func makeFolders(root *os.Root, path string) error {
	if path == "." {
		return nil
	}
	if err := makeFolders(root, filepath.Dir(path)); err != nil {
		return err
	}
	err := root.Mkdir(path, 0o777)
	if errors.Is(err, os.ErrExist) {
		return isFolder(root, path)
	}
	if err != nil {
		return onPlace(path, err)
	}
	info, err := root.Stat(path)
	if err == nil {
		err = root.Chmod(path, info.Mode()|0o777)
	}
	return onVolume(path, err)
}

// isFolder refuses what has a folder's name and is none.
func isFolder(root *os.Root, path string) error {
	info, err := root.Lstat(path)
	switch {
	case err != nil:
		return onVolume(path, err)
	case info.Mode()&os.ModeSymlink != 0:
		return fmt.Errorf("%s is a symbolic link: %w", path, ErrLeavesVolume)
	case !info.IsDir():
		return fmt.Errorf("%s: %w", path, ErrInTheWay)
	}
	return nil
}

// place gives a complete file of a folder its name and makes the name durable.
func place(folder *os.Root, temporary, name string, durably bool) error {
	if err := folder.Rename(temporary, name); err != nil || !durably {
		return err
	}
	return syncAt(folder, ".")
}

// syncAt makes a file durable, or the names in a folder.
func syncAt(root *os.Root, path string) error {
	file, err := root.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// sameness finds out how the volume tells names apart, by means of a file, and how
// little files come to it.
func (s *staging) sameness() (sameness, error) {
	path := ".gantry-" + contracts.NewToken() + "é"
	if err := s.note(Note{Partial: &Partial{Path: NotedPath(path), Temporary: NotedPath(path)}}); err != nil {
		return nil, err
	}
	if s.linking = s.findLinking(path); s.linking == noLinking {
		file, err := s.root.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, openMode)
		if err == nil {
			err = file.Close()
		}
		if err != nil {
			return nil, onVolume(path, err)
		}
	}
	same := exactly
	for _, other := range []string{strings.ToUpper(path), norm.NFD.String(path)} {
		if _, err := s.root.Lstat(other); err == nil {
			same = loosely
		}
	}
	return same, onVolume(path, s.root.Remove(path))
}

// near is a folder of the volume that is kept open, since the next file mostly
// goes there too.
type near struct {
	path   string
	folder *os.Root // nil: not open
	file   *os.File // the same, for what takes a descriptor; nil: not open
}

// open returns the folder at a path.
func (n *near) open(root *os.Root, path string) (*os.Root, error) {
	n.goTo(path)
	if n.folder != nil {
		return n.folder, nil
	}
	folder, err := root.OpenRoot(path)
	if err != nil {
		return nil, onPlace(path, err)
	}
	n.folder = folder
	return folder, nil
}

// fd returns the descriptor of the folder at a path, good until the next call.
func (n *near) fd(root *os.Root, path string) (int, error) {
	n.goTo(path)
	if n.file == nil {
		file, err := root.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return 0, onPlace(path, err)
		}
		n.file = file
	}
	return int(n.file.Fd()), nil
}

func (n *near) goTo(path string) {
	if n.path != path {
		n.close()
		n.path = path
	}
}

func (n *near) close() {
	if n.folder != nil {
		_ = n.folder.Close() // nothing was written to it
		n.folder = nil
	}
	if n.file != nil {
		_ = n.file.Close() // it was only looked at
		n.file = nil
	}
}

// remove removes a file that may be there. A path that is empty is none.
func remove(root *os.Root, path string) error {
	if path == "" {
		return nil
	}
	err := root.Remove(path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) { // it was never made
		return nil
	}
	return err
}
