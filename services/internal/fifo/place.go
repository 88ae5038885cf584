package fifo

import (
	"errors"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/services/internal/volume"
)

// openOn opens a named pipe on a volume.
func openOn(v volume.Volume, rel string, access int, role Role) (pipe *os.File, err error) {
	err = v.Within(rel, func(root *os.Root, clean string) error {
		dir, err := root.Open(path.Dir(clean))
		if err != nil {
			return err
		}
		defer dir.Close() //nolint:errcheck // only its descriptor is used
		if pipe, err = open(dir, path.Base(clean), access); err != nil {
			return err
		}
		if role != Owner {
			return nil
		}
		if err := own(pipe); err != nil {
			return errors.Join(err, pipe.Close())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return pipe, nil
}

// open opens a named pipe in a folder. It takes hold of what is there without
// opening it, and opens that very thing if it is a named pipe.
func open(dir *os.File, name string, access int) (*os.File, error) {
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
	if access == unix.O_WRONLY {
		return openWriteEnd(place, name)
	}
	return openFile(place, name, access)
}

// openWriteEnd opens a write end whether somebody reads or not. Where nobody
// does, only who has both ends gets it: they are open for a moment.
func openWriteEnd(place int, name string) (*os.File, error) {
	file, err := openFile(place, name, unix.O_WRONLY)
	if !errors.Is(err, unix.ENXIO) {
		return file, err
	}
	both, err := reopen(place, unix.O_RDWR|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	defer unix.Close(both) //nolint:errcheck // nothing was written
	return openFile(place, name, unix.O_WRONLY)
}

func openFile(of int, name string, access int) (*os.File, error) {
	fd, err := reopen(of, access|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// reopen opens what a descriptor stands for once more, whatever is at its path
// by now.
func reopen(of int, flags int) (int, error) {
	for {
		fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(of), flags|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// openOwn opens a pipe as its owner, to do something to it as a whole.
func openOwn(dir *os.File, name string) (*os.File, error) {
	pipe, err := open(dir, name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	if err := own(pipe); err != nil {
		return nil, errors.Join(err, pipe.Close())
	}
	return pipe, nil
}

// own makes the caller the owner of an open pipe, until it is disowned.
func own(pipe *os.File) error {
	err := flock(pipe, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrOwned
	}
	return err
}

// disown closes an owner's pipe. The lock is given up first: closing does that
// only when the last copy of the descriptor is closed, and a process that is
// just being started by another goroutine has one until it runs its program.
func disown(pipe *os.File) error {
	return errors.Join(flock(pipe, unix.LOCK_UN), pipe.Close())
}

func flock(pipe *os.File, how int) error {
	raw, err := pipe.SyscallConn()
	if err != nil {
		return err
	}
	var lockErr error
	if err := raw.Control(func(fd uintptr) { lockErr = unix.Flock(int(fd), how) }); err != nil {
		return err
	}
	return lockErr
}
