// Package fifo makes named pipes and opens our end of them: the read end where
// a container writes, the write end where it reads.
//
// A container writes into the pipe, or replaces it by something else: nothing
// at its place is trusted. What is opened is proven to be a named pipe first,
// without opening it, since opening a device may do something.
//
// Nobody of ours keeps the container's end open: that would hide its leaving. A
// [Reader] therefore takes "nobody has it open for writing" for a pause, and only
// [Reader.End] for the end. A [Writer] holds the write end while nobody reads, so
// that the container finds a pipe that waits for data, and gives the end of file
// by [Writer.Close] alone.
//
// The executor of an attempt owns its pipes: it has them open with an exclusive
// lock (flock) that ends with its process. Others may hold or move bytes beside
// it, so that the death of one gives the container neither a broken pipe nor an
// end of file, and whatever was written waits for the next one.
package fifo

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/volume"
)

var (
	// ErrNoPipe is returned for what stands in a pipe's place and is none.
	ErrNoPipe = errors.New("not a named pipe")

	// ErrOwned is returned for a named pipe that somebody else owns.
	ErrOwned = errors.New("named pipe of another attempt")

	// ErrLeft is returned by a [Writer] whose container has closed its end, or
	// has ended: it takes no more, which is no error of the stream.
	ErrLeft = errors.New("the container has closed the pipe")
)

// Role says who opens a pipe.
type Role int

// The roles.
const (
	// Beside is who holds a pipe, or moves its bytes, beside its owner.
	Beside Role = iota
	// Owner is the executor of the pipe's attempt: there is one at a time, and
	// the next one gets ErrOwned while it lives.
	Owner
)

// Make makes a named pipe on a volume, for every user to read and write,
// whatever the umask is. A named pipe that nobody owns is taken over; one that
// is owned is ErrOwned, and anything else at its place ErrNoPipe, both of them
// fs.ErrExist as well.
func Make(v volume.Volume, rel string) error { return makePipe(v, rel, 0o666) }

// MakePrivate is Make of a pipe that only our own user opens, between two of our
// services.
func MakePrivate(v volume.Volume, rel string) error { return makePipe(v, rel, 0o600) }

func makePipe(v volume.Volume, rel string, mode fs.FileMode) error {
	err := v.Within(rel, func(root *os.Root, clean string) error {
		dir, err := root.Open(path.Dir(clean))
		if err != nil {
			return err
		}
		defer dir.Close() //nolint:errcheck // only its descriptor is used
		err = unix.Mkfifoat(int(dir.Fd()), path.Base(clean), uint32(mode))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return &fs.PathError{Op: "mkfifo", Path: clean, Err: err}
		}
		pipe, err := openOwn(dir, path.Base(clean))
		if err != nil {
			return &fs.PathError{Op: "mkfifo", Path: clean, Err: errors.Join(fs.ErrExist, err)}
		}
		defer disown(pipe) //nolint:errcheck // nothing was written
		return pipe.Chmod(mode)
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
		pipe, err := openOwn(dir, path.Base(clean))
		if err != nil {
			return err
		}
		defer disown(pipe) //nolint:errcheck // nothing was written
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

// Hold keeps our end of a named pipe open beside its owner, until it is closed.
// It neither reads nor writes, and never waits for the other end.
func Hold(v volume.Volume, rel string, end contracts.PipeEnd) (io.Closer, error) {
	switch end {
	case contracts.PipeRead:
		return asCloser(OpenReader(v, rel, Beside))
	case contracts.PipeWrite:
		return asCloser(OpenWriter(v, rel, Beside))
	default:
		return nil, fmt.Errorf("hold pipe %s: unknown end %q", rel, end)
	}
}

func asCloser[T io.Closer](held T, err error) (io.Closer, error) {
	if err != nil {
		return nil, err // not a nil T, which would be a Closer
	}
	return held, nil
}
