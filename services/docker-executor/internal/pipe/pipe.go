// Package pipe makes named pipes on a volume and reads the progress pipe, which
// a container writes its progress to.
//
// A progress pipe goes through three steps: Make before the container is
// created, OpenProgress before it starts, and Run until it has ended. We hold a
// read end and a write end. The read end spares the container a SIGPIPE and a
// wait for a reader; the write end keeps the pipe open while the container opens
// and closes it as often as it likes. Ended closes the write end, and Run drains
// what is left and returns.
package pipe

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/volume"
)

// ErrNoPipe is returned for what stands in a pipe's place and is none.
var ErrNoPipe = errors.New("not a named pipe")

// Make makes a named pipe on a volume, for every user to read and write,
// whatever the umask is. A named pipe that an attempt left there is taken over;
// one that somebody reads, or anything else, is fs.ErrExist.
func Make(v volume.Volume, rel string) error {
	err := v.Within(rel, func(root *os.Root, clean string) error {
		dir, err := root.Open(path.Dir(clean))
		if err != nil {
			return err
		}
		defer dir.Close() //nolint:errcheck // only its descriptor is used
		err = unix.Mkfifoat(int(dir.Fd()), path.Base(clean), 0o666)
		if err != nil && (!errors.Is(err, fs.ErrExist) || !isUnread(root, clean)) {
			return &fs.PathError{Op: "mkfifo", Path: clean, Err: err}
		}
		return root.Chmod(clean, 0o666)
	})
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	return nil
}

// Remove removes a named pipe that Make made. Nothing else is removed, nor a
// pipe that somebody reads: it is another attempt's by now.
func Remove(v volume.Volume, rel string) error {
	err := v.Within(rel, func(root *os.Root, clean string) error {
		if !isUnread(root, clean) {
			return nil
		}
		return root.Remove(clean)
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove pipe: %w", err)
	}
	return nil
}

// isUnread reports whether a path is a named pipe that nobody has open for
// reading.
func isUnread(root *os.Root, clean string) bool {
	info, err := root.Lstat(clean)
	if err != nil || info.Mode().Type() != fs.ModeNamedPipe {
		return false
	}
	f, err := root.OpenFile(clean, os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err == nil {
		_ = f.Close() // nothing was written
	}
	return errors.Is(err, unix.ENXIO)
}

// open opens one end of a named pipe without waiting for the other.
func open(v volume.Volume, rel string, flag int) (*os.File, error) {
	f, err := v.OpenFile(rel, flag, 0)
	if err != nil {
		return nil, fmt.Errorf("open pipe: %w", err)
	}
	info, err := f.Stat()
	if err == nil && info.Mode()&fs.ModeNamedPipe == 0 {
		err = ErrNoPipe
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open pipe %s: %w", rel, err), f.Close())
	}
	return f, nil
}
