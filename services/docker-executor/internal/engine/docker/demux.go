package docker

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// The engine sends one block per log record: one byte for the stream, three
// zeros, the length as four bytes, then the time, a space and the record.
const (
	blockHeader = 8
	blockStdout = 1
	blockStderr = 2
	blockError  = 3 // the engine's own complaint, in the middle of the log

	// maxBlock is far more than a record can have; more is no log stream.
	maxBlock = 16 << 20
)

// demux takes a log stream apart into frames. Their data is valid until take
// returns. A stream that breaks off inside a block is io.ErrUnexpectedEOF, and
// that block is not handed out.
func demux(stream io.Reader, take func(engine.Frame) error) error {
	in := bufio.NewReaderSize(stream, 64<<10)
	var header [blockHeader]byte
	var block []byte
	for {
		if _, err := io.ReadFull(in, header[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		size := binary.BigEndian.Uint32(header[4:])
		if size > maxBlock {
			return fmt.Errorf("log record of %d bytes: not a log stream", size)
		}
		if int(size) >= cap(block) {
			block = make([]byte, size, size+1) // room for a newline that the engine lost
		}
		block = block[:size]
		if _, err := io.ReadFull(in, block); errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF // right behind a header is amid a block, too
		} else if err != nil {
			return err
		}
		frame, err := parseBlock(header[0], block)
		if err != nil {
			return err
		}
		if err := take(frame); err != nil {
			return err
		}
	}
}

func parseBlock(kind byte, block []byte) (engine.Frame, error) {
	var stream engine.Stream
	switch kind {
	case blockStdout:
		stream = engine.Stdout
	case blockStderr:
		stream = engine.Stderr
	case blockError:
		return engine.Frame{}, fmt.Errorf("the engine cannot read the log: %s", bytes.TrimSpace(block))
	default:
		return engine.Frame{}, fmt.Errorf("log record of unknown stream %d", kind)
	}
	stamp, data, found := bytes.Cut(block, []byte{' '})
	if !found {
		return engine.Frame{}, errors.New("log record without a time")
	}
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return engine.Frame{}, fmt.Errorf("log record without a time: %w", err)
	}
	return engine.Frame{Stream: stream, Time: at, Data: data}, nil
}
