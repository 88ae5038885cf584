// Package removetree is what Gantry's own program does as root in a container
// that it is put into: it removes what a task's container left behind and its
// executor, who is not root, may not remove.
//
// A program that an executor may run in calls [Main] before anything else.
package removetree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/services/internal/volume"
)

// Argument is the first argument of a program that is to remove a tree; the
// second one is the folder, the third one what [ID] it has to be.
const Argument = "remove-tree"

// Main does what the program was called for, and ends it, if that is to remove
// a tree. Else it returns.
func Main() {
	if len(os.Args) != 4 || os.Args[1] != Argument {
		return
	}
	id, err := parseID(os.Args[3])
	if err == nil {
		err = Contents(os.Args[2], id)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// ID tells a folder from all others of its host, by whatever path it is seen.
type ID struct{ Device, Inode uint64 }

// String is the form for the program's arguments.
func (id ID) String() string { return fmt.Sprintf("%d:%d", id.Device, id.Inode) }

func parseID(text string) (id ID, err error) {
	if _, err := fmt.Sscanf(text, "%d:%d", &id.Device, &id.Inode); err != nil || id.String() != text {
		return id, fmt.Errorf("%q is no folder's device and inode", text)
	}
	return id, nil
}

// IDOf returns the ID of what is at a path, which has to be a folder itself and
// no symbolic link to one.
func IDOf(folder string) (ID, error) {
	var info unix.Stat_t
	if err := unix.Lstat(folder, &info); err != nil {
		return ID{}, &fs.PathError{Op: "lstat", Path: folder, Err: err}
	}
	if info.Mode&unix.S_IFMT != unix.S_IFDIR {
		return ID{}, &fs.PathError{Op: "lstat", Path: folder, Err: unix.ENOTDIR}
	}
	return ID{uint64(info.Dev), info.Ino}, nil
}

// Contents removes all that is in a folder, but not the folder. It follows no
// symbolic link, goes on when something cannot be removed, and says what stays
// and why. It removes nothing where the folder is another one than id: then
// somebody put that, or a link to it, in the folder's place.
func Contents(folder string, id ID) error {
	top, err := os.OpenFile(folder, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer top.Close() //nolint:errcheck // only read from
	var info unix.Stat_t
	if err := unix.Fstat(int(top.Fd()), &info); err != nil {
		return &fs.PathError{Op: "fstat", Path: folder, Err: err}
	}
	if is := (ID{uint64(info.Dev), info.Ino}); is != id {
		return fmt.Errorf("nothing is removed: somebody put another folder (%s) in the place of the one that is to be emptied (%s)", is, id)
	}
	err = volume.EmptyTree(fmt.Sprintf("/proc/self/fd/%d", top.Fd())) // that very one, whatever has its path by now
	several, ok := err.(interface{ Unwrap() []error })                //nolint:errorlint // these very errors
	if !ok {
		return err
	}
	var errs []error
	for _, one := range flat(several.Unwrap()) {
		errs = append(errs, explained(folder, one))
	}
	return errors.Join(errs...)
}

// flat takes joined errors apart.
func flat(errs []error) []error {
	var all []error
	for _, err := range errs {
		if several, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // not what it wraps
			all = append(all, flat(several.Unwrap())...)
			continue
		}
		all = append(all, err)
	}
	return all
}

// explained adds why not even root may remove something.
func explained(folder string, err error) error {
	failed := (*fs.PathError)(nil)
	if !errors.As(err, &failed) || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	at := filepath.Join(folder, failed.Path)
	if isFixed(at) || isFixed(filepath.Dir(at)) {
		return fmt.Errorf("remove %s: it or its folder is immutable or append-only: whoever made it so has to undo that (chattr -i -a)", failed.Path)
	}
	return err
}

// The attributes with which not even root removes a file, or what is in a
// folder.
const (
	immutable  = 0x10
	appendOnly = 0x20
)

// isFixed reports whether a file or folder has one of them.
func isFixed(at string) bool {
	info, err := os.Lstat(at)
	if err != nil || !info.Mode().IsRegular() && !info.IsDir() {
		return false
	}
	f, err := os.OpenFile(at, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	defer f.Close() //nolint:errcheck // only read from
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	return err == nil && flags&(immutable|appendOnly) != 0
}
