package logship

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// spoolFiles are the names of the spools in an attempt's folder.
var spoolFiles = [...]string{"log.stdout", "log.stderr", "log.parsed"}

// Spools are the files of an attempt's folder that its executor writes for the
// log, beside what the engine has. They hold whatever the disk does, so writing
// to them waits neither for NATS nor for the shipper. They are for many
// goroutines.
type Spools struct {
	dir   string
	grown chan struct{}

	mu     sync.Mutex
	files  [len(spoolFiles)]*os.File
	sizes  [len(spoolFiles)]int64
	closed bool
}

// OpenSpools opens the spools of an attempt's folder, with what a former owner
// wrote to them. A file is made as soon as there is something to write.
func OpenSpools(dir string) (*Spools, error) {
	s := &Spools{dir: dir, grown: make(chan struct{}, 1)}
	for i, name := range spoolFiles {
		info, err := os.Stat(filepath.Join(dir, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, fmt.Errorf("open spool of log: %w", err)
		default:
			s.sizes[i] = info.Size()
		}
	}
	return s, nil
}

// Append writes to a spool, and returns how much of data is in it then, also
// with an error, as that of a full disk.
func (s *Spools) Append(to Source, data []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := to.spool()
	file, err := s.open(i)
	if err != nil {
		return 0, fmt.Errorf("spool log: %w", err)
	}
	n, err := file.Write(data)
	s.sizes[i] += int64(n)
	select {
	case s.grown <- struct{}{}:
	default:
	}
	if err != nil {
		err = fmt.Errorf("spool log: %w", err)
	}
	return n, err
}

// open returns a spool's file; the lock is held.
func (s *Spools) open(i int) (*os.File, error) {
	if s.closed {
		return nil, fs.ErrClosed
	}
	if s.files[i] != nil {
		return s.files[i], nil
	}
	file, err := os.OpenFile(filepath.Join(s.dir, spoolFiles[i]), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	s.files[i] = file
	return file, nil
}

// Size returns how many bytes a spool has.
func (s *Spools) Size(of Source) int64 {
	if s == nil {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sizes[of.spool()]
}

// read fills buf from a place in a spool.
func (s *Spools) read(from Source, at int64, buf []byte) error {
	s.mu.Lock()
	file, err := s.open(from.spool())
	s.mu.Unlock()
	if err == nil {
		_, err = file.ReadAt(buf, at)
	}
	if err != nil {
		return fmt.Errorf("read spool of log: %w", err)
	}
	return nil
}

// Close closes the files, which stay.
func (s *Spools) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var errs []error
	for i, file := range s.files {
		if file != nil {
			errs = append(errs, file.Close())
			s.files[i] = nil
		}
	}
	return errors.Join(errs...)
}
