package cache

import (
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// oneByOne is how many files are brought to the disk each by itself; for more
// the whole file system is asked once.
const oneByOne = 16

// settle brings what was kept to the disk and gives it its name, until Close.
func (c *Cache) settle() {
	defer close(c.settled)
	for open := true; open; {
		_, open = <-c.wake
		for batch := c.take(); len(batch) > 0; batch = c.take() {
			if err := c.sync(batch); err != nil {
				c.log.Warn().Err(err).Msg("files stay in the cache for the life of this process only")
				continue
			}
			c.name(batch)
		}
	}
}

func (c *Cache) take() []*entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	batch := c.fresh
	c.fresh = nil
	return batch
}

func (c *Cache) sync(batch []*entry) error {
	if len(batch) > oneByOne {
		return c.syncWith(".", unix.Syncfs)
	}
	for _, e := range batch {
		if err := c.syncWith(e.temporary, unix.Fsync); err != nil && !errors.Is(err, os.ErrNotExist) { // dropped meanwhile
			return err
		}
	}
	return nil
}

func (c *Cache) syncWith(name string, sync func(fd int) error) error {
	file, err := c.root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(sync(int(file.Fd())), file.Close())
}

// name gives those of the files their names that are entries still.
func (c *Cache) name(batch []*entry) {
	for _, e := range batch {
		if err := c.nameOne(e); err != nil {
			c.log.Warn().Err(err).Msg("a file stays in the cache for the life of this process only")
		}
	}
	if err := c.syncWith(".", unix.Fsync); err != nil {
		c.log.Warn().Err(err).Msg("names in the cache may be lost if the machine stops")
	}
}

func (c *Cache) nameOne(e *entry) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.entries[e.id]
	if !ok || at.Value.(*entry) != e {
		return nil
	}
	temporary := e.temporary
	e.temporary = ""
	err := c.root.Rename(temporary, e.name())
	if err != nil {
		e.temporary = temporary
	}
	return err
}

func accessed(info os.FileInfo) time.Time {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(stat.Atim.Unix())
	}
	return info.ModTime()
}

func deviceOf(info os.FileInfo, err error) (uint64, error) {
	if err != nil {
		return 0, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	return uint64(stat.Dev), nil
}
