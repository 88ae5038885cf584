package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrKind is returned for a named pipe, a device or a socket where a file or
// folder is wanted.
var ErrKind = errors.New("neither a file nor a folder")

// OpenOutput opens for reading what a container left at a path on a volume: a
// regular file or a folder. No symbolic link is followed, whichever part of the
// path it is (ErrSymlink), and nothing else is opened at all (ErrKind): to open
// a device may do something, and to open a pipe may wake or stop somebody.
//
// All of it holds also while somebody exchanges parts of the path for others:
// what is opened is the very thing that was looked at.
func OpenOutput(root *os.Root, rel string) (*os.File, error) {
	clean, err := Clean(rel)
	if err != nil {
		return nil, err
	}
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close() //nolint:errcheck // only its descriptor is used
	raw, err := dir.SyscallConn()
	if err != nil {
		return nil, err
	}
	var file *os.File
	var openErr error
	err = raw.Control(func(fd uintptr) { file, openErr = openBelow(int(fd), clean) })
	return file, errors.Join(err, openErr)
}

// openBelow walks down from a folder, by places: descriptors that stand for what
// is there without having it open.
func openBelow(dir int, clean string) (*os.File, error) {
	place, sofar := dir, "."
	defer func() {
		if place != dir {
			_ = unix.Close(place) // nothing was written
		}
	}()
	names := strings.Split(clean, "/")
	for i, name := range names {
		sofar = path.Join(sofar, name)
		next, err := retry(func() (int, error) {
			return unix.Openat(place, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		})
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: sofar, Err: err}
		}
		if place != dir {
			_ = unix.Close(place) // nothing was written
		}
		place = next
		if err := isWanted(place, clean, sofar, i < len(names)-1); err != nil {
			return nil, err
		}
	}
	// By the place, and not by its path, which may lead elsewhere by now.
	fd, err := retry(func() (int, error) {
		return unix.Open("/proc/self/fd/"+strconv.Itoa(place), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: clean, Err: err}
	}
	return os.NewFile(uintptr(fd), clean), nil
}

// isWanted says why a place is not what it has to be: a folder, or at the end
// also a regular file.
func isWanted(place int, clean, sofar string, inside bool) error {
	var info unix.Stat_t
	if err := unix.Fstat(place, &info); err != nil {
		return &fs.PathError{Op: "stat", Path: sofar, Err: err}
	}
	kind := info.Mode & unix.S_IFMT
	switch {
	case kind == unix.S_IFLNK:
		return linkError(clean, sofar)
	case kind == unix.S_IFDIR, kind == unix.S_IFREG && !inside:
		return nil
	case kind == unix.S_IFREG:
		return &fs.PathError{Op: "open", Path: clean, Err: unix.ENOTDIR}
	default:
		return fmt.Errorf("volume path %q: %s is a %s, %w", clean, sofar, kinds[kind], ErrKind)
	}
}

var kinds = map[uint32]string{
	unix.S_IFIFO: "named pipe", unix.S_IFCHR: "device", unix.S_IFBLK: "device", unix.S_IFSOCK: "socket",
}

func retry(call func() (int, error)) (int, error) {
	for {
		fd, err := call()
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}
