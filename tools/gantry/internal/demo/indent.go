package demo

import (
	"bytes"
	"io"
)

// indent writes what it is given with a prefix before every line.
type indent struct {
	out     io.Writer
	prefix  string
	midLine bool
}

func (w *indent) Write(p []byte) (int, error) {
	var text bytes.Buffer
	for line := range bytes.Lines(p) {
		if !w.midLine {
			text.WriteString(w.prefix)
		}
		text.Write(line)
		w.midLine = !bytes.HasSuffix(line, []byte("\n"))
	}
	_, err := w.out.Write(text.Bytes())
	return len(p), err
}
