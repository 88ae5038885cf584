package girdersim

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// number is a float as Girder stores it. Unlike JSON it may be NaN, which is
// accepted, kept, and then makes the document unreadable.
type number float64

// MarshalText writes the number to a document on disk.
func (n number) MarshalText() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(n), 'g', -1, 64), nil
}

// UnmarshalText reads the number back.
func (n *number) UnmarshalText(text []byte) error {
	f, err := strconv.ParseFloat(string(text), 64)
	*n = number(f)
	return err
}

// encodePython writes a value the way Python's json module does: sorted keys, a
// space after separators, everything beyond ASCII escaped, floats with a point.
// An indent above zero puts every element on a line of its own.
func encodePython(value any, indent int) (string, error) {
	e := &pyEncoder{indent: indent}
	err := e.value(value, 0)
	return e.out.String(), err
}

type pyEncoder struct {
	out    strings.Builder
	indent int
}

func (e *pyEncoder) value(value any, depth int) error {
	switch v := value.(type) {
	case nil:
		e.out.WriteString("null")
	case bool:
		e.out.WriteString(strconv.FormatBool(v))
	case string:
		e.text(v)
	case int:
		e.out.WriteString(strconv.Itoa(v))
	case int64:
		e.out.WriteString(strconv.FormatInt(v, 10))
	case number:
		return e.float(float64(v))
	case json.Number:
		return e.literal(v)
	case map[string]any:
		return e.object(v, depth)
	case []any:
		return list(e, v, depth)
	case []string:
		return list(e, v, depth)
	case []int:
		return list(e, v, depth)
	case []map[string]any:
		return list(e, v, depth)
	default:
		return fmt.Errorf("encode value of type %T", value)
	}
	return nil
}

func (e *pyEncoder) literal(n json.Number) error {
	if !strings.ContainsAny(n.String(), ".eE") {
		e.out.WriteString(n.String())
		return nil
	}
	f, err := n.Float64()
	if err != nil {
		return fmt.Errorf("encode number %s: %w", n, err)
	}
	return e.float(f)
}

func (e *pyEncoder) float(f float64) error {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return fmt.Errorf("encode number %v", f)
	}
	if f == 0 || (math.Abs(f) >= 1e-4 && math.Abs(f) < 1e16) {
		text := strconv.FormatFloat(f, 'f', -1, 64)
		if !strings.Contains(text, ".") {
			text += ".0"
		}
		e.out.WriteString(text)
		return nil
	}
	e.out.WriteString(strconv.FormatFloat(f, 'e', -1, 64))
	return nil
}

func (e *pyEncoder) text(s string) {
	e.out.WriteByte('"')
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			e.ascii(c)
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r > 0xffff {
			r -= 0x10000
			fmt.Fprintf(&e.out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		} else {
			fmt.Fprintf(&e.out, `\u%04x`, r)
		}
		i += size
	}
	e.out.WriteByte('"')
}

func (e *pyEncoder) ascii(c byte) {
	switch c {
	case '"', '\\':
		e.out.WriteByte('\\')
		e.out.WriteByte(c)
	case '\n':
		e.out.WriteString(`\n`)
	case '\r':
		e.out.WriteString(`\r`)
	case '\t':
		e.out.WriteString(`\t`)
	case '\b':
		e.out.WriteString(`\b`)
	case '\f':
		e.out.WriteString(`\f`)
	default:
		if c < 0x20 {
			fmt.Fprintf(&e.out, `\u%04x`, c)
			return
		}
		e.out.WriteByte(c)
	}
}

func (e *pyEncoder) object(doc map[string]any, depth int) error {
	if len(doc) == 0 {
		e.out.WriteString("{}")
		return nil
	}
	e.out.WriteByte('{')
	for i, key := range slices.Sorted(maps.Keys(doc)) {
		e.separate(i, depth+1)
		e.text(key)
		e.out.WriteString(": ")
		if err := e.value(doc[key], depth+1); err != nil {
			return err
		}
	}
	e.newline(depth)
	e.out.WriteByte('}')
	return nil
}

func list[T any](e *pyEncoder, values []T, depth int) error {
	if len(values) == 0 {
		e.out.WriteString("[]")
		return nil
	}
	e.out.WriteByte('[')
	for i, v := range values {
		e.separate(i, depth+1)
		if err := e.value(v, depth+1); err != nil {
			return err
		}
	}
	e.newline(depth)
	e.out.WriteByte(']')
	return nil
}

func (e *pyEncoder) separate(index, depth int) {
	if index > 0 {
		e.out.WriteByte(',')
	}
	if e.indent > 0 {
		e.newline(depth)
	} else if index > 0 {
		e.out.WriteByte(' ')
	}
}

func (e *pyEncoder) newline(depth int) {
	if e.indent > 0 {
		e.out.WriteByte('\n')
		e.out.WriteString(strings.Repeat(" ", e.indent*depth))
	}
}
