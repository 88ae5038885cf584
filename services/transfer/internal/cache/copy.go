package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// copyStep is how much is copied between two looks at the context.
const copyStep = 8 << 20

// Clone makes an empty file a copy of another one that shares its blocks, where
// the file system can. Neither side sees what is written to the other one later.
func Clone(to, from *os.File) bool {
	return unix.IoctlFileClone(int(to.Fd()), int(from.Fd())) == nil
}

// Copy fills an empty file with the bytes of another one of that size, in the
// kernel where possible. moved, if not nil, is told of each part.
func Copy(ctx context.Context, to, from *os.File, size int64, moved func(n int64)) error {
	if _, err := from.Seek(0, io.SeekStart); err != nil {
		return err
	}
	for have := int64(0); have < size; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := io.CopyN(to, from, min(copyStep, size-have))
		if moved != nil {
			moved(n)
		}
		WriteBack(to, have, n)
		have += n
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("copy of %d bytes: %w after %d", size, io.ErrUnexpectedEOF, have)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// WriteBack has what was written to a part of a file brought to the disk soon,
// so that the sync in the end finds less to do. It does not matter if it cannot.
func WriteBack(file *os.File, offset, length int64) {
	_ = unix.SyncFileRange(int(file.Fd()), offset, length, unix.SYNC_FILE_RANGE_WRITE)
}
