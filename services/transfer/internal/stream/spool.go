package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
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

// The rest of a disk is left to others: a node without any room can neither note
// nor finish what it does.
const (
	mostLeft  = 256 << 20
	shareLeft = 20 // at most a 20th of the disk
	lookEvery = 4 << 20
)

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
	var disk unix.Statfs_t
	if err := unix.Fstatfs(int(file.Fd()), &disk); err != nil {
		return err
	}
	if free := disk.Bavail * uint64(disk.Bsize); free < min(mostLeft, disk.Blocks*uint64(disk.Bsize)/shareLeft) {
		return ErrNoSpace
	}
	return nil
}

// onDisk names a full disk.
func onDisk(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return ErrNoSpace
	}
	return err
}
