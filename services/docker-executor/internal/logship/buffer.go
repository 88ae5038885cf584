package logship

import (
	"time"
	"unicode/utf8"
)

// buffer has what was read of one stream and is not shipped.
type buffer struct {
	data  []byte
	spans []span // which records the data is of, in order
}

// span is a run of bytes whose records have one time.
type span struct {
	time  time.Time
	bytes int
}

func (b *buffer) add(data []byte, at time.Time) {
	b.data = append(b.data, data...)
	if n := len(b.spans); n > 0 && b.spans[n-1].time.Equal(at) {
		b.spans[n-1].bytes += len(data)
		return
	}
	b.spans = append(b.spans, span{at, len(data)})
}

// after returns where a stream is that was at from, when n more bytes of the
// buffer are shipped: the time of the last record, and how many bytes of
// records with that time are.
func (b *buffer) after(from *place, n int) (at time.Time, bytes int64) {
	at, bytes = from.Time, from.At
	for _, s := range b.spans {
		if n <= 0 {
			break
		}
		if !s.time.Equal(at) {
			at, bytes = s.time, 0
		}
		bytes += int64(min(n, s.bytes))
		n -= s.bytes
	}
	return at, bytes
}

// take removes the first n bytes.
func (b *buffer) take(n int) {
	b.data = append(b.data[:0], b.data[n:]...)
	gone := 0
	for n > 0 && n >= b.spans[gone].bytes {
		n -= b.spans[gone].bytes
		gone++
	}
	b.spans = append(b.spans[:0], b.spans[gone:]...)
	if n > 0 {
		b.spans[0].bytes -= n
	}
}

// incomplete returns how many bytes at the end are the beginning of a UTF-8
// sequence whose rest may yet come.
func incomplete(b []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		c := b[len(b)-n]
		if utf8.RuneStart(c) {
			if c >= utf8.RuneSelf && !utf8.FullRune(b[len(b)-n:]) {
				return n
			}
			return 0
		}
	}
	return 0
}
