// Package folder is the place of an attempt on its node: a folder below the
// work folder with a lock, a note of what the attempt is and how far it came,
// its temporary volumes, and the results of the steps that transfer did for it.
//
// The lock says whether the attempt's executor lives. Whoever takes a free lock
// may go on with the attempt, and finds here what it takes to do so.
package folder

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/volume"
)

const (
	attemptsDir = "attempts"
	stepsDir    = "steps"
	volumesDir  = "volumes"
	lockFile    = "lock"
	aboutFile   = "attempt.json"
)

// ErrLocked is returned for a folder whose executor lives.
var ErrLocked = errors.New("the attempt's executor lives")

// ErrForeign is returned for a folder that is in the way of another
// installation's attempt.
var ErrForeign = errors.New("the folder is another installation's; remove it if that one is gone for good")

// Folder is an attempt's folder whose lock is held. It is for one goroutine.
type Folder struct {
	About
	workRoot string
	path     string
	lock     *os.File
}

func name(job contracts.JobID, attempt int) string { return fmt.Sprintf("%s.%d", job, attempt) }

// Create makes an attempt's folder and takes its lock. What an earlier claim of
// the same attempt left there, without ever winning it, is removed. The error is
// [ErrForeign] where it was left by another installation's job of the same id.
func Create(workRoot string, about About) (*Folder, error) {
	f := &Folder{About: about, workRoot: workRoot, path: filepath.Join(workRoot, attemptsDir, name(about.Job, about.Attempt))}
	if err := f.create(); err != nil {
		return nil, fmt.Errorf("make folder of attempt %d of %s: %w", about.Attempt, about.Job, err)
	}
	return f, nil
}

func (f *Folder) create() error {
	if err := os.MkdirAll(filepath.Join(f.workRoot, attemptsDir), 0o711); err != nil {
		return err
	}
	if err := os.Mkdir(f.path, 0o711); errors.Is(err, fs.ErrExist) {
		stale, err := take(f.workRoot, f.path)
		if err != nil {
			return err
		}
		if !stale.BelongsTo(f.Installation) {
			return errors.Join(ErrForeign, stale.Close())
		}
		if err := stale.Remove(); err != nil {
			return err
		}
		return f.create()
	} else if err != nil {
		return err
	}
	var err error
	if f.lock, err = lock(f.path); errors.Is(err, fs.ErrNotExist) {
		return ErrLocked // somebody looked through the folders and found an empty one
	} else if err != nil {
		return err
	}
	for _, dir := range []string{stepsDir, volumesDir} {
		if err := os.Mkdir(filepath.Join(f.path, dir), 0o711); err != nil {
			return errors.Join(err, f.Remove())
		}
	}
	if err := f.write(); err != nil {
		return errors.Join(err, f.Remove())
	}
	return nil
}

func lock(path string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(path, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		err = errors.Join(file.Close(), err)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrLocked
		}
		return nil, err
	}
	// Its folder may have been removed since it was opened, and made anew.
	ours, err := file.Stat()
	if err == nil {
		var present fs.FileInfo
		if present, err = os.Stat(filepath.Join(path, lockFile)); err == nil && !os.SameFile(ours, present) {
			err = ErrLocked
		}
	}
	if err != nil {
		return nil, errors.Join(err, unlock(file))
	}
	return file, nil
}

// Writable returns nil if an attempt's folder could be made in a work folder
// now, else why not.
func Writable(workRoot string) error {
	err := probe(workRoot)
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err // the probe's name, new each time, would make a new reason of it
	}
	if err != nil {
		return fmt.Errorf("work folder %s: %w", workRoot, err)
	}
	return nil
}

// probe makes a folder beside those of attempts, as one that is being removed:
// if this is cut short, it is found as a folder of no attempt.
func probe(workRoot string) error {
	attempts := filepath.Join(workRoot, attemptsDir)
	if err := os.MkdirAll(attempts, 0o711); err != nil {
		return err
	}
	path, err := os.MkdirTemp(attempts, gone)
	if err != nil {
		return err
	}
	f := &Folder{workRoot: workRoot, path: path}
	f.lock, err = lock(path)
	if errors.Is(err, ErrLocked) || errors.Is(err, fs.ErrNotExist) {
		return nil // it could be made, and somebody who looked through the folders removes it
	}
	if err == nil {
		_, err = f.lock.WriteString("is there space?")
	}
	return errors.Join(err, f.Remove())
}

// Take takes over the folder of one attempt. The error is [ErrLocked] while its
// executor lives and fs.ErrNotExist where there is none.
func Take(workRoot string, job contracts.JobID, attempt int) (*Folder, error) {
	return take(workRoot, filepath.Join(workRoot, attemptsDir, name(job, attempt)))
}

func take(workRoot, path string) (*Folder, error) {
	held, err := lock(path)
	if err != nil {
		return nil, err
	}
	f := &Folder{workRoot: workRoot, path: path, lock: held}
	if isGone(path) {
		return f, nil // its executor died while removing it: another folder may be the attempt's by now
	}
	data, err := os.ReadFile(filepath.Join(path, aboutFile))
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil // its executor died while making it: nothing was claimed
	}
	if err == nil && json.Unmarshal(data, &f.About) != nil {
		// The host went down while it was written: its name is all that is known.
		f.About, err = fromName(filepath.Base(path))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", filepath.Join(path, aboutFile), err), unlock(held))
	}
	return f, nil
}

func fromName(name string) (about About, err error) {
	job, number, _ := strings.Cut(name, ".")
	if about.Job, err = contracts.ParseJobID(job); err != nil {
		return about, err
	}
	about.Attempt, err = strconv.Atoi(number)
	return about, err
}

// Abandoned takes every folder whose lock is free.
func Abandoned(workRoot string) ([]*Folder, error) {
	entries, err := os.ReadDir(filepath.Join(workRoot, attemptsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list attempts: %w", err)
	}
	var (
		free []*Folder
		errs []error
	)
	for _, entry := range entries {
		f, err := take(workRoot, filepath.Join(workRoot, attemptsDir, entry.Name()))
		switch {
		case errors.Is(err, ErrLocked), errors.Is(err, fs.ErrNotExist):
		case err != nil:
			errs = append(errs, err)
		default:
			free = append(free, f)
		}
	}
	return free, errors.Join(errs...)
}

// Has reports whether an attempt has a folder, whoever holds its lock.
func Has(workRoot string, job contracts.JobID, attempt int) bool {
	_, err := os.Stat(filepath.Join(workRoot, attemptsDir, name(job, attempt)))
	return err == nil
}

// Path is where the folder is.
func (f *Folder) Path() string { return f.path }

// VolumesDir is where the attempt's temporary volumes are made.
func (f *Folder) VolumesDir() string { return filepath.Join(f.path, volumesDir) }

// Relative is the folder's path from the work folder, as a step names it.
func (f *Folder) Relative() string { return filepath.Join(attemptsDir, filepath.Base(f.path)) }

// StepResult returns the result of a step, or nil while it has none.
func (f *Folder) StepResult(step string) (*contracts.StepResult, error) {
	data, err := os.ReadFile(filepath.Join(f.path, stepsDir, step+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read result of step %s: %w", step, err)
	}
	result := new(contracts.StepResult)
	if err := json.Unmarshal(data, result); err != nil {
		return nil, fmt.Errorf("read result of step %s: %w", step, err)
	}
	return result, nil
}

// removeTries is how often a removal begins anew, into which a transfer that has
// yet to hear that the attempt ended puts something.
const removeTries = 5

// gone begins the names of folders that are being removed.
const gone = ".gone-"

func isGone(path string) bool { return strings.HasPrefix(filepath.Base(path), gone) }

// Remove removes the folder with all that is in it and gives the lock back. It
// is moved away first: whoever makes the attempt's folder anew meanwhile makes
// another one. What is left if that is cut short is found as a folder of no
// attempt.
func (f *Folder) Remove() error { return f.RemoveWith(nil) }

// RemoveWith is Remove for what a container left that we may not remove: empty
// removes all that is in a folder, and is asked where permission is denied.
func (f *Folder) RemoveWith(empty func(path string) error) error {
	var err error
	if !isGone(f.path) {
		away := filepath.Join(f.workRoot, attemptsDir, gone+contracts.NewToken())
		if err := os.Rename(f.path, away); err != nil {
			return errors.Join(err, f.Close())
		}
		f.path = away
	}
	if err = f.removeAll(); errors.Is(err, fs.ErrPermission) && empty != nil {
		if err = empty(f.path); err == nil {
			err = f.removeAll()
		}
	}
	return errors.Join(err, f.Close())
}

func (f *Folder) removeAll() (err error) {
	for range removeTries {
		if err = volume.RemoveTree(f.path); !errors.Is(err, unix.ENOTEMPTY) {
			break
		}
	}
	return err
}

// Close gives the lock back and leaves the folder.
func (f *Folder) Close() error {
	if f.lock == nil {
		return nil
	}
	err := unlock(f.lock)
	f.lock = nil
	return err
}

// unlock gives a lock up before it closes its file: closing does that only when
// the last copy of the descriptor is closed, and a process that is just being
// started by another goroutine has one until it runs its program.
func unlock(file *os.File) error {
	return errors.Join(unix.Flock(int(file.Fd()), unix.LOCK_UN), file.Close())
}
