// Package room sees to it that a disk has room for a file before its first
// byte is written, and that some is left to others: a node without any can
// neither note nor finish what it does.
package room

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/contracts/phrase"
)

// What is left to others: a 20th of the disk, at most so much.
const (
	mostLeft  = 256 << 20
	shareLeft = 20
)

// small is a file for which the file system is not asked to set room aside: it
// is written at once.
const small = 1 << 20

// Disk is what a file system has, in bytes.
type Disk struct {
	Free int64 // for everybody but the superuser
	Left int64 // of it is left to others
}

// On looks at the disk that a file is on.
func On(file *os.File) (Disk, error) { return OnDescriptor(int(file.Fd())) }

// OnDescriptor is On for an open file's descriptor.
func OnDescriptor(file int) (Disk, error) {
	var disk unix.Statfs_t
	err := again(func() error { return unix.Fstatfs(file, &disk) })
	if err != nil {
		return Disk{}, fmt.Errorf("look how much room there is: %w", err)
	}
	block := uint64(disk.Bsize)
	return Disk{Free: int64(disk.Bavail * block), Left: int64(min(mostLeft, disk.Blocks*block/shareLeft))}, nil
}

// Short means that a disk has no room for so much more.
type Short struct {
	Need int64
	Disk
}

func (e *Short) Error() string {
	return fmt.Sprintf("it takes %s more, %s are free and %s of them are left to others", phrase.Bytes(e.Need), phrase.Bytes(e.Free), phrase.Bytes(e.Left))
}

// Missing is how much more room there has to be.
func (e *Short) Missing() int64 { return e.Need - (e.Free - e.Left) }

// reserving is held from a look at the disk until what was found is taken.
var reserving sync.Mutex

// Reserve sets room aside for a file that is to have so many bytes, and counts
// what it has already, whether written or set aside. The file's size stays. A
// [Short] error leaves everything as it was. Where the file system cannot set
// room aside, it is only looked whether there is any.
func Reserve(file *os.File, size int64) error {
	var info unix.Stat_t
	if err := again(func() error { return unix.Fstat(int(file.Fd()), &info) }); err != nil {
		return fmt.Errorf("look how much room a file has: %w", err)
	}
	need := size - max(info.Size, info.Blocks*512)
	if need <= 0 {
		return nil
	}
	if size >= small {
		reserving.Lock()
		defer reserving.Unlock()
	}
	disk, err := On(file)
	if err != nil {
		return err
	}
	if disk.Free-disk.Left < need {
		return &Short{need, disk}
	}
	if size < small {
		return nil
	}
	err = again(func() error {
		return unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_KEEP_SIZE, info.Size, size-info.Size)
	})
	switch {
	case err == nil, errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
		return nil
	case errors.Is(err, unix.ENOSPC):
		// What it got before it found out is given back.
		return errors.Join(&Short{need, disk}, file.Truncate(info.Size))
	}
	return fmt.Errorf("set room aside: %w", err)
}

func again(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
