package stage

import (
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"os"
)

// content reads a file's chunks, also again, and hashes each byte once: the
// first time that it is read, which is in order.
type content struct {
	file   *os.File
	sum    hash.Hash
	hashed int64
	err    error // the disk's, which net/http would pass off as the network's
}

func newContent(file *os.File) *content { return &content{file: file, sum: sha512.New()} }

// chunk reads length bytes from offset and tells of each how far it is.
func (c *content) chunk(offset, length int64, moved func(int64)) io.Reader {
	return &chunk{content: c, at: offset, end: offset + length, moved: moved}
}

// checksum is that of what was hashed: of the file, after hashTo its size.
func (c *content) checksum() string { return hex.EncodeToString(c.sum.Sum(nil)) }

// hashTo hashes what comes before an offset without anybody reading it.
func (c *content) hashTo(offset int64) error {
	if c.hashed >= offset {
		return nil
	}
	n, err := io.Copy(c.sum, io.NewSectionReader(c.file, c.hashed, offset-c.hashed))
	c.hashed += n
	if err == nil && c.hashed < offset {
		err = ErrChanged
	}
	if err != nil {
		c.err = err
	}
	return err
}

type chunk struct {
	content *content
	at, end int64
	moved   func(int64)
}

// Read is called by one goroutine of the transport at a time. A new chunk is
// read only after the request of the one before has ended.
func (k *chunk) Read(p []byte) (int, error) {
	if k.at == k.end {
		return 0, io.EOF
	}
	n, err := k.content.file.ReadAt(p[:min(int64(len(p)), k.end-k.at)], k.at)
	k.content.hash(p[:n], k.at)
	k.at += int64(n)
	k.moved(k.at)
	if n > 0 {
		return n, nil // an error comes back with the next read
	}
	if errors.Is(err, io.EOF) {
		err = ErrChanged
	}
	k.content.err = err
	return 0, err
}

func (c *content) hash(p []byte, at int64) {
	if behind := c.hashed - at; behind >= 0 && behind < int64(len(p)) {
		c.sum.Write(p[behind:])
		c.hashed += int64(len(p)) - behind
	}
}
