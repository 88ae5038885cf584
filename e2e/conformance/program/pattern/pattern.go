// Package pattern has streams of which every byte is known, for whoever writes
// them and for whoever checks what arrived.
package pattern

import (
	"fmt"
	"io"
)

// Lines is a stream of numbered lines, cut off after so many bytes.
func Lines(size int64) io.Reader { return io.LimitReader(&lines{}, size) }

type lines struct {
	next int
	rest []byte
}

func (l *lines) Read(b []byte) (int, error) {
	n := 0
	for n < len(b) {
		if len(l.rest) == 0 {
			l.rest = fmt.Appendf(l.rest[:0], "%010d the quick brown fox jumps over the lazy dog — and äöü\n", l.next)
			l.next++
		}
		copied := copy(b[n:], l.rest)
		l.rest = l.rest[copied:]
		n += copied
	}
	return n, nil
}

// Line is one line of so many bytes, of which the last one ends it.
func Line(size int64) io.Reader {
	return io.MultiReader(io.LimitReader(&letters{}, size-1), io.LimitReader(newline{}, 1))
}

type letters struct{ at int }

func (l *letters) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte('a' + l.at%26)
		l.at = (l.at + 1) % (26 * 1009)
	}
	return len(b), nil
}

type newline struct{}

func (newline) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = '\n'
	}
	return len(b), nil
}
