package stage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/transfer/internal/cache"
	"github.com/gantry-worker/gantry/services/transfer/internal/room"
)

// A little file of many is received in memory. It comes to the disk when all of it
// is there and is what Girder says, as a file that has no name until it gets its
// own: nothing half done is to be noted before, or to be removed after.

// linking is how a file without a name gets one.
type linking int

const (
	noLinking   linking = iota // the file system has no such files
	byItself                   // which most may do
	byProcessFS                // which wants /proc
)

// errNotHere sends a file the usual way, by a temporary name.
var errNotHere = errors.New("it cannot come at once")

var spareMemory = sync.Pool{New: func() any { return new([littleSize]byte) }}

// isLittle reports whether a file comes at once. One that an earlier run knows of,
// or the cache may have, does not.
func (s *staging) isLittle(path string, doc girder.File) bool {
	if s.linking == noLinking || doc.Size == nil || *doc.Size > littleSize || s.cached(doc) {
		return false
	}
	_, noted := s.old[NotedPath(path)]
	return !noted
}

// little brings a little file to its path, or ends with errNotHere, and the
// document of the contents that it has then.
func (s *staging) little(ctx context.Context, in *near, path string, doc girder.File) (girder.File, error) {
	id, shared := s.shared(doc)
	leave, err := s.turnOf(ctx, id, shared)
	if err != nil {
		return doc, err
	}
	defer leave()
	if shared && s.Fetches.knows(id) { // to be copied
		return doc, errNotHere
	}
	buffer := spareMemory.Get().(*[littleSize]byte)
	defer spareMemory.Put(buffer)
	d := &download{staging: s, memory: buffer[:0]}
	d.expects(doc)
	err = d.Retry.Do(ctx, func(err error, wait time.Duration) {
		if wait >= longWait {
			leave()
		}
		d.waiting(err, wait)
	}, func() (bool, error) { return d.moreOfLittle(ctx) })
	if d.doc != doc { // it got other contents meanwhile
		id, shared = s.shared(d.doc)
	}
	if err == nil {
		err = s.land(in, path, d, id, shared)
	}
	if errors.Is(err, errNotHere) {
		s.moved(d.doc.Name, -d.have, 0, d.total)
	}
	return d.doc, err
}

// moreOfLittle is more, unless the file got other contents meanwhile that are not
// little.
func (d *download) moreOfLittle(ctx context.Context) (bool, error) {
	if d.total < 0 || d.total > littleSize {
		return false, errNotHere
	}
	return d.more(ctx)
}

// land writes what was received to a file without a name, notes how it is to be
// known again, and gives it its name.
func (s *staging) land(in *near, path string, d *download, id cache.ID, shared bool) error {
	folder, err := in.fd(s.root, filepath.Dir(path))
	if err != nil {
		return err
	}
	file, err := nameless(folder)
	if err != nil {
		return errNotHere // which tells what is wrong, if anything is
	}
	err = s.landIn(folder, file, path, d)
	var now unix.Stat_t
	if err == nil && shared && unix.Fstat(file, &now) == nil {
		s.Fetches.place(id, placedAt{s.Volume, path, state{localOfStat(&now), now.Ctim.Nano()}})
	}
	if closed := unix.Close(file); err == nil && closed != nil {
		return onVolume(path, closed)
	}
	return err
}

func (s *staging) landIn(folder, file int, path string, d *download) error {
	if !isRoomFor(file, len(d.memory)) || writeAll(file, d.memory) != nil {
		return errNotHere
	}
	var is unix.Stat_t
	if err := unix.Fstat(file, &is); err != nil {
		return onVolume(path, err)
	}
	if is.Mode&^unix.S_IFMT != openMode { // whatever the umask says
		if err := unix.Fchmod(file, openMode); err != nil {
			return onVolume(path, err)
		}
	}
	local := localOfStat(&is)
	whole := Partial{
		Path: NotedPath(path), Created: d.doc.Created, Updated: d.doc.Updated, SHA512: d.doc.SHA512, Boot: boot(), Whole: &local,
	}
	d.noteWhole(whole)
	err := s.link(file, folder, filepath.Base(path))
	if errors.Is(err, unix.EEXIST) {
		err = s.replace(file, folder, whole)
	}
	if err != nil {
		return onPlace(path, err)
	}
	s.isPlaced(path)
	return nil
}

// replace puts a file in the place of another one, which takes a temporary name.
func (s *staging) replace(file, folder int, whole Partial) error {
	name := filepath.Base(string(whole.Path))
	temporary := ".gantry-" + contracts.NewToken()
	whole.Temporary = NotedPath(filepath.Join(filepath.Dir(string(whole.Path)), temporary))
	if err := s.note(Note{Partial: &whole}); err != nil {
		return err
	}
	err := s.link(file, folder, temporary)
	if err != nil {
		return err
	}
	if err := unix.Renameat(folder, temporary, folder, name); err != nil {
		return errors.Join(err, unix.Unlinkat(folder, temporary, 0))
	}
	return nil
}

// nameless makes a file in a folder that goes with its descriptor.
func nameless(folder int) (int, error) {
	return uninterrupted(func() (int, error) {
		return unix.Openat(folder, ".", unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, openMode)
	})
}

// link gives a file without a name its name.
func (s *staging) link(file, folder int, name string) error {
	return linkBy(s.linking, file, folder, name)
}

func linkBy(how linking, file, folder int, name string) error {
	if how == byItself {
		return unix.Linkat(file, "", folder, name, unix.AT_EMPTY_PATH)
	}
	return unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(file), folder, name, unix.AT_SYMLINK_FOLLOW)
}

// findLinking finds out how files without a name get one on the volume, by giving
// one this name, which nothing has.
func (s *staging) findLinking(name string) linking {
	volume, err := s.root.Open(".")
	if err != nil {
		return noLinking
	}
	defer volume.Close()
	folder := int(volume.Fd())
	file, err := nameless(folder)
	if err != nil {
		return noLinking
	}
	defer unix.Close(file)
	for _, how := range []linking{byItself, byProcessFS} {
		if linkBy(how, file, folder, name) == nil {
			return how
		}
	}
	return noLinking
}

func isRoomFor(file, size int) bool {
	disk, err := room.OnDescriptor(file)
	return err == nil && disk.Free-disk.Left >= int64(size)
}

func writeAll(file int, data []byte) error {
	for len(data) > 0 {
		n, err := uninterrupted(func() (int, error) { return unix.Write(file, data) })
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("write: %w", os.ErrInvalid)
		}
		data = data[n:]
	}
	return nil
}

func uninterrupted(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

func localOfStat(is *unix.Stat_t) Local {
	return Local{Size: is.Size, ModTime: is.Mtim.Nano(), Inode: is.Ino}
}
