package logship

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// indexFile is the name of the index in an attempt's folder.
const indexFile = "log.index"

// maxIndex is the size at which the older half of an index is summed up.
const maxIndex = 4 << 20

// entry is one line of the index: a piece of the log, noted before it is
// published.
type entry struct {
	Seq    uint64 `json:"seq"`
	Source Source `json:"stream"`
	Bytes  int    `json:"bytes"`
	// Time is that of the piece: for one of the engine's that of the last record
	// in it, and At is then how many bytes of the stream's records with exactly
	// that time are in this piece and those before.
	Time time.Time `json:"time"`
	At   int64     `json:"at,omitzero"`
	// Waiting is the time of the oldest record of the engine's other stream that no
	// piece had taken up yet.
	Waiting time.Time `json:"waiting,omitzero"`
	// Back says that a record was older than the one before it on its stream, so
	// that times are no places any more.
	Back bool `json:"back,omitempty"`
}

// header is the first line of the index.
type header struct {
	Version int    `json:"version"`
	Sum     totals `json:"sum"` // of all pieces that have no line any more
}

// index is the file that the pieces are noted in.
type index struct {
	path string
	max  int64
	file *os.File
	size int64
}

// openIndex opens or makes an index. It returns the sum of the pieces that have
// no line of their own, and the pieces that have one. What is not whole at the
// end was being written when its author died, and is cut off: its piece was
// never published. half is used for a new index only.
func openIndex(dir string, half, limit int64) (*index, totals, []entry, error) {
	x := &index{path: filepath.Join(dir, indexFile), max: limit}
	data, err := os.ReadFile(x.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, totals{}, nil, err
	}
	sum, entries, whole := parse(data)
	if whole == 0 { // new, or torn in its first line
		sum = newTotals(half)
		if err := x.replace(sum, nil); err != nil {
			return nil, totals{}, nil, err
		}
		return x, sum, nil, nil
	}
	if x.file, err = os.OpenFile(x.path, os.O_WRONLY|os.O_APPEND, 0); err != nil {
		return nil, totals{}, nil, err
	}
	x.size = int64(whole)
	if err := x.file.Truncate(x.size); err != nil {
		return nil, totals{}, nil, errors.Join(err, x.file.Close())
	}
	return x, sum, entries, nil
}

// parse reads an index up to the first line that is not whole or does not
// belong there, and returns how many bytes that is.
func parse(data []byte) (sum totals, entries []entry, whole int) {
	line, rest, complete := bytes.Cut(data, []byte{'\n'})
	var head header
	if !complete || json.Unmarshal(line, &head) != nil || head.Version != 1 {
		return totals{}, nil, 0
	}
	next := head.Sum.Seq + 1
	for {
		whole = len(data) - len(rest)
		if line, rest, complete = bytes.Cut(rest, []byte{'\n'}); !complete {
			return head.Sum, entries, whole
		}
		var e entry
		if json.Unmarshal(line, &e) != nil || e.Seq != next || e.Bytes <= 0 || !e.Source.known() {
			return head.Sum, entries, whole
		}
		entries = append(entries, e)
		next++
	}
}

// add notes a piece.
func (x *index) add(e entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	n, err := x.file.Write(append(line, '\n'))
	x.size += int64(n)
	if err != nil || x.size <= x.max {
		return err
	}
	return x.shorten()
}

// shorten sums up the older half of the index in its header.
func (x *index) shorten() error {
	data, err := os.ReadFile(x.path)
	if err != nil {
		return err
	}
	sum, entries, _ := parse(data)
	old := len(entries) / 2
	for _, e := range entries[:old] {
		sum.add(e)
	}
	return x.replace(sum, entries[old:])
}

// replace writes the index anew, in one step.
func (x *index) replace(sum totals, entries []entry) error {
	temporary := x.path + ".new"
	file, err := os.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	size, err := write(file, sum, entries)
	if err == nil {
		err = os.Rename(temporary, x.path)
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	if x.file != nil {
		err = x.file.Close()
	}
	x.file, x.size = file, size
	return err
}

func write(to io.Writer, sum totals, entries []entry) (int64, error) {
	counted := &counter{}
	out := bufio.NewWriter(io.MultiWriter(to, counted))
	lines := json.NewEncoder(out)
	err := lines.Encode(header{Version: 1, Sum: sum})
	for _, e := range entries {
		err = errors.Join(err, lines.Encode(e))
	}
	return counted.n, errors.Join(err, out.Flush())
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

func (x *index) close() error {
	if x.file == nil {
		return nil
	}
	err := x.file.Close()
	x.file = nil
	if err != nil {
		return fmt.Errorf("close index of log: %w", err)
	}
	return nil
}
