package attempt

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/folder"
	"github.com/gantry-worker/gantry/services/internal/fifo"
	"github.com/gantry-worker/gantry/services/internal/volume"
)

// makePipes makes the plan's named pipes. Those on folders of the host are noted
// first, for whoever has to remove them.
func (a *Attempt) makePipes() error {
	a.folder.Pipes = nil
	for _, p := range a.plan.pipes {
		if !isOurs(a.folder, p.Volume) {
			a.folder.Pipes = append(a.folder.Pipes, p)
		}
	}
	if len(a.folder.Pipes) > 0 {
		if err := a.note(); err != nil {
			return err
		}
	}
	for _, p := range a.plan.pipes {
		err := fifo.Make(volume.Volume{Host: p.Volume}, p.Name)
		if err != nil && isTasksFault(err) {
			return &Failure{fmt.Sprintf("%s: %v", a.plan.fields[p], err)}
		}
		if err != nil {
			return &Infrastructure{err.Error()}
		}
	}
	return nil
}

// isTasksFault reports whether a pipe could not be made for what the task, or
// somebody's folder, has at its place.
func isTasksFault(err error) bool {
	for _, fault := range []error{volume.ErrPath, volume.ErrSymlink, fs.ErrExist, fs.ErrNotExist, unix.ENOTDIR} {
		if errors.Is(err, fault) {
			return true
		}
	}
	return false
}

// RemovePipes removes the named pipes that an attempt made on folders of the
// host, where they would stay.
func RemovePipes(f *folder.Folder) error {
	var errs []error
	for _, p := range f.Pipes {
		errs = append(errs, fifo.Remove(volume.Volume{Host: p.Volume}, p.Name))
	}
	return errors.Join(errs...)
}
