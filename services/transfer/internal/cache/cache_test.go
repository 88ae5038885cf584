package cache

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

func openAt(t *testing.T, folder string, limit int64) *Cache {
	t.Helper()
	c, err := Open(folder, limit, zerolog.New(zerolog.NewTestWriter(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reopen(t, c, "", 0) })
	return c
}

// reopen closes a cache, which brings all of it to the disk, and opens it as
// the next process does, unless there is none.
func reopen(t *testing.T, c *Cache, folder string, limit int64) *Cache {
	t.Helper()
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if !closed {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if folder == "" {
		return nil
	}
	return openAt(t, folder, limit)
}

func keyOf(name string, size int) Key {
	return Key{Girder: "https://girder.example.org/api/v1", File: name, Size: int64(size), Created: "then", Updated: "now"}
}

// keep puts a file into the cache and returns its key.
func keep(t *testing.T, c *Cache, name string, content []byte) Key {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	key := keyOf(name, len(content))
	c.Keep(t.Context(), key, file)
	return key
}

// found returns what the cache has of a key.
func found(t *testing.T, c *Cache, key Key) (string, bool) {
	t.Helper()
	file := c.Find(key)
	if file == nil {
		return "", false
	}
	defer file.Close()
	data, err := io.ReadAll(file)
	if err != nil {
		t.Error(err)
	}
	return string(data), true
}

func names(t *testing.T, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, entry := range entries {
		all = append(all, entry.Name())
	}
	return all
}

func TestAFileIsFoundByItsWholeKey(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "a", "cache")
	c := openAt(t, folder, 1<<20)
	key := keep(t, c, "f", []byte("content"))
	for range 2 { // also by the next process
		if got, ok := found(t, c, key); got != "content" || !ok {
			t.Fatal(got, ok)
		}
		for _, change := range []func(*Key){
			func(k *Key) { k.Girder = "https://other" }, func(k *Key) { k.File = "g" }, func(k *Key) { k.Size++ },
			func(k *Key) { k.Created = "" }, func(k *Key) { k.Updated = "" }, func(k *Key) { k.SHA512 = "x" },
			func(k *Key) { k.Created, k.Updated = "then now", "" },
		} {
			other := key
			change(&other)
			if got, ok := found(t, c, other); ok {
				t.Errorf("%+v has %q", other, got)
			}
		}
		c = reopen(t, c, folder, 1<<20)
	}
	for path, want := range map[string]os.FileMode{folder: os.ModeDir | 0o700, filepath.Join(folder, names(t, folder)[0]): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s has the mode %v, %v", path, info.Mode(), err)
		}
	}
}

// TestAnEntryIsNobodyElses: what is written where a file came from, or where it
// went to, is not in the cache.
func TestAnEntryIsNobodyElses(t *testing.T) {
	t.Parallel()
	c := openAt(t, t.TempDir(), 1<<20)
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	key := keyOf("f", 7)
	c.Keep(t.Context(), key, file)
	if _, err := file.WriteAt([]byte("CHANGED"), 0); err != nil {
		t.Fatal(err)
	}
	if got, _ := found(t, c, key); got != "content" {
		t.Errorf("found %q", got)
	}
	from := c.Find(key)
	defer from.Close()
	if err := Copy(t.Context(), file, from, 7, nil); err != nil {
		t.Fatal(err)
	}
	folder := c.root.Name()
	reopen(t, c, "", 0) // until then it gives its files their names
	for _, name := range names(t, folder) {
		info, err := os.Stat(filepath.Join(folder, name))
		if err != nil || info.Sys().(*syscall.Stat_t).Nlink != 1 {
			t.Error("an entry has another name somewhere", err)
		}
	}
}

func TestWhatWasNotUsedForLongestGoesFirst(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	c := openAt(t, folder, 30)
	first, second, third := keep(t, c, "1", make([]byte, 10)), keep(t, c, "2", make([]byte, 10)), keep(t, c, "3", make([]byte, 10))
	if _, ok := found(t, c, first); !ok {
		t.Fatal("not kept")
	}
	fourth := keep(t, c, "4", make([]byte, 10))
	for key, want := range map[Key]bool{first: true, second: false, third: true, fourth: true} {
		if _, ok := found(t, c, key); ok != want {
			t.Errorf("%s is there: %v", key.File, ok)
		}
	}
	// The next process knows the order, and its limit may be another one.
	c = reopen(t, c, folder, 30)
	c.mu.Lock()
	for i, key := range []Key{fourth, first, third} {
		e := c.entries[key.ID()].Value.(*entry)
		at := time.Now().Add(-time.Duration(i) * time.Hour)
		if err := c.root.Chtimes(e.name(), at, time.Unix(e.modTime, 0)); err != nil {
			t.Error(err)
		}
	}
	c.mu.Unlock()
	c = reopen(t, c, folder, 20)
	for key, want := range map[Key]bool{first: true, third: false, fourth: true} {
		if _, ok := found(t, c, key); ok != want {
			t.Errorf("%s is there: %v", key.File, ok)
		}
	}
	keep(t, c, "too large", make([]byte, 21))
	if _, ok := found(t, c, first); !ok || c.size != 20 {
		t.Error("what does not fit has pushed others out", c.size)
	}
	if n := len(names(t, folder)); n != 2 {
		t.Errorf("%d files", n)
	}
}

// TestWhatIsNoEntryIsDropped: by the next process, and when it is asked for.
func TestWhatIsNoEntryIsDropped(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(path string, made time.Time) error{
		"shorter": func(path string, made time.Time) error { return os.Truncate(path, 3) },
		"longer":  func(path string, made time.Time) error { return os.Truncate(path, 30) },
		"same size, shorter before": func(path string, made time.Time) error {
			if err := os.Truncate(path, 3); err != nil {
				return err
			}
			return os.Truncate(path, 7)
		},
		"other time": func(path string, made time.Time) error { return os.Chtimes(path, made, made.Add(time.Second)) },
		"gone":       func(path string, made time.Time) error { return os.Remove(path) },
		"folder": func(path string, made time.Time) error {
			if err := os.Remove(path); err != nil {
				return err
			}
			return os.Mkdir(path, 0o700)
		},
		"pipe": func(path string, made time.Time) error {
			if err := os.Remove(path); err != nil {
				return err
			}
			return syscall.Mkfifo(path, 0o600)
		},
		"link": func(path string, made time.Time) error {
			if err := os.Rename(path, path+"-x"); err != nil {
				return err
			}
			return os.Symlink(filepath.Base(path)+"-x", path)
		},
	} {
		for _, restart := range []bool{true, false} {
			folder := t.TempDir()
			c := openAt(t, folder, 1<<20)
			key := keep(t, c, "f", []byte("content"))
			c = reopen(t, c, folder, 1<<20)
			path := filepath.Join(folder, names(t, folder)[0])
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := spoil(path, info.ModTime()); err != nil {
				t.Fatal(err)
			}
			if restart {
				c = reopen(t, c, folder, 1<<20)
				if left := names(t, folder); len(left) != 0 {
					t.Errorf("%s: %v stays", name, left)
				}
			}
			if got, ok := found(t, c, key); ok {
				t.Errorf("%s: found %q", name, got)
			}
			if name != "folder" || restart {
				key = keep(t, c, "f", []byte("content"))
				if got, _ := found(t, c, key); got != "content" {
					t.Errorf("%s: then found %q", name, got)
				}
			}
			reopen(t, c, "", 0)
		}
	}
}

// TestWhatADeadProcessLeftIsRemoved: at any moment before an entry has its name.
func TestWhatADeadProcessLeftIsRemoved(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	c := openAt(t, folder, 1<<20)
	key := keep(t, c, "f", []byte("content"))
	c = reopen(t, c, folder, 1<<20)
	whole := names(t, folder)[0]
	for _, name := range []string{unsettled + "x", "lost+found", whole + "x", "0" + whole, strings.ToUpper(whole), "a-1-1"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte("cont"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(folder, "folder", "deep"), 0o700); err != nil {
		t.Fatal(err)
	}
	c = reopen(t, c, folder, 1<<20)
	if left := names(t, folder); len(left) != 1 || left[0] != whole {
		t.Errorf("%v stays", left)
	}
	if got, _ := found(t, c, key); got != "content" {
		t.Errorf("found %q", got)
	}
}

func TestOff(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "cache")
	c := openAt(t, folder, 1<<20)
	key := keep(t, c, "f", []byte("content"))
	reopen(t, c, "", 0)
	off, err := Open(folder, 0, zerolog.Nop())
	if err != nil || off != nil {
		t.Fatal(off, err)
	}
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("what was kept stays: %v", err)
	}
	keep(t, off, "f", []byte("content"))
	if _, ok := found(t, off, key); ok || off.GiveWay(nil, 1) || off.Close() != nil {
		t.Error("what is off does something")
	}
}

// TestABrokenCacheHasNothing, and is no reason to fail.
func TestABrokenCacheHasNothing(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "cache")
	c := openAt(t, folder, 1<<20)
	key := keep(t, c, "f", []byte("content"))
	c = reopen(t, c, folder, 1<<20)
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	if _, ok := found(t, c, key); ok {
		t.Error("found what is gone")
	}
	keep(t, c, "g", []byte("content"))
	if c.size != 0 || len(c.entries) != 0 {
		t.Errorf("%d bytes in %d entries", c.size, len(c.entries))
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file, 1, zerolog.Nop()); err == nil {
		t.Error("a file is no folder")
	}
}

// TestAFullDisk: the cache is bounded by its disk too, and gives way to others.
func TestAFullDisk(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("cannot mount a small disk here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil { // another test may just fork, with what is open there
			t.Error(err)
		}
	})
	c := openAt(t, filepath.Join(disk, "cache"), 1<<30)
	var keys []Key
	for i := range 5 {
		keys = append(keys, keep(t, c, fmt.Sprint(i), bytes.Repeat([]byte{byte(i)}, 256<<10)))
	}
	there := func() (n int) {
		for _, key := range keys {
			if _, ok := found(t, c, key); ok {
				n++
			}
		}
		return n
	}
	if _, ok := found(t, c, keys[4]); there() != 3 || !ok || c.size != 3*256<<10 {
		t.Fatalf("%d files, %d bytes", there(), c.size)
	}
	elsewhere, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	if c.GiveWay(elsewhere, 1) || there() != 3 {
		t.Error("gave way on another disk")
	}
	file, err := os.Create(filepath.Join(disk, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if c.GiveWay(file, 3*256<<10+1) || there() != 3 {
		t.Error("was emptied for nothing")
	}
	if !c.GiveWay(file, 1) || there() != 2 {
		t.Errorf("%d are there, not 2", there())
	}
	if !c.GiveWay(file, 256<<10+1) || there() != 0 {
		t.Errorf("%d are there, not none", there())
	}
	if c.GiveWay(file, 1) || c.size != 0 {
		t.Error("gave what it has not", c.size)
	}
}

// TestManyAtOnce uses one cache from all sides, more than it can hold.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	c := openAt(t, folder, 500)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 40 {
				name := fmt.Sprint((i + j) % 60)
				content := bytes.Repeat([]byte(name+" "), 7)
				key := keep(t, c, name, content)
				if got, ok := found(t, c, key); ok && got != string(content) {
					t.Errorf("%s has %q", name, got)
				}
			}
		})
	}
	all.Wait()
	var sum int64
	for _, at := range c.entries {
		sum += at.Value.(*entry).size
	}
	if c.size > 500 || c.size != sum || c.size == 0 {
		t.Errorf("%d bytes are %d", c.size, sum)
	}
	kept := len(c.entries)
	c = reopen(t, c, folder, 500)
	if len(c.entries) != kept || c.size != sum || len(names(t, folder)) != kept {
		t.Errorf("%d of %d entries come back, %d bytes, %d files", len(c.entries), kept, c.size, len(names(t, folder)))
	}
	if key := keep(t, c, "one more", []byte("x")); c.Find(key) == nil {
		t.Error("nothing is kept after that")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(strings.Repeat("0a", 32) + "-12-1700000000")
	f.Add(strings.Repeat("0a", 32) + "--12-+1")
	f.Add("0a-1-1")
	f.Fuzz(func(t *testing.T, name string) {
		if e, ok := parse(name); ok && e.name() != name {
			t.Errorf("%q is %q", name, e.name())
		}
	})
}
