package stage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
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

// place gives a complete file its name and makes the name durable.
func place(root *os.Root, temporary, path string, durably bool) error {
	if err := root.Rename(temporary, path); err != nil || !durably {
		return err
	}
	folder, err := root.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

func remove(root *os.Root, path string) error {
	err := root.Remove(path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) { // it was never made
		return nil
	}
	return err
}
