package stage

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"

	"github.com/gantry-worker/gantry/services/transfer/internal/cache"
	"github.com/gantry-worker/gantry/services/transfer/internal/room"
)

// A large file is received, written and hashed at the same time, by way of so
// many buffers. One that fits into one of them is not worth it, and gets less.
const (
	pieceSize  = 128 << 10
	pieces     = 4
	littleSize = 32 << 10
	writeBack  = 8 << 20 // bytes that the disk is asked for at a time
)

// piece is some bytes on their way.
type piece struct {
	room [pieceSize]byte
	n    int
}

var (
	spare       = sync.Pool{New: func() any { return new(piece) }}
	spareLittle = sync.Pool{New: func() any { return new([littleSize]byte) }}
)

// pump takes all that comes to the disk.
func (d *download) pump(body io.Reader) error {
	if d.total >= 0 && d.total-d.have <= pieceSize {
		return d.pumpLittle(body)
	}
	var (
		free    = make(chan *piece, pieces)
		full    = make(chan *piece, pieces)
		written = make(chan *piece, pieces)
		working sync.WaitGroup
		failed  = make(chan struct{})
		failure error
	)
	for range pieces {
		free <- spare.Get().(*piece)
	}
	working.Go(func() {
		defer close(written)
		for p := range full {
			if failure == nil {
				if failure = d.write(p.room[:p.n]); failure != nil {
					close(failed)
				}
			}
			written <- p
		}
	})
	working.Go(func() {
		for p := range written {
			d.hash(p.room[:p.n])
			free <- p
		}
	})
	err := receive(body, free, full, failed)
	close(full)
	working.Wait()
	for range pieces {
		spare.Put(<-free)
	}
	if failure != nil {
		return failure
	}
	return err
}

// pumpLittle takes what fits into one piece, and whatever comes behind it.
func (d *download) pumpLittle(body io.Reader) error {
	p := spareLittle.Get().(*[littleSize]byte)
	defer spareLittle.Put(p)
	for {
		n, err := body.Read(p[:])
		if err := d.write(p[:n]); err != nil {
			return err
		}
		d.hash(p[:n])
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// receive fills the pieces that are free, until everything has come or nobody
// wants more. A piece is handed on half empty where nobody else has any.
func receive(body io.Reader, free, full chan *piece, failed <-chan struct{}) error {
	for {
		var p *piece
		select {
		case p = <-free:
		case <-failed:
			return nil
		}
		var err error
		for p.n = 0; err == nil && p.n < pieceSize; {
			var n int
			n, err = body.Read(p.room[p.n:])
			p.n += n
			if n > 0 && len(free) == pieces-1 {
				break
			}
		}
		full <- p
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// write takes bytes to the disk.
func (d *download) write(p []byte) error {
	if d.total >= 0 && d.have+int64(len(p)) > d.total {
		return fmt.Errorf("%w: more than %d", ErrIncomplete, d.total)
	}
	if d.file == nil {
		d.memory = append(d.memory, p...)
		d.have += int64(len(p))
		d.moved(d.doc.Name, int64(len(p)), d.have, d.total)
		return nil
	}
	n, err := d.file.Write(p)
	d.have += int64(n)
	if d.have-d.asked >= writeBack {
		cache.WriteBack(d.file, d.asked, d.have-d.asked)
		d.asked = d.have
	}
	d.moved(d.doc.Name, int64(n), d.have, d.total)
	if errors.Is(err, syscall.ENOSPC) {
		return d.full()
	}
	return onVolume(d.doc.Name, err)
}

// full says how full the disk is that others were faster to fill.
func (d *download) full() error {
	disk, err := room.On(d.file)
	if err != nil || d.total < 0 {
		return fmt.Errorf("%w %s", ErrNoSpace, d.Volume)
	}
	return fmt.Errorf("%w %s: %w", ErrNoSpace, d.Volume, &room.Short{Need: d.total - d.have, Disk: disk})
}

func (d *download) hash(p []byte) {
	if d.sum != nil {
		d.sum.Write(p)
	}
}
