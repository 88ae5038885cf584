package girdersim

import (
	"crypto/sha512"
	"encoding"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// byteStore keeps the bytes of files, named by their SHA-512, and of unfinished
// uploads, named by the upload.
type byteStore struct {
	dir       string
	temporary bool // remove everything at the end
}

func openByteStore(dir string) (*byteStore, error) {
	return &byteStore{dir: dir}, os.MkdirAll(filepath.Join(dir, "temp"), 0o700)
}

func (b *byteStore) close() error {
	if !b.temporary {
		return nil
	}
	return os.RemoveAll(b.dir)
}

func (b *byteStore) tempPath(uploadID string) string { return filepath.Join(b.dir, "temp", uploadID) }

// publicPath is the place of a file's bytes as Girder's messages name it.
func publicPath(sum string) string { return "/assetstore/" + sum[:2] + "/" + sum[2:4] + "/" + sum }

func (b *byteStore) path(sum string) string {
	return filepath.Join(b.dir, sum[:2], sum[2:4], sum)
}

// create makes the file of an upload that gets no bytes; others come with theirs.
func (b *byteStore) create(uploadID string) error {
	f, err := os.OpenFile(b.tempPath(uploadID), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// write puts up to limit bytes of an upload at offset, in place of whatever a
// broken attempt left there, and hashes them on the way. It ends without an
// error where the source breaks off, as Girder does: what did arrive may count.
func (b *byteStore) write(uploadID string, offset int64, source io.Reader, limit int64, sum hash.Hash) (int64, error) {
	f, err := os.OpenFile(b.tempPath(uploadID), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	if err := f.Truncate(offset); err != nil {
		return 0, errors.Join(err, f.Close())
	}
	to := &noted{to: io.MultiWriter(f, sum)}
	buffer := buffers.Get().(*[copySize]byte)
	defer buffers.Put(buffer)
	n, err := io.CopyBuffer(to, io.LimitReader(source, limit), buffer[:])
	if to.err == nil {
		err = nil // the source's
	}
	return n, errors.Join(err, f.Close())
}

// copySize is how much of an upload is read and written at a time.
const copySize = 256 << 10

var buffers = sync.Pool{New: func() any { return new([copySize]byte) }}

// noted remembers the error of its writer, to tell it from a reader's.
type noted struct {
	to  io.Writer
	err error
}

func (n *noted) Write(p []byte) (int, error) {
	count, err := n.to.Write(p)
	if err != nil {
		n.err = err
	}
	return count, err
}

func (b *byteStore) truncate(uploadID string, size int64) error {
	return os.Truncate(b.tempPath(uploadID), size)
}

// received is the number of bytes of an upload that are on disk.
func (b *byteStore) received(uploadID string) (int64, error) {
	info, err := os.Stat(b.tempPath(uploadID))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// hashFrom continues a hash with the bytes of an upload from offset on.
func (b *byteStore) hashFrom(uploadID string, offset int64, sum hash.Hash) error {
	f, err := os.Open(b.tempPath(uploadID))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return err
	}
	_, err = io.Copy(sum, f)
	return err
}

// keep turns the bytes of an upload into those of a file.
func (b *byteStore) keep(uploadID, sum string) error {
	if err := os.MkdirAll(filepath.Dir(b.path(sum)), 0o700); err != nil {
		return err
	}
	return os.Rename(b.tempPath(uploadID), b.path(sum))
}

func (b *byteStore) open(sum string) (*os.File, error) { return os.Open(b.path(sum)) }

func (b *byteStore) remove(sum string) error { return ignoreMissing(os.Remove(b.path(sum))) }

func (b *byteStore) discard(uploadID string) error {
	return ignoreMissing(os.Remove(b.tempPath(uploadID)))
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// hashState is the state of a SHA-512 between two chunks.
type hashState []byte

func newHashState() (hashState, error) { return saveHash(sha512.New()) }

func saveHash(h hash.Hash) (hashState, error) { return h.(encoding.BinaryMarshaler).MarshalBinary() }

func (s hashState) restore() (hash.Hash, error) {
	h := sha512.New()
	if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(s); err != nil {
		return nil, fmt.Errorf("restore hash: %w", err)
	}
	return h, nil
}

func (s hashState) sum() (string, error) {
	h, err := s.restore()
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
