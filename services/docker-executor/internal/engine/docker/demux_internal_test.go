package docker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

const stamp = "2026-01-02T03:04:05.000000006Z "

func block(kind byte, text string) string {
	header := make([]byte, 8)
	header[0] = kind
	binary.BigEndian.PutUint32(header[4:], uint32(len(text)))
	return string(header) + text
}

func TestDemux(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	for name, test := range map[string]struct {
		in   string
		want []engine.Frame
		err  string
	}{
		"empty":     {in: ""},
		"both":      {in: block(1, stamp+"a b\n") + block(2, stamp+"\xff"), want: []engine.Frame{{Stream: engine.Stdout, Time: at, Data: []byte("a b\n")}, {Stream: engine.Stderr, Time: at, Data: []byte("\xff")}}},
		"no data":   {in: block(1, stamp), want: []engine.Frame{{Stream: engine.Stdout, Time: at, Data: []byte{}}}},
		"cut":       {in: block(1, stamp+"abc")[:20], err: "unexpected EOF"},
		"cut head":  {in: block(1, stamp)[:5], err: "unexpected EOF"},
		"complaint": {in: block(3, "Error grabbing logs: bad\n"), err: "Error grabbing logs: bad"},
		"no stream": {in: block(7, stamp), err: "unknown stream 7"},
		"no time":   {in: block(1, "text without"), err: "without a time"},
		"huge":      {in: "\x01\x00\x00\x00\xff\xff\xff\xff", err: "not a log stream"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []engine.Frame
			err := demux(strings.NewReader(test.in), func(f engine.Frame) error {
				f.Data = bytes.Clone(f.Data)
				got = append(got, f)
				return nil
			})
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("error %v, want %q", err, test.err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("frames (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDemuxStopsWithItsTaker(t *testing.T) {
	t.Parallel()
	enough := errors.New("enough")
	calls := 0
	err := demux(strings.NewReader(block(1, stamp+"a")+block(1, stamp+"b")), func(engine.Frame) error { calls++; return enough })
	if !errors.Is(err, enough) || calls != 1 {
		t.Errorf("error %v after %d calls", err, calls)
	}
}

func FuzzDemux(f *testing.F) {
	f.Add([]byte(block(1, stamp+"a\n") + block(2, stamp+"b")))
	f.Add([]byte(block(3, "x")))
	f.Add([]byte(block(1, stamp)[:8]))
	f.Fuzz(func(t *testing.T, in []byte) {
		taken := 0
		err := demux(bytes.NewReader(in), func(fr engine.Frame) error {
			taken += blockHeader + len(fr.Data)
			return nil
		})
		if taken > len(in) {
			t.Errorf("%d bytes came out of %d", taken, len(in))
		}
		if err == nil && len(in) > 0 && taken == 0 {
			t.Error("bytes were dropped without an error")
		}
		if errors.Is(err, io.EOF) {
			t.Error("the end was handed on as an error")
		}
	})
}

// pieces hands out a stream in reads of given sizes, over and over.
type pieces struct {
	rest  []byte
	sizes []byte
	reads int
}

func (p *pieces) Read(to []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	size := len(p.rest)
	if len(p.sizes) > 0 {
		size = int(p.sizes[p.reads%len(p.sizes)]) + 1
		p.reads++
	}
	n := copy(to, p.rest[:min(size, len(p.rest))])
	p.rest = p.rest[n:]
	return n, nil
}

// FuzzDemuxBorders: where a read begins and ends, amid a header or with several
// records in it, changes nothing of what comes out. Each byte of kinds is one
// record, whose length is that byte's share of text.
func FuzzDemuxBorders(f *testing.F) {
	f.Add([]byte{9}, "one record", []byte{})               // in one read
	f.Add([]byte{9}, "one record", []byte{0})              // a byte at a time
	f.Add([]byte{9}, "one record", []byte{2, 4})           // a header in two reads
	f.Add([]byte{3, 6, 0, 7}, "many at once", []byte{255}) // several in one
	f.Add([]byte{255, 254, 1}, strings.Repeat("\xff\n", 200), []byte{7, 0, 90})
	f.Fuzz(func(t *testing.T, kinds []byte, text string, sizes []byte) {
		var stream strings.Builder
		var want []string
		for _, kind := range kinds {
			record := text[:min(int(kind), len(text))]
			text = text[len(record):]
			stream.WriteString(block(1+kind%2, stamp+record))
			want = append(want, engine.Stream(1+kind%2).String()+" "+record)
		}
		var got []string
		err := demux(&pieces{rest: []byte(stream.String()), sizes: sizes}, func(fr engine.Frame) error {
			got = append(got, fr.Stream.String()+" "+string(fr.Data))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("records (-want +got):\n%s", diff)
		}
	})
}

func TestNewlinesRestored(t *testing.T) {
	t.Parallel()
	first, second := time.Unix(1, 0), time.Unix(2, 0)
	full := strings.Repeat("x", fullPart)
	in := []engine.Frame{
		{Stream: engine.Stdout, Time: first, Data: []byte("short\n")},
		{Stream: engine.Stdout, Time: first, Data: []byte(full)},
		{Stream: engine.Stderr, Time: first, Data: []byte("other")}, // its end, without a newline
		{Stream: engine.Stdout, Time: first, Data: []byte(full)},
		{Stream: engine.Stdout, Time: first, Data: []byte("rest")},
		{Stream: engine.Stdout, Time: second, Data: []byte(full)},
		{Stream: engine.Stdout, Time: second, Data: []byte("")},
		{Stream: engine.Stdout, Time: second, Data: []byte("end")},
	}
	var lines newlines
	var got string
	for _, f := range in {
		got += string(lines.restore(f).Data)
	}
	if want := "short\n" + full + "other" + full + "rest\n" + full + "\nend"; got != want {
		t.Errorf("%d bytes, want %d", len(got), len(want))
	}
}

func TestCoversEnd(t *testing.T) {
	t.Parallel()
	frame := func(s engine.Stream, sec int64) engine.Frame { return engine.Frame{Stream: s, Time: time.Unix(sec, 0)} }
	pos := engine.Position{
		Stdout: engine.Mark{Time: time.Unix(10, 0), Records: 3},
		Stderr: engine.Mark{Time: time.Unix(5, 0), Records: 1},
	}
	for name, test := range map[string]struct {
		tail []engine.Frame
		want bool
	}{
		"begins with one that was taken":  {[]engine.Frame{frame(engine.Stdout, 9), frame(engine.Stdout, 10), frame(engine.Stderr, 11)}, true},
		"begins amid those of the mark":   {[]engine.Frame{frame(engine.Stdout, 10), frame(engine.Stdout, 11)}, false},
		"the other stream begins amid":    {[]engine.Frame{frame(engine.Stdout, 9), frame(engine.Stderr, 5)}, false},
		"nothing in it was surely taken":  {[]engine.Frame{frame(engine.Stdout, 11), frame(engine.Stderr, 12)}, false},
		"a stream that is new in it only": {[]engine.Frame{frame(engine.Stdout, 8), frame(engine.Stderr, 9)}, true},
	} {
		if got := coversEnd(test.tail, pos); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
