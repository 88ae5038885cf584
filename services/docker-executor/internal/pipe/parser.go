package pipe

import (
	"bytes"
	"encoding/json"
)

// maxLine is the longest line that is read; a longer one is skipped.
const maxLine = 64 << 10

// State is all that a container has said about its progress so far. What it
// never said is nil.
type State struct {
	Message *string
	Total   *float64
	Current *float64
}

// Parser reads progress lines: each a JSON object with any of message (string),
// total and current (numbers); null leaves a value as it was. Everything else,
// and every line over 64 KiB, is ignored and counted.
type Parser struct {
	update  func(State)
	state   State
	line    []byte // what came of a line so far
	skip    bool   // the rest of this line is too much
	ignored int
}

// NewParser returns a parser that hands the state after each valid line to
// update.
func NewParser(update func(State)) *Parser { return &Parser{update: update} }

// Write takes the next bytes, cut anywhere. It never fails.
func (p *Parser) Write(data []byte) (int, error) {
	n := len(data)
	for {
		part, rest, complete := bytes.Cut(data, []byte{'\n'})
		p.add(part)
		if !complete {
			return n, nil
		}
		p.End()
		data = rest
	}
}

func (p *Parser) add(part []byte) {
	if p.skip || len(p.line)+len(part) > maxLine {
		p.line, p.skip = p.line[:0], true
		return
	}
	p.line = append(p.line, part...)
}

// End takes what is there as a line: the last one may lack its newline.
func (p *Parser) End() {
	line, skipped := bytes.TrimSpace(p.line), p.skip
	p.line, p.skip = p.line[:0], false
	switch {
	case skipped:
		p.ignored++
	case len(line) == 0:
	case p.merge(line):
		p.update(p.state)
	default:
		p.ignored++
	}
}

// Ignored returns how many lines were ignored; empty ones do not count.
func (p *Parser) Ignored() int { return p.ignored }

// merge takes a line into the state, all of it or nothing.
func (p *Parser) merge(line []byte) bool {
	var fields map[string]json.RawMessage // field names are compared exactly
	if err := json.Unmarshal(line, &fields); err != nil || fields == nil {
		return false
	}
	next := p.state
	ok := take(fields["message"], &next.Message) &&
		take(fields["total"], &next.Total) &&
		take(fields["current"], &next.Current)
	if ok {
		p.state = next
	}
	return ok
}

// take decodes a field into *to. JSON knows neither NaN nor infinity, and a
// number that no float64 holds is an error.
func take[T any](field json.RawMessage, to **T) bool {
	if field == nil || string(field) == "null" {
		return true
	}
	value := new(T)
	if err := json.Unmarshal(field, value); err != nil {
		return false
	}
	*to = value
	return true
}
