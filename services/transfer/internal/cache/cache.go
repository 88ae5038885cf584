// Package cache keeps files of Girder on a node for other tasks, in a folder
// of its own, bounded by size: what was not used for the longest time goes
// first. Who may have a file is asked of Girder before, not here.
//
// An entry is one file, named for its [Key], size and time. It gets that name
// once all of it is on the disk, so what a process leaves that dies is found by
// the next one and removed. One that is not as its name says is dropped. When it
// was last used is its access time, which is set and outlives the process.
//
// Nothing outside is a hard link to an entry: a container may write to what is
// on its volume.
//
// A cache that does not work is one without entries: it never fails what uses
// it. A nil [Cache] is off.
package cache

import (
	"cmp"
	"container/list"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/transfer/internal/room"
)

// Cache is the node's. Its methods may be called at the same time.
type Cache struct {
	root  *os.Root
	limit int64
	log   zerolog.Logger

	mu      sync.Mutex
	entries map[ID]*list.Element
	order   *list.List // of *entry, the last used first
	size    int64      // of the entries, and of what is on its way there
	fresh   []*entry   // not known to be on the disk yet
	closed  bool

	wake    chan struct{} // has one when something is fresh; closed by Close
	settled chan struct{} // closed when nothing is settled any more
}

// entry is a file in the cache.
type entry struct {
	id        ID
	temporary string // its name until it is settled, then empty
	size      int64
	modTime   int64 // in seconds, which every file system keeps
}

// mostEntries bounds what is known of them in memory.
const mostEntries = 50_000

// unsettled is what the names of files begin with that are not known to be whole on the disk.
const unsettled = ".new-"

// Open opens the cache in a folder, which is made, and keeps at most so many
// bytes in it. With a limit of 0 it is off, and what it had is removed.
func Open(folder string, limit int64, log zerolog.Logger) (*Cache, error) {
	if limit <= 0 {
		if err := os.RemoveAll(folder); err != nil {
			return nil, fmt.Errorf("remove the cache: %w", err)
		}
		return nil, nil
	}
	err := os.MkdirAll(folder, 0o700)
	if err == nil {
		err = os.Chmod(folder, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("make the cache: %w", err)
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, fmt.Errorf("open the cache: %w", err)
	}
	c := &Cache{
		root: root, limit: limit, log: log, entries: map[ID]*list.Element{}, order: list.New(),
		wake: make(chan struct{}, 1), settled: make(chan struct{}),
	}
	if err := c.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("read the cache: %w", err), root.Close())
	}
	go c.settle()
	return c, nil
}

// Close returns when all that was kept is on the disk. Nothing is found or kept after.
func (c *Cache) Close() error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	c.closed = true
	close(c.wake)
	c.mu.Unlock()
	<-c.settled
	return c.root.Close()
}

// load finds the entries of earlier processes and removes everything else.
func (c *Cache) load() error {
	folder, err := c.root.Open(".")
	if err != nil {
		return err
	}
	names, err := folder.Readdirnames(-1)
	if err := errors.Join(err, folder.Close()); err != nil {
		return err
	}
	type used struct {
		*entry
		at time.Time
	}
	var found []used
	for _, name := range names {
		e, ok := parse(name)
		info, err := c.root.Lstat(name)
		if !ok || err != nil || !e.is(info) {
			if err := c.root.RemoveAll(name); err != nil {
				c.log.Warn().Err(err).Msg("what is no entry of the cache stays in its folder")
			}
			continue
		}
		found = append(found, used{e, accessed(info)})
	}
	slices.SortFunc(found, func(a, b used) int { return cmp.Or(b.at.Compare(a.at), cmp.Compare(a.name(), b.name())) })
	for _, e := range found {
		c.entries[e.id] = c.order.PushBack(e.entry)
		c.size += e.size
	}
	c.evict(0)
	c.log.Info().Int("files", c.order.Len()).Int64("bytes", c.size).Int64("limit", c.limit).Msg("cache opened")
	return nil
}

// name is what the entry's file is called.
func (e *entry) name() string {
	if e.temporary != "" {
		return e.temporary
	}
	return fmt.Sprintf("%s-%d-%d", hex.EncodeToString(e.id[:]), e.size, e.modTime)
}

// parse reads the name of a settled entry.
func parse(name string) (*entry, bool) {
	parts := strings.Split(name, "-")
	if len(parts) != 3 {
		return nil, false
	}
	e := new(entry)
	raw, err := hex.DecodeString(parts[0])
	size, sizeErr := strconv.ParseInt(parts[1], 10, 64)
	seconds, timeErr := strconv.ParseInt(parts[2], 10, 64)
	if len(raw) != len(e.id) || errors.Join(err, sizeErr, timeErr) != nil {
		return nil, false
	}
	e.size, e.modTime = size, seconds
	copy(e.id[:], raw)
	return e, e.name() == name
}

// is reports whether a file is as the entry was when it was made.
func (e *entry) is(info os.FileInfo) bool {
	return info.Mode().IsRegular() && info.Size() == e.size && info.ModTime().Equal(time.Unix(e.modTime, 0))
}

// Find opens a file, or returns nil. The caller closes it, and gets all of it
// even if the entry goes meanwhile.
func (c *Cache) Find(key Key) *os.File {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.entries[key.ID()]
	if !ok || c.closed {
		return nil
	}
	e := at.Value.(*entry)
	file, err := c.open(e)
	if err != nil {
		c.log.Warn().Err(err).Str("file", key.File).Msg("an entry of the cache is of no use, dropped")
		c.drop(at)
		return nil
	}
	c.order.MoveToFront(at)
	if err := c.root.Chtimes(e.name(), time.Now(), time.Unix(e.modTime, 0)); err != nil {
		c.log.Debug().Err(err).Msg("not noted that an entry of the cache was used")
	}
	return file
}

// errOther means that an entry is not the file any more that was kept.
var errOther = errors.New("it was changed")

func (c *Cache) open(e *entry) (*os.File, error) {
	info, err := c.root.Lstat(e.name())
	if err != nil {
		return nil, err
	}
	if !e.is(info) {
		return nil, errOther
	}
	return c.root.OpenFile(e.name(), os.O_RDONLY|unix.O_NONBLOCK, 0)
}

// Takes reports whether a file of that size may be kept.
func (c *Cache) Takes(size int64) bool { return c != nil && size <= c.limit }

// Keep takes in a complete file that was checked, which nobody writes to until
// Keep returns. Whether it worked is nobody's need.
func (c *Cache) Keep(ctx context.Context, key Key, from *os.File) {
	if !c.Takes(key.Size) {
		return
	}
	e := &entry{id: key.ID(), size: key.Size, temporary: unsettled + contracts.NewToken()}
	if !c.begin(e) {
		return
	}
	err := c.fill(ctx, e, from)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && c.closed {
		err = os.ErrClosed
	}
	if err != nil {
		c.size -= e.size
		_ = c.root.Remove(e.name()) // it may never have been made; the next process looks again
		c.log.Warn().Err(err).Str("file", key.File).Msg("a file was not kept in the cache")
		return
	}
	if at, ok := c.entries[e.id]; ok { // somebody was faster
		c.drop(at)
	}
	c.entries[e.id] = c.order.PushFront(e)
	c.fresh = append(c.fresh, e)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// begin makes room within the limit, unless the file is there.
func (c *Cache) begin(e *entry) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.entries[e.id]; ok || c.closed {
		return false
	}
	c.evict(e.size)
	if c.size+e.size > c.limit { // others are on their way
		return false
	}
	c.size += e.size
	return true
}

// fill makes the file of an entry.
func (c *Cache) fill(ctx context.Context, e *entry, from *os.File) (err error) {
	file, err := c.root.OpenFile(e.name(), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if !Clone(file, from) {
		if err := c.reserve(file, e.size); err != nil {
			return err
		}
		if err := Copy(ctx, file, from, e.size, nil); err != nil {
			return err
		}
	}
	e.modTime = time.Now().Unix()
	if err := c.root.Chtimes(e.name(), time.Now(), time.Unix(e.modTime, 0)); err != nil {
		return err
	}
	info, err := file.Stat()
	if err == nil && !e.is(info) {
		err = errOther
	}
	return err
}

func (c *Cache) reserve(file *os.File, size int64) error {
	err := room.Reserve(file, size)
	var short *room.Short
	if errors.As(err, &short) && c.GiveWay(file, short.Missing()) {
		return room.Reserve(file, size)
	}
	return err
}

// evict drops what was not used for the longest time until so much more may come.
func (c *Cache) evict(size int64) {
	for last := c.order.Back(); last != nil && (c.size+size > c.limit || len(c.entries) >= mostEntries); last = c.order.Back() {
		c.drop(last)
	}
}

// drop removes an entry.
func (c *Cache) drop(at *list.Element) {
	e := at.Value.(*entry)
	c.order.Remove(at)
	delete(c.entries, e.id)
	c.size -= e.size
	if err := c.root.Remove(e.name()); err != nil && !errors.Is(err, os.ErrNotExist) {
		c.log.Warn().Err(err).Msg("an entry of the cache cannot be removed")
	}
}

// GiveWay makes room for so much more on the disk that a file is on, if the
// cache is on that disk, and reports whether it did. It gives nothing where all
// of it would not be enough: nobody empties it with a file that has no room anyway.
func (c *Cache) GiveWay(file *os.File, need int64) bool {
	if c == nil {
		return false
	}
	disk, err := deviceOf(file.Stat())
	own, ownErr := deviceOf(c.root.Stat("."))
	if err != nil || ownErr != nil || disk != own {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if need > c.size {
		return false
	}
	gave := int64(0)
	for last := c.order.Back(); last != nil && gave < need; last = c.order.Back() {
		gave += last.Value.(*entry).size
		c.drop(last)
	}
	c.log.Info().Int64("bytes", gave).Msg("the disk is short, the cache gave way")
	return gave >= need
}
