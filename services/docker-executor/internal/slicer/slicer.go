// Package slicer takes the progress out of what a Slicer command line program
// writes to its standard output:
//
//	<filter-start>
//	<filter-name>Median</filter-name>
//	<filter-comment> removes noise </filter-comment>
//	</filter-start>
//	<filter-progress>0.25</filter-progress>
//	<filter-end><filter-name>Median</filter-name><filter-time>3</filter-time></filter-end>
//
// These elements, each with the white space after it, are progress; everything
// else is text and goes on as it is. What comes out depends on the bytes alone
// and not on how they are cut, so the same output read once more gives the same
// text.
package slicer

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/pipe"
)

// maxElement is the longest element, with its tags; a longer one is text.
const maxElement = 64 << 10

// element is a kind of element that is taken out.
type element struct {
	open, shut []byte
	block      bool // it has elements in it; the others end with the next "<"
}

func newElement(name string, block bool) *element {
	return &element{open: []byte("<filter-" + name + ">"), shut: []byte("</filter-" + name + ">"), block: block}
}

var (
	progress = newElement("progress", false)
	name     = newElement("name", false)
	comment  = newElement("comment", false)

	elements = []*element{
		newElement("start", true), newElement("end", true),
		newElement("time", false), newElement("stage-progress", false), progress, name, comment,
	}
)

// Filter takes output and hands on its text and its progress. It is used by one
// goroutine.
type Filter struct {
	text   io.Writer
	update func(pipe.State)

	out     []byte   // text of the current Write
	held    []byte   // what may be an element, from its "<" on
	element *element // which one; nil as long as its tag is not complete
	shut    int      // how much of its end tag is held, unless it is a block
	skip    bool     // white space after an element

	name, comment string
	ignored       int
}

// NewFilter returns a filter that writes text to text and hands the progress
// after each filter-progress to update: total 1, the number as current, and as
// message the last comment, else the last name, else "Unknown".
func NewFilter(text io.Writer, update func(pipe.State)) *Filter {
	return &Filter{text: text, update: update}
}

// Write takes the next bytes, cut anywhere. An error is the text writer's;
// nothing can be written after it.
func (f *Filter) Write(data []byte) (int, error) {
	f.scan(data)
	return len(data), f.flush()
}

// End hands on an element that did not end, as text.
func (f *Filter) End() error {
	f.isText()
	return f.flush()
}

// Ignored returns how many progress elements held no number.
func (f *Filter) Ignored() int { return f.ignored }

func (f *Filter) flush() error {
	if len(f.out) == 0 {
		return nil
	}
	_, err := f.text.Write(f.out)
	f.out = f.out[:0]
	if err != nil {
		return fmt.Errorf("write text of standard output: %w", err)
	}
	return nil
}

func (f *Filter) scan(data []byte) {
	for len(data) > 0 {
		switch {
		case len(f.held) == 0:
			data = data[f.inText(data):]
		case f.element == nil:
			data = data[f.inTag(data[0]):]
		case len(f.held) == maxElement:
			f.isText()
		case f.element.block:
			data = data[f.inBlock(data):]
		case f.shut == 0:
			data = data[f.inContent(data):]
		default:
			data = data[f.inShut(data[0]):]
		}
	}
	if len(f.held) == maxElement {
		f.isText()
	}
}

// isText hands on all that is held as text.
func (f *Filter) isText() {
	f.out = append(f.out, f.held...)
	f.held, f.element, f.shut = f.held[:0], nil, 0
}

// Each function below takes some of the data and returns how much. None may be
// taken only where less is held than before.

// inText takes text up to what may be an element.
func (f *Filter) inText(data []byte) int {
	if f.skip {
		if spaces := len(data) - len(bytes.TrimLeft(data, " \t\n\v\f\r")); spaces > 0 {
			return spaces
		}
		f.skip = false
	}
	n := bytes.IndexByte(data, '<')
	switch n {
	case 0:
		f.held = append(f.held, '<')
		return 1
	case -1:
		n = len(data)
	}
	f.out = append(f.out, data[:n]...)
	return n
}

// inTag takes the next byte of what may be a start tag.
func (f *Filter) inTag(b byte) int {
	f.held = append(f.held, b)
	for _, e := range elements {
		if !bytes.HasPrefix(e.open, f.held) {
			continue
		}
		if len(e.open) == len(f.held) {
			f.element = e
		}
		return 1
	}
	f.held = f.held[:len(f.held)-1]
	f.isText()
	return 0
}

// inContent takes content up to what may be the end tag.
func (f *Filter) inContent(data []byte) int {
	n := bytes.IndexByte(data, '<')
	if n == 0 {
		f.held, f.shut = append(f.held, '<'), 1
		return 1
	}
	if n < 0 {
		n = len(data)
	}
	n = min(n, maxElement-len(f.held))
	f.held = append(f.held, data[:n]...)
	return n
}

// inShut takes the next byte of what may be the end tag.
func (f *Filter) inShut(b byte) int {
	if b == f.element.shut[f.shut] {
		f.held, f.shut = append(f.held, b), f.shut+1
		if f.shut == len(f.element.shut) {
			f.complete()
		}
		return 1
	}
	if f.shut > 1 { // "</" begins nothing else
		f.isText()
		return 0
	}
	f.held = f.held[:len(f.held)-1] // this "<" may begin another element
	f.isText()
	f.held = append(f.held, '<')
	return 0
}

// inBlock takes data up to the end of the block.
func (f *Filter) inBlock(data []byte) int {
	before := len(f.held)
	f.held = append(f.held, data[:min(len(data), maxElement-before)]...)
	from := max(len(f.element.open), before-len(f.element.shut)+1)
	if at := bytes.Index(f.held[from:], f.element.shut); at >= 0 {
		f.held = f.held[:from+at+len(f.element.shut)]
		taken := len(f.held) - before
		f.complete()
		return taken
	}
	return len(f.held) - before
}

// complete acts on the element that is held.
func (f *Filter) complete() {
	content := f.held[len(f.element.open) : len(f.held)-len(f.element.shut)]
	switch {
	case f.element.block:
		inner := &Filter{update: f.update, name: f.name, comment: f.comment}
		inner.scan(content)
		f.name, f.comment, f.ignored = inner.name, inner.comment, f.ignored+inner.ignored
	case f.element == name:
		f.name = value(content)
	case f.element == comment:
		f.comment = value(content)
	case f.element == progress:
		f.progress(value(content))
	}
	f.held, f.element, f.shut, f.skip = f.held[:0], nil, 0, true
}

func (f *Filter) progress(text string) {
	current, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(current) || math.IsInf(current, 0) {
		f.ignored++
		return
	}
	total, message := 1.0, "Unknown"
	switch {
	case f.comment != "":
		message = f.comment
	case f.name != "":
		message = f.name
	}
	f.update(pipe.State{Message: &message, Total: &total, Current: &current})
}

// value returns what an element's content means.
func value(content []byte) string {
	return strings.ToValidUTF8(strings.TrimSpace(unescape(string(content))), "\uFFFD")
}
