// Package fifo makes named pipes on a volume and opens our end of them.
//
// A container writes into the pipe, or replaces it by something else: nothing
// at its place is trusted. What is opened is proven to be a named pipe first,
// without opening it, since opening a device may do something.
//
// The executor of an attempt owns its pipes: it has them open with an exclusive
// lock (flock) that ends with its process. Others may hold a pipe beside it, so
// that its death gives the container neither a broken pipe nor an end of file,
// and whatever was written waits for the next owner.
package fifo

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/volume"
)

var (
	// ErrNoPipe is returned for what stands in a pipe's place and is none.
	ErrNoPipe = errors.New("not a named pipe")

	// ErrOwned is returned for a named pipe that somebody else owns.
	ErrOwned = errors.New("named pipe of another attempt")
)

// Make makes a named pipe on a volume, for every user to read and write,
// whatever the umask is. A named pipe that nobody owns is taken over; one that
// is owned is ErrOwned, and anything else at its place ErrNoPipe, both of them
// fs.ErrExist as well.
func Make(v volume.Volume, rel string) error {
	err := v.Within(rel, func(root *os.Root, clean string) error {
		dir, err := root.Open(path.Dir(clean))
		if err != nil {
			return err
		}
		defer dir.Close() //nolint:errcheck // only its descriptor is used
		err = unix.Mkfifoat(int(dir.Fd()), path.Base(clean), 0o666)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return &fs.PathError{Op: "mkfifo", Path: clean, Err: err}
		}
		pipe, err := open(dir, path.Base(clean))
		if err != nil {
			return &fs.PathError{Op: "mkfifo", Path: clean, Err: errors.Join(fs.ErrExist, err)}
		}
		defer pipe.Close() //nolint:errcheck // nothing was written
		if err := own(pipe); err != nil {
			return &fs.PathError{Op: "mkfifo", Path: clean, Err: errors.Join(fs.ErrExist, err)}
		}
		return pipe.Chmod(0o666)
	})
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	return nil
}

// Remove removes a named pipe that Make made. Nothing else is removed, nor a
// pipe that somebody owns: it is another attempt's by now.
func Remove(v volume.Volume, rel string) error {
	err := v.Within(rel, func(root *os.Root, clean string) error {
		dir, err := root.Open(path.Dir(clean))
		if err != nil {
			return err
		}
		defer dir.Close() //nolint:errcheck // only its descriptor is used
		pipe, err := open(dir, path.Base(clean))
		if err != nil {
			return err
		}
		defer pipe.Close() //nolint:errcheck // nothing was written
		if err := own(pipe); err != nil {
			return err
		}
		return root.Remove(clean)
	})
	for _, harmless := range []error{fs.ErrNotExist, ErrNoPipe, ErrOwned} {
		if errors.Is(err, harmless) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("remove pipe: %w", err)
	}
	return nil
}

// Open opens a named pipe for its owner, for reading and writing: so it never
// waits for the container, and reads no end of file when the container closes
// it. The owner's lock goes with the file. ErrOwned says that another owner
// lives.
func Open(v volume.Volume, rel string) (*os.File, error) {
	pipe, err := openOn(v, rel)
	if err == nil {
		if ownErr := own(pipe); ownErr != nil {
			pipe, err = nil, errors.Join(ownErr, pipe.Close())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open pipe %s: %w", rel, err)
	}
	return pipe, nil
}

// Hold keeps our end of a named pipe open beside its owner, until it is closed.
// It neither reads nor writes, and never waits for the other end.
func Hold(v volume.Volume, rel string, end contracts.PipeEnd) (io.Closer, error) {
	held, err := hold(v, rel, end)
	if err != nil {
		return nil, fmt.Errorf("hold pipe %s: %w", rel, err)
	}
	return held, nil
}

func hold(v volume.Volume, rel string, end contracts.PipeEnd) (io.Closer, error) {
	access := unix.O_RDONLY
	switch end {
	case contracts.PipeRead:
	case contracts.PipeWrite:
		access = unix.O_WRONLY
	default:
		return nil, fmt.Errorf("unknown end %q", end)
	}
	both, err := openOn(v, rel) // a write end cannot be opened where nobody reads
	if err != nil {
		return nil, err
	}
	held, err := reopen(both, access)
	return held, errors.Join(err, both.Close())
}

// reopen opens what a file stands for once more.
func reopen(file *os.File, access int) (*os.File, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	var again *os.File
	var openErr error
	if err := raw.Control(func(fd uintptr) { again, openErr = openDescriptor(int(fd), file.Name(), access) }); err != nil {
		return nil, err
	}
	return again, openErr
}

// openDescriptor opens what a descriptor stands for, whatever is at its path by
// now.
func openDescriptor(of int, name string, access int) (*os.File, error) {
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(of), access|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func openOn(v volume.Volume, rel string) (pipe *os.File, err error) {
	err = v.Within(rel, func(root *os.Root, clean string) error {
		dir, err := root.Open(path.Dir(clean))
		if err != nil {
			return err
		}
		defer dir.Close() //nolint:errcheck // only its descriptor is used
		pipe, err = open(dir, path.Base(clean))
		return err
	})
	return pipe, err
}

// open opens a named pipe in a folder. It takes hold of what is there without
// opening it, and opens that very thing if it is a named pipe.
func open(dir *os.File, name string) (*os.File, error) {
	place, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(place) //nolint:errcheck // it stands for a place and has nothing to flush
	var info unix.Stat_t
	if err := unix.Fstat(place, &info); err != nil {
		return nil, err
	}
	if info.Mode&unix.S_IFMT != unix.S_IFIFO {
		return nil, ErrNoPipe
	}
	return openDescriptor(place, name, unix.O_RDWR)
}

// own makes the caller the owner of an open pipe, until it is closed.
func own(pipe *os.File) error {
	raw, err := pipe.SyscallConn()
	if err != nil {
		return err
	}
	var lockErr error
	if err := raw.Control(func(fd uintptr) { lockErr = unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB) }); err != nil {
		return err
	}
	if errors.Is(lockErr, unix.EWOULDBLOCK) {
		return ErrOwned
	}
	return lockErr
}
