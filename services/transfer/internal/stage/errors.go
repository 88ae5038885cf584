package stage

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/internal/volume"
)

var (
	// ErrLeavesVolume refuses a path that is absolute or leads outside its volume, by itself or by a symbolic link.
	ErrLeavesVolume = errors.New("the path leaves its volume")
	// ErrMissing means that there is nothing at an output's path.
	ErrMissing = errors.New("there is no such file on the volume")
	// ErrNotRegular refuses what is neither a file nor a folder.
	ErrNotRegular = volume.ErrKind
	// ErrVanished means that a file of a folder was removed while the folder was uploaded.
	ErrVanished = errors.New("the file vanished while it was uploaded")
	// ErrBadName refuses a path that this node's file system cannot have.
	ErrBadName = errors.New("not a possible name for a file")
	// ErrInTheWay means that a staged-in file cannot have its name because of what is there already.
	ErrInTheWay = errors.New("another file or folder on the volume is in the way, choose another filename")
	// ErrNoSpace means that the volume is full.
	ErrNoSpace = errors.New("no space left on the volume")
	// ErrIncomplete means that Girder sends another number of bytes than the file's document says.
	ErrIncomplete = errors.New("the bytes that Girder sends are not the whole file")
	// ErrChecksum means that the bytes are not those that Girder has the checksum of.
	ErrChecksum = errors.New("the bytes that Girder sends do not match its checksum")
	// ErrReplaced means that the file in Girder got other contents while it was fetched, again and again.
	ErrReplaced = errors.New("the file in Girder changed while it was fetched")
	// ErrOtherBytes means that Girder has other bytes of an upload than were sent, again and again.
	ErrOtherBytes = errors.New("girder has other bytes than were sent")
	// ErrDenied means that this process may not read an output, or write where a file should go.
	ErrDenied = errors.New("transfer has no permission for it on this node; files and folders have to be open to every user")
	// ErrUnservable means that Girder fails to send a file because of its name.
	ErrUnservable = errors.New("girder cannot send a file whose name has one of these characters, rename it: " + unservable)
	// ErrTooMany means that a list of Girder has no end, or one that is too far off.
	ErrTooMany = fmt.Errorf("more than %d entries in one folder or item", mostListed)
	// ErrFetched is what a step waits for whose file another one fetches.
	ErrFetched = errors.New("another step fetches the same file")
	// ErrChanged means that a file changed while it was uploaded.
	ErrChanged = errors.New("the file changed while it was uploaded")
)

// IsFailure reports whether an error is the task's own: a path, an id, a token
// or a session that the task brought. Every other error may go away without a change
// of the task.
func IsFailure(err error) bool {
	for _, own := range []error{ErrLeavesVolume, ErrMissing, ErrNotRegular, ErrBadName, ErrInTheWay, ErrDenied, ErrUnservable, ErrTooMany, ErrChanged, ErrVanished, volume.ErrSymlink, volume.ErrPath} {
		if errors.Is(err, own) {
			return true
		}
	}
	var refusal *girder.Error
	var id *girder.BadIDError
	var session *girder.SessionError
	return errors.As(err, &id) || errors.As(err, &session) || errors.As(err, &refusal) && !girder.IsOutage(err)
}

// about says what an error is about, unless there is none.
func about(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// onVolume names the class of an error of the file system. What an os.Root
// refuses for leading outside has no error number.
func onVolume(path string, err error) error {
	var (
		where  *os.PathError
		link   *os.LinkError
		number syscall.Errno
	)
	class := error(nil)
	switch {
	case err == nil, errors.Is(err, volume.ErrSymlink), errors.Is(err, volume.ErrKind), errors.Is(err, volume.ErrPath):
		return err // which names the path
	case errors.As(err, &number):
		class = classes[number]
	case errors.As(err, &where), errors.As(err, &link):
		class = ErrLeavesVolume
	}
	if class == nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return fmt.Errorf("%s: %w", path, class)
}

// onPlace is onVolume for what happens when a file is given its place.
func onPlace(path string, err error) error {
	for _, taken := range []syscall.Errno{syscall.EEXIST, syscall.EISDIR, syscall.ENOTDIR, syscall.ENOTEMPTY, syscall.EBUSY} {
		if errors.Is(err, taken) {
			return fmt.Errorf("%s: %w", path, ErrInTheWay)
		}
	}
	return onVolume(path, err)
}

var classes = map[syscall.Errno]error{
	syscall.ENOSPC:       ErrNoSpace,
	syscall.EDQUOT:       ErrNoSpace,
	syscall.EACCES:       ErrDenied,
	syscall.EPERM:        ErrDenied,
	syscall.ENOENT:       ErrMissing,
	syscall.ENOTDIR:      ErrMissing,
	syscall.ELOOP:        ErrLeavesVolume,
	syscall.ENAMETOOLONG: ErrBadName,
	syscall.EINVAL:       ErrBadName,
	syscall.EISDIR:       ErrBadName,
	syscall.ENXIO:        ErrNotRegular, // opening a socket
}
