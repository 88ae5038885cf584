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
// first time that it is read, which is in order. What is read to be sent is
// hashed by a goroutine beside, so that a fast network does not wait for it.
//
// One goroutine at a time uses it.
type content struct {
	file   *os.File
	size   int64
	sum    hash.Hash
	hashed int64   // all before it is hashed, or on its way there
	beside *hasher // nil: nothing is on its way
	err    error   // the disk's, which net/http would pass off as the network's
}

func newContent(file *os.File, size int64) *content {
	return &content{file: file, size: size, sum: sha512.New()}
}

// close ends the goroutine, when all that was read is hashed. The next byte to be
// hashed begins another one.
func (c *content) close() {
	if c.beside != nil {
		c.beside.close()
		c.beside = nil
	}
}

// restart forgets what was read.
func (c *content) restart() {
	c.close()
	*c = *newContent(c.file, c.size)
}

// chunk reads length bytes from offset and tells of each how far it is.
func (c *content) chunk(offset, length int64, moved func(int64)) io.Reader {
	return &chunk{content: c, at: offset, end: offset + length, moved: moved}
}

// checksum is that of what was hashed: of the file, after hashTo its size.
func (c *content) checksum() string {
	c.close()
	return hex.EncodeToString(c.sum.Sum(nil))
}

// hashTo hashes what comes before an offset without anybody reading it.
func (c *content) hashTo(offset int64) error {
	if c.hashed >= offset {
		return nil
	}
	c.close()
	buffer := make([]byte, min(blockSize, offset-c.hashed))
	n, err := io.CopyBuffer(c.sum, io.NewSectionReader(c.file, c.hashed, offset-c.hashed), buffer)
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
	behind := c.hashed - at
	if behind < 0 || behind >= int64(len(p)) {
		return
	}
	c.hashed += int64(len(p)) - behind
	if c.size <= besides {
		c.sum.Write(p[behind:])
		return
	}
	if c.beside == nil {
		c.beside = startHasher(c.sum)
	}
	c.beside.write(p[behind:])
}

const (
	// What is on its way to be hashed, at most.
	blockSize = 128 << 10
	blocks    = 4
	// besides is the size from which on a goroutine is worth its while.
	besides = 2 * blockSize
)

// hasher hashes beside whoever writes.
type hasher struct {
	free chan []byte
	full chan []byte
	at   []byte // being filled
	done chan struct{}
}

func startHasher(sum hash.Hash) *hasher {
	h := &hasher{free: make(chan []byte, blocks), full: make(chan []byte, blocks), done: make(chan struct{})}
	for range blocks {
		h.free <- nil // made when it is needed
	}
	go func() {
		defer close(h.done)
		for block := range h.full {
			sum.Write(block)
			h.free <- block[:0]
		}
	}()
	return h
}

func (h *hasher) write(p []byte) {
	for len(p) > 0 {
		if h.at == nil {
			h.at = <-h.free
			if h.at == nil {
				h.at = make([]byte, 0, blockSize)
			}
		}
		n := min(len(p), cap(h.at)-len(h.at))
		h.at = append(h.at, p[:n]...)
		if p = p[n:]; len(h.at) == cap(h.at) {
			h.full <- h.at
			h.at = nil
		}
	}
}

// close returns when all is hashed.
func (h *hasher) close() {
	if len(h.at) > 0 {
		h.full <- h.at
	}
	close(h.full)
	<-h.done
}
