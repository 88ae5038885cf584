// Package journal keeps the steps of a node that have begun, or wait for their
// turn, and have not come to their end, with what is known of their work, so that
// the next process goes on with them whatever this one dies of.
//
// It is a folder of the work folder with one file a step, of JSON lines: the
// step itself, then notes as the work goes on. A last line that was cut short
// does not count. The folder is not the attempts': what a step leaves on a
// volume or in Girder can be cleared away after the attempt's folder is gone.
//
// A lock sees to it that one process at a time does the steps of a node. Who has
// it may speak to another NATS than the process before, which then knows nothing
// of what that one began: an entry says whose it is, and is left alone by others.
package journal

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/transfer/internal/stage"
)

const (
	dir      = "transfer"
	stepsDir = "steps"
	lockFile = "lock"
	// lockAgain is how often a lock that another process holds is tried.
	lockAgain = 250 * time.Millisecond
)

// Journal is the node's. Each step's entry is begun, found and used by one
// goroutine at a time.
type Journal struct {
	root *os.Root // the folder of steps
	lock *os.File
	ours string // the installation that we work for, empty until that is known
}

// Open opens the journal in a work folder. While another process has it, Open
// calls waiting, once, and waits for that one's end or the context's.
func Open(ctx context.Context, workRoot string, waiting func()) (*Journal, error) {
	path := filepath.Join(workRoot, dir)
	if err := os.MkdirAll(filepath.Join(path, stepsDir), 0o700); err != nil {
		return nil, fmt.Errorf("make the journal of steps: %w", err)
	}
	lock, err := takeLock(ctx, filepath.Join(path, lockFile), waiting)
	if err != nil {
		return nil, fmt.Errorf("lock the journal of steps: %w", err)
	}
	root, err := os.OpenRoot(filepath.Join(path, stepsDir))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the journal of steps: %w", err), lock.Close())
	}
	j := &Journal{root: root, lock: lock}
	if err := j.dropUnbegun(); err != nil {
		return nil, errors.Join(fmt.Errorf("open the journal of steps: %w", err), j.Close())
	}
	return j, nil
}

// dropUnbegun removes the entries of which a process wrote less than a line.
func (j *Journal) dropUnbegun() error {
	names, err := namesIn(j.root)
	for _, name := range names {
		data, readErr := j.root.ReadFile(name)
		if readErr == nil && !bytes.Contains(data, []byte("\n")) {
			readErr = j.root.Remove(name)
		}
		err = errors.Join(err, readErr)
	}
	return err
}

func takeLock(ctx context.Context, path string, waiting func()) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	ticker := time.NewTicker(lockAgain)
	defer ticker.Stop()
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return file, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(err, file.Close())
		}
		if waiting != nil {
			waiting()
			waiting = nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), file.Close())
		case <-ticker.C:
		}
	}
}

// Close lets another process have the journal. A process that was forked this
// moment has the lock's file open until it runs its program: what frees the lock
// at once is to say so.
func (j *Journal) Close() error {
	err := unix.Flock(int(j.lock.Fd()), unix.LOCK_UN)
	return errors.Join(j.root.Close(), err, j.lock.Close())
}

// Entry is what is known of one step. Remember may be called from several
// goroutines at once, and everything else when nobody does.
type Entry struct {
	Step   *contracts.Step
	Memory stage.Memory // but for downloads that were noted since it was found
	Began  time.Time
	// Spooled says that all that a container wrote into the step's pipe is in
	// its spool: what remains is an upload like any other.
	Spooled bool

	root  *os.Root
	name  string
	notes lines
}

func nameOf(step *contracts.Step) string {
	return fmt.Sprintf("%s.%d.%s", step.Job, step.Attempt, step.Step)
}

// Drop removes the entry of a step of which nothing remains to be done, if it has one.
func (j *Journal) Drop(step *contracts.Step) error {
	if err := j.root.Remove(nameOf(step)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("drop what is noted of a step: %w", err)
	}
	return nil
}

// Steps returns the steps that have an entry, of ours. It only looks: entries may
// be written meanwhile. One whose first line was cut short is left out; nothing
// was done for it yet.
func (j *Journal) Steps() ([]*contracts.Step, error) {
	var steps []*contracts.Step
	err := j.each(func(first *firstLine) {
		if !j.isForeign(first.Installation) {
			steps = append(steps, &first.Step)
		}
	})
	return steps, err
}

func (j *Journal) each(found func(*firstLine)) error {
	names, err := namesIn(j.root)
	if err != nil {
		return fmt.Errorf("list the journal of steps: %w", err)
	}
	for _, name := range names {
		first, err := j.first(name)
		if err != nil {
			return err
		}
		if first != nil {
			found(first)
		}
	}
	return nil
}

// firstLine is what the first line of an entry says.
type firstLine struct {
	contracts.Step
	// Installation is whose step it is, empty in what an older version noted.
	Installation string `json:"installation,omitzero"`
}

// first reads the first line of an entry: nil if there is none that can be read.
func (j *Journal) first(name string) (*firstLine, error) {
	file, err := j.root.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what is noted of step %s: %w", name, err)
	}
	defer file.Close()
	line, err := bufio.NewReader(file).ReadBytes('\n')
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what is noted of step %s: %w", name, err)
	}
	first := new(firstLine)
	if json.Unmarshal(line, first) != nil || nameOf(&first.Step) != name {
		return nil, nil
	}
	return first, nil
}

// Begin returns a step's entry, made if there is none. The error is a [*Foreign]
// where one of another installation is in its place.
func (j *Journal) Begin(step *contracts.Step) (*Entry, error) {
	if err := j.Check(step); err != nil {
		return nil, err
	}
	entry, err := j.find(step)
	if entry != nil || err != nil {
		return entry, err
	}
	name := nameOf(step)
	file, err := j.root.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("note step %s: %w", name, err)
	}
	entry = &Entry{Step: step, Began: time.Now(), root: j.root, name: name, notes: lines{file: file}}
	if err := entry.write(firstLine{*step, j.ours}, nil); err != nil {
		return nil, errors.Join(err, entry.End())
	}
	return entry, nil
}

// Find returns a step's entry, or nil if it has none of ours.
func (j *Journal) Find(step *contracts.Step) (*Entry, error) {
	err := j.Check(step)
	var foreign *Foreign
	if errors.As(err, &foreign) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return j.find(step)
}

func (j *Journal) find(step *contracts.Step) (*Entry, error) {
	entry, err := j.load(nameOf(step))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if entry.Step == nil {
		return nil, entry.Close()
	}
	return entry, nil
}

// load reads an entry; its Step is nil if the process died while beginning it.
func (j *Journal) load(name string) (*Entry, error) {
	file, err := j.root.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	entry := &Entry{root: j.root, name: name, notes: lines{file: file}}
	if err := entry.read(); err != nil {
		return nil, errors.Join(fmt.Errorf("read what is noted of step %s: %w", name, err), file.Close())
	}
	return entry, nil
}

func (e *Entry) read() error {
	info, err := e.notes.file.Stat()
	if err != nil {
		return err
	}
	e.Began = info.ModTime()
	var whole int64
	for lines := bufio.NewReader(e.notes.file); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if err != nil || !e.take(line) {
			return e.notes.cut(whole) // what comes next begins a line of its own
		}
		whole += int64(len(line))
	}
}

// take takes in a line and reports whether it could be read.
func (e *Entry) take(line []byte) bool {
	if e.Step == nil {
		first := new(firstLine)
		if json.Unmarshal(line, first) != nil {
			return false
		}
		e.Step = &first.Step
		return true
	}
	var note noteLine
	if json.Unmarshal(line, &note) != nil {
		return false
	}
	e.Memory.Add(note.Note)
	e.Spooled = e.Spooled || note.Spooled
	return true
}

// noteLine is what each line but the first may say.
type noteLine struct {
	stage.Note
	Spooled bool `json:"spooled,omitzero"`
}

// RememberSpooled notes that the spool is complete.
func (e *Entry) RememberSpooled() error {
	if err := e.write(noteLine{Spooled: true}, func() { e.Spooled = true }); err != nil {
		return err
	}
	return e.sync()
}

// Remember is a [stage.Remember].
func (e *Entry) Remember(note stage.Note) error {
	take := func() { e.Memory.Add(note) }
	if note.Partial != nil {
		take = nil // of thousands, and whoever brings them knows: on disk they are for the next process
	}
	if err := e.write(note, take); err != nil {
		return err
	}
	if note.Later || note.Pending == nil && note.Begun == nil {
		return nil
	}
	// Nobody else knows what is on its way: it has to outlive the machine's crash.
	return e.sync()
}

// write adds a line. then is called when it is there, before any later line is.
func (e *Entry) write(what any, then func()) error {
	line, err := json.Marshal(what)
	if err == nil {
		err = e.notes.add(append(line, '\n'), then)
	}
	return e.about(err)
}

func (e *Entry) sync() error { return e.about(e.notes.sync()) }

func (e *Entry) about(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("note of step %s: %w", e.name, err)
}

// Close leaves the entry to whoever goes on with the step.
func (e *Entry) Close() error { return e.notes.file.Close() }

// End removes the entry: nothing of the step remains to be done.
func (e *Entry) End() error {
	err := e.root.Remove(e.name)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, e.notes.file.Close())
}
