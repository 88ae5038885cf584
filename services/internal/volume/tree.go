package volume

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// RemoveTree removes a folder with all that is in it, whatever a container made
// of it: folders that are closed or read-only are opened as far as they are ours,
// no symbolic link is followed, and a tree of any depth takes few descriptors. It
// goes on when something cannot be removed, as what is somebody else's
// (fs.ErrPermission), and says what stays and why. What stands in the folder's
// place, as a link to elsewhere, is removed itself. A folder that does not exist
// is no error.
func RemoveTree(folder string) error {
	parent, err := os.OpenFile(filepath.Dir(folder), os.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) { // what it would be in may be anything
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", folder, err)
	}
	defer parent.Close() //nolint:errcheck // only its descriptor is used
	name := filepath.Base(folder)
	err = unlink(parent, name, 0)
	if mayBeFolder(err) {
		err = asFolder(err, removeTop(parent, name))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", folder, err)
	}
	return nil
}

// EmptyTree removes all that is in a folder, and not the folder, as RemoveTree
// does.
func EmptyTree(folder string) error {
	top, err := os.Open(folder)
	if err != nil {
		return err
	}
	t := &tree{top: top}
	t.empty(top, ".", 0)
	return errors.Join(t.stays(), top.Close())
}

func removeTop(parent *os.File, name string) error {
	top, err := openFolder(parent, name)
	if err != nil {
		return err
	}
	t := &tree{top: top}
	t.empty(top, ".", 0)
	if err := errors.Join(t.stays(), top.Close()); err != nil {
		return err
	}
	return unlink(parent, name, unix.AT_REMOVEDIR)
}

const (
	// maxDepth is how deep a tree is removed where it is. What is deeper is moved
	// up first: each level takes a descriptor.
	maxDepth = 64
	// maxNamed is how many of the things that stay are named.
	maxNamed = 10
	// readNames is how many names are read at a time.
	readNames = 1024
)

// tree is one removal.
type tree struct {
	top   *os.File
	names int     // that were tried at the top
	moved int     // folders that were moved up to it
	errs  []error // of what stays
	more  int     // what stays beside those
}

// stays says what could not be removed.
func (t *tree) stays() error {
	if t.more > 0 {
		return errors.Join(append(t.errs, fmt.Errorf("and %d more", t.more))...)
	}
	return errors.Join(t.errs...)
}

func (t *tree) failed(at string, err error) {
	if len(t.errs) == maxNamed {
		t.more++
		return
	}
	t.errs = append(t.errs, &fs.PathError{Op: "remove", Path: at, Err: err})
}

// empty removes what is in a folder. To remove names while they are read may
// hide others, so it is read until there is nothing more to remove.
func (t *tree) empty(dir *os.File, at string, depth int) {
	errs, more := t.errs, t.more
	for {
		t.errs, t.more = errs, more // of what stays counts the last word
		moved := t.moved
		removed, err := t.pass(dir, at, depth)
		if err != nil {
			t.failed(at, err)
			return
		}
		if removed == 0 && (depth > 0 || t.moved == moved) {
			return
		}
	}
}

// pass removes what it can and returns how much that was.
func (t *tree) pass(dir *os.File, at string, depth int) (removed int, err error) {
	if _, err := dir.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	for {
		names, err := dir.Readdirnames(readNames)
		for _, name := range names {
			if t.remove(dir, name, path.Join(at, name), depth) {
				removed++
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, fs.ErrNotExist) { // somebody else removed it meanwhile
			return removed, nil
		}
		if err != nil {
			return removed, err
		}
	}
}

// remove removes what has a name in a folder, and reports whether it did that:
// a name that is listed and is not there is no error, and no progress.
func (t *tree) remove(dir *os.File, name, at string, depth int) bool {
	err := unlink(dir, name, 0)
	if mayBeFolder(err) {
		err = asFolder(err, t.removeFolder(dir, name, at, depth))
	}
	if err != nil && !errors.Is(err, errSaid) && !errors.Is(err, fs.ErrNotExist) {
		t.failed(at, err)
	}
	return err == nil
}

// mayBeFolder reports whether a name that was not unlinked may be a folder's: the
// kernel looks first whether the one above lets go of it.
func mayBeFolder(err error) bool {
	return errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)
}

// asFolder is the error of removing a folder, or of unlinking what is none.
func asFolder(unlinked, removed error) error {
	if errors.Is(removed, unix.ENOTDIR) {
		return unlinked
	}
	return removed
}

// errSaid is the error of a folder in which something stays, which is said there.
var errSaid = errors.New("something in it stays")

func (t *tree) removeFolder(dir *os.File, name, at string, depth int) error {
	inner, err := openFolder(dir, name)
	if err != nil {
		return err
	}
	defer inner.Close() //nolint:errcheck // only its descriptor is used
	if depth+1 == maxDepth {
		return t.moveUp(dir, name)
	}
	stay := len(t.errs) + t.more
	t.empty(inner, at, depth+1)
	if len(t.errs)+t.more > stay {
		return errSaid
	}
	return unlink(dir, name, unix.AT_REMOVEDIR)
}

// moveUp gives a folder a name of its own at the top, where it is found later.
func (t *tree) moveUp(dir *os.File, name string) error {
	for {
		t.names++
		fresh := ".deep-" + strconv.Itoa(t.names)
		err := unix.Renameat2(int(dir.Fd()), name, int(t.top.Fd()), fresh, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err == nil {
			t.moved++
		}
		return err
	}
}

func unlink(dir *os.File, name string, flags int) error {
	return unix.Unlinkat(int(dir.Fd()), name, flags)
}

// openFolder opens a folder in a folder to empty it, and lets its owner do that.
func openFolder(dir *os.File, name string) (*os.File, error) {
	place, err := retry(func() (int, error) {
		return unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, err
	}
	defer unix.Close(place) //nolint:errcheck // nothing was written
	var info unix.Stat_t
	if err := unix.Fstat(place, &info); err != nil {
		return nil, err
	}
	self := "/proc/self/fd/" + strconv.Itoa(place)
	if info.Mode&0o700 != 0o700 {
		_ = unix.Chmod(self, 0o700) // what cannot be done then is said then
	}
	fd, err := retry(func() (int, error) {
		return unix.Open(self, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
