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
// whatever the umask is. Something that is there already is fs.ErrExist.
func Make(v volume.Volume, rel string) error {
	err := v.Within(rel, func(root *os.Root, clean string) error {
		dir, err := root.Open(path.Dir(clean))
		if err != nil {
			return err
		}
		defer dir.Close() //nolint:errcheck // only its descriptor is used
		if err := unix.Mkfifoat(int(dir.Fd()), path.Base(clean), 0o666); err != nil {
			return &fs.PathError{Op: "mkfifo", Path: clean, Err: err}
		}
		return root.Chmod(clean, 0o666)
	})
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	return nil
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
