package stage

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/internal/volume"
)

// inside is what a folder of the volume has that can be uploaded, by name.
type inside struct {
	files   []output
	folders []string // paths on the volume
	size    int64    // of the files
}

// output is a file on the volume.
type output struct {
	path     string
	size     int64 // when it was listed
	foretold Local // what is noted of it before it begins, if anything is
}

// list looks what is in a folder. Symbolic links, pipes, sockets and devices
// are left out, with a warning if that is asked for.
func (s *sending) list(path string, warn bool) (found inside, err error) {
	folder, err := volume.OpenOutput(s.root, path)
	if path != s.path && errors.Is(err, os.ErrNotExist) {
		return found, about(path, ErrVanished)
	}
	if err != nil {
		return found, onVolume(path, err)
	}
	names, err := folder.Readdirnames(-1)
	if err := errors.Join(err, folder.Close()); err != nil {
		return found, onVolume(path, err)
	}
	slices.Sort(names)
	s.rename(path, names)
	for _, name := range names {
		at := filepath.Join(path, name)
		info, err := s.root.Lstat(at)
		if errors.Is(err, os.ErrNotExist) {
			return found, about(at, ErrVanished)
		}
		switch {
		case err != nil:
			return found, onVolume(at, err)
		case info.IsDir():
			found.folders = append(found.folders, at)
		case info.Mode().IsRegular():
			found.files = append(found.files, output{path: at, size: info.Size()})
			found.size += info.Size()
		case warn:
			s.warn(fmt.Sprintf("%s was not uploaded: it is %s", at, kindOf(info.Mode())))
		}
	}
	s.expect(found.size - s.measured[path])
	s.measured[path] = found.size
	return found, nil
}

// rename notes what those of a folder's names that are no UTF-8 are in Girder.
func (s *sending) rename(folder string, names []string) {
	valid := validNames(names)
	for i, name := range names {
		path := filepath.Join(folder, name)
		delete(s.names, path)
		if valid[i] == name {
			continue
		}
		if s.names == nil {
			s.names = map[string]string{}
		}
		s.names[path] = valid[i]
	}
}

// kindOf says what is no file.
func kindOf(mode os.FileMode) string {
	switch {
	case mode&os.ModeSymlink != 0:
		return "a symbolic link, which is not followed"
	case mode&os.ModeNamedPipe != 0:
		return "a named pipe"
	case mode&os.ModeSocket != 0:
		return "a socket"
	case mode&os.ModeDevice != 0:
		return "a device"
	}
	return "no file"
}

// measure adds up, by listing it, what is to be sent.
func (s *sending) measure(path string) error {
	found, err := s.list(path, false)
	if err != nil || s.isFlat() {
		return err
	}
	for _, folder := range found.folders {
		if err := s.measure(folder); err != nil {
			return err
		}
	}
	return nil
}

// tree sends a folder with all that is in it. Its folders come before its
// files: where Girder takes two names for one, a file may have another name, a
// folder may not.
func (s *sending) tree(ctx context.Context, path, name string, parent *Target) error {
	into, err := s.target(ctx, path, name, parent)
	if err != nil {
		return err
	}
	found, err := s.list(path, true)
	if err != nil {
		return err
	}
	for _, folder := range found.folders {
		if err := s.tree(ctx, folder, s.nameOf(folder), into); err != nil {
			return err
		}
	}
	return s.files(ctx, found.files, into)
}

// target is the folder of Girder for the files of a folder of the volume. It is
// made, or used again, and it is noted what was in it before.
func (s *sending) target(ctx context.Context, path, name string, parent *Target) (*Target, error) {
	if known, ok := s.Memory.Targets[NotedPath(path)]; ok {
		return &known, s.alone(known)
	}
	into := &Target{Path: NotedPath(path), ID: s.Folder}
	if parent != nil {
		err := s.Retry.Do(ctx, s.waiting, func() (bool, error) {
			folder, err := s.Sink.CreateFolder(ctx, parent.ID, name, true)
			into.ID = folder.ID
			return false, err
		})
		if err != nil {
			return nil, about(path, err)
		}
	}
	if err := s.alone(*into); err != nil {
		return nil, err
	}
	err := s.Retry.Do(ctx, s.waiting, func() (bool, error) {
		newest, err := s.Sink.NewestItems(ctx, into.ID, 0)
		if err == nil && len(newest) > 0 {
			into.Newest, into.Created = newest[0].ID, newest[0].Created
		}
		return false, err
	})
	if err != nil {
		return nil, about(path, err)
	}
	if err := s.Remember.note(Note{Target: into}); err != nil {
		return nil, fmt.Errorf("write down the folder of %s: %w", path, err)
	}
	return into, nil
}

// alone waits, where another folder of the volume has its files in the same one
// of Girder, which takes two names for one: of two files of one name and content
// on their way at once, nothing would tell which of them is there.
func (s *sending) alone(into Target) error {
	first, ok := s.targets[into.ID]
	s.targets[into.ID] = into.Path
	if !ok || first == into.Path {
		return nil
	}
	return s.settle()
}

// find looks for a file that an upload of unknown finish left in a folder: in
// one of the items that came after what was there before, of the file's name,
// size and checksum, and of no other file of ours. Another job may put files of
// the same name there.
func (s *sending) find(ctx context.Context, in Target, name string, size int64, checksum string) (*girder.File, error) {
	for offset := 0; ; offset += girder.PageSize {
		page, err := s.Sink.NewestItems(ctx, in.ID, offset)
		if err != nil {
			return nil, err
		}
		for _, item := range page {
			if older(item.Created, in.Created) || item.ID == in.Newest {
				return nil, nil
			}
			if s.isTaken(item.ID) || !isNamed(item.Name, name) {
				continue
			}
			files, err := s.Sink.FilesPage(ctx, item.ID, 0)
			if err != nil {
				return nil, err
			}
			if len(files) != 1 || files[0].Name != name || files[0].Size == nil || *files[0].Size != size {
				continue
			}
			if ours, err := s.hasContent(ctx, files[0], checksum); ours || err != nil {
				return &files[0], err
			}
		}
		if len(page) < girder.PageSize {
			return nil, nil
		}
	}
}

// hasContent reports whether a file has the contents of a checksum. Most Girders
// do not tell: to read all of it is still less than to replace what is not ours.
func (s *sending) hasContent(ctx context.Context, file girder.File, checksum string) (bool, error) {
	switch {
	case *file.Size == 0, file.SHA512 == "" && strings.ContainsAny(file.Name, unservable):
		return true, nil
	case file.SHA512 != "":
		return strings.EqualFold(file.SHA512, checksum), nil
	}
	body, err := s.Sink.DownloadFile(ctx, file.ID, 0)
	if err != nil {
		return false, err
	}
	defer body.Close()
	sum := sha512.New()
	n, err := io.Copy(sum, body)
	if err == nil && n < *file.Size {
		err = &girder.Unreachable{Method: "GET", Path: "file/" + string(file.ID) + "/download", Err: io.ErrUnexpectedEOF}
	}
	if err != nil {
		return false, err
	}
	return hex.EncodeToString(sum.Sum(nil)) == checksum, nil
}

// older compares two of Girder's times. One that cannot be read is not older.
func older(a, than string) bool {
	at, err := time.Parse(time.RFC3339Nano, a)
	limit, limitErr := time.Parse(time.RFC3339Nano, than)
	return err == nil && limitErr == nil && at.Before(limit)
}

// isNamed reports whether an item has the name that Girder gives to that of a new file.
func isNamed(item, file string) bool {
	file = strings.TrimSpace(file)
	return item == file || strings.HasPrefix(item, file+" (")
}

// before looks for a file that an earlier run, or an earlier attempt of the
// job, put into the folder for this path: it gets new contents.
func (s *sending) before(ctx context.Context, path, name string, into *Target) (*girder.File, error) {
	for _, memory := range s.memories() {
		if sent, ok := memory.Sent[NotedPath(path)]; ok {
			if file, err := s.still(ctx, sent.File.FileID, into); file != nil || err != nil {
				return file, err
			}
		}
		if old := memory.replaced(NotedPath(path)); old != "" {
			if file, err := s.still(ctx, string(old), into); file != nil || err != nil {
				return file, err
			}
		}
		in, noted := memory.Targets[into.Path]
		size, checksum, unknown := memory.unknown(NotedPath(path))
		if !noted || !unknown || in.ID != into.ID {
			continue
		}
		if file, err := s.find(ctx, in, name, size, checksum); file != nil || err != nil {
			return file, err
		}
	}
	for _, sent := range s.earlier[name] {
		if s.isTaken(girder.ItemID(sent.ItemID)) || s.isOfAnother(path, sent.FileID) {
			continue
		}
		if file, err := s.still(ctx, sent.FileID, into); file != nil || err != nil {
			return file, err
		}
	}
	return nil, nil
}

// isOfAnother reports whether a file in Girder is noted as that of another path:
// names that are no UTF-8 may be called otherwise in each attempt.
func (s *sending) isOfAnother(path, id string) bool {
	return slices.ContainsFunc(s.pathsOf[id], func(at NotedPath) bool { return string(at) != path })
}

// still returns a file, unless it is not in the folder any more.
func (s *sending) still(ctx context.Context, id string, into *Target) (*girder.File, error) {
	file, err := s.Sink.GetFile(ctx, girder.FileID(id))
	if errors.Is(err, girder.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	item, err := s.Sink.GetItem(ctx, file.ItemID)
	if errors.Is(err, girder.ErrNotFound) {
		return nil, nil
	}
	if err != nil || item.FolderID != into.ID {
		return nil, err
	}
	return &file, nil
}

// open opens a regular file and nothing else.
func open(root *os.Root, path string) (*os.File, Local, error) {
	file, err := volume.OpenOutput(root, path)
	if err != nil {
		return nil, Local{}, onVolume(path, err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = ErrNotRegular
	}
	if err != nil {
		return nil, Local{}, errors.Join(onVolume(path, err), file.Close())
	}
	return file, localOf(info), nil
}
