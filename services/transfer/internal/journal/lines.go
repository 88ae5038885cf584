package journal

import (
	"errors"
	"os"
	"sync"
)

// lines is a file of lines that several goroutines add to. Those who want theirs
// to be on disk at the same time are served by one sync.
type lines struct {
	file *os.File

	mu      sync.Mutex
	size    int64 // of the whole lines
	synced  int64 // of it, what a crash of the machine leaves
	broken  error // why nothing can be relied on any more
	flushed chan struct{}
}

// cut makes size the length of the file.
func (l *lines) cut(size int64) error {
	if err := l.file.Truncate(size); err != nil {
		return err
	}
	_, err := l.file.Seek(size, 0)
	l.size = size
	return err
}

// add adds a line and then calls then, unless that is nil. Of a line that could
// not be written whole nothing stays: it would hide all that come after it.
func (l *lines) add(line []byte, then func()) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken != nil {
		return l.broken
	}
	if _, err := l.file.Write(line); err != nil {
		l.broken = l.cut(l.size)
		return errors.Join(err, l.broken)
	}
	l.size += int64(len(line))
	if then != nil {
		then()
	}
	return nil
}

// sync returns when all lines that were added before are on disk.
func (l *lines) sync() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for upTo := l.size; l.synced < upTo; {
		if l.broken != nil {
			return l.broken
		}
		if other := l.flushed; other != nil {
			l.mu.Unlock()
			<-other
			l.mu.Lock()
			continue
		}
		l.flush()
	}
	return nil
}

// flush syncs what is there, without the lock, for all who wait.
func (l *lines) flush() {
	upTo := l.size
	l.flushed = make(chan struct{})
	l.mu.Unlock()
	err := l.file.Sync()
	l.mu.Lock()
	close(l.flushed)
	l.flushed = nil
	if err != nil { // the system forgets which pages it lost, and the next sync would find nothing wrong
		l.broken = err
		return
	}
	l.synced = upTo
}
