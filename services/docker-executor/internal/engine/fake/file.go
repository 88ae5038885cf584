package fake

import (
	"context"
	"os"
)

// openFile is a file or a pipe whose reading and writing end when the container
// is killed.
type openFile struct {
	*os.File
	undo func() bool
}

// Close closes the file, which a kill may have done already.
func (f *openFile) Close() error {
	if !f.undo() {
		return nil
	}
	return f.File.Close()
}

// open opens a file on the host. A pipe waits for its other end, until the
// container is killed: then that end is opened here for a moment.
func (p *process) open(host string, flag int) (*openFile, error) {
	opened := make(chan struct{})
	var f *os.File
	var err error
	go func() {
		defer close(opened)
		f, err = os.OpenFile(host, flag, 0o666)
	}()
	select {
	case <-opened:
	case <-p.c.killed.Done():
		if other, otherErr := os.OpenFile(host, os.O_RDWR, 0); otherErr == nil {
			defer other.Close() //nolint:errcheck // opened only to release the one who waits
		}
		<-opened
	}
	if err != nil {
		return nil, err
	}
	undo := context.AfterFunc(p.c.killed, func() { _ = f.Close() })
	return &openFile{File: f, undo: undo}, nil
}
