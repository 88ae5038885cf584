package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/contracts/phrase"
	"github.com/gantry-worker/gantry/services/transfer/internal/room"
)

// Spool writes all that a container writes to a file, to stay there. Without an
// error everything is in it.
func Spool(ctx context.Context, from *Outlet, to *os.File) error {
	defer from.until(ctx)()
	if err := spool(from, to); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// lookEvery is after how many bytes it is looked whether there is room for more:
// how much comes is not known, and some is left to others.
const lookEvery = 4 << 20

func spool(from io.Reader, to *os.File) error {
	p := make([]byte, buffer)
	for unlooked := lookEvery; ; {
		n, readErr := from.Read(p)
		if n > 0 {
			if unlooked += n; unlooked >= lookEvery {
				unlooked = 0
				if err := hasRoom(to); err != nil {
					return err
				}
			}
			if _, err := to.Write(p[:n]); err != nil {
				return onDisk(err)
			}
		}
		if errors.Is(readErr, io.EOF) {
			return onDisk(to.Sync())
		}
		if readErr != nil {
			return readErr
		}
	}
}

func hasRoom(file *os.File) error {
	disk, err := room.On(file)
	if err == nil && disk.Free < disk.Left {
		err = fmt.Errorf("%w: %s are free, and %s are left to others", ErrNoSpace, phrase.Bytes(disk.Free), phrase.Bytes(disk.Left))
	}
	return err
}

// onDisk names a full disk.
func onDisk(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return ErrNoSpace
	}
	return err
}
