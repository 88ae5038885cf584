package contracts

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Duration is a length of time, on the wire a string such as "90s".
type Duration time.Duration

// MarshalText writes the duration as Go does, "1m30s".
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what time.ParseDuration reads; negative values are refused.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil || parsed < 0 {
		return fmt.Errorf("%q is not a duration such as \"90s\" or \"12h\"", text)
	}
	*d = Duration(parsed)
	return nil
}

// UnmarshalJSONFrom reads text; a number is refused, as it does not say of what.
func (d *Duration) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	value, err := dec.ReadValue()
	if err != nil {
		return err
	}
	var text *string
	if json.Unmarshal(value, &text) != nil {
		return fmt.Errorf("%s is not a duration such as \"90s\" or \"12h\"", value)
	}
	if text == nil {
		*d = 0
		return nil
	}
	return d.UnmarshalText([]byte(*text))
}

// ByteSize is a number of bytes, on the wire a number or text such as "512m"
// (docker-py's form: b, k, m, g, t, powers of 1024).
type ByteSize int64

// UnmarshalJSONFrom reads a number of bytes or docker-py's text form.
func (b *ByteSize) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	token, err := dec.ReadToken()
	if err != nil {
		return err
	}
	switch token.Kind() {
	case '0', '"':
		size, err := units.RAMInBytes(token.String())
		if err != nil || size < 0 {
			return fmt.Errorf("%q is not a size such as 536870912 or \"512m\"", token.String())
		}
		*b = ByteSize(size)
		return nil
	default:
		return errors.New(`must be a number of bytes or text such as "512m"`)
	}
}

// Text is a string that may be written as a number: docker-py stringifies it.
type Text string

// UnmarshalJSONFrom reads a string or a number.
func (t *Text) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	token, err := dec.ReadToken()
	if err != nil {
		return err
	}
	if kind := token.Kind(); kind != '"' && kind != '0' {
		return errors.New("must be a string or a number")
	}
	*t = Text(token.String())
	return nil
}

// Environment holds environment variables, on the wire an object or a list of
// "NAME=value". A variable with an empty name is refused.
type Environment map[string]Text

// UnmarshalJSONFrom reads an object or a list.
func (e *Environment) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	env := map[string]Text{}
	switch dec.PeekKind() {
	case '{':
		if err := json.UnmarshalDecode(dec, &env); err != nil {
			return err
		}
	case '[':
		var list []string
		if err := json.UnmarshalDecode(dec, &list); err != nil {
			return err
		}
		for _, pair := range list {
			name, value, _ := strings.Cut(pair, "=")
			env[name] = Text(value)
		}
	default:
		return errors.New(`must be an object or a list of "NAME=value"`)
	}
	for name := range env {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return fmt.Errorf("%q is not the name of an environment variable", name)
		}
	}
	*e = env
	return nil
}

// Command is a program with its arguments, on the wire a list or one string
// that is split as a shell splits words.
type Command []string

// UnmarshalJSONFrom reads a list of strings or one string.
func (c *Command) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() == '[' {
		var list []string
		if err := json.UnmarshalDecode(dec, &list); err != nil {
			return err
		}
		*c = list
		return nil
	}
	token, err := dec.ReadToken()
	if err != nil {
		return err
	}
	if token.Kind() != '"' {
		return errors.New("must be a string or a list of strings")
	}
	words, err := splitWords(token.String())
	if err != nil {
		return fmt.Errorf("%q cannot be split into words: %w", token.String(), err)
	}
	*c = words
	return nil
}

// StringMap is an object of strings, or docker-py's list form of it: a list
// of names, whose values are empty.
type StringMap map[string]string

// UnmarshalJSONFrom reads an object or a list of names.
func (m *StringMap) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	values := map[string]string{}
	if dec.PeekKind() == '[' {
		var names []string
		if err := json.UnmarshalDecode(dec, &names); err != nil {
			return err
		}
		for _, name := range names {
			values[name] = ""
		}
	} else if err := json.UnmarshalDecode(dec, &values); err != nil {
		return err
	}
	*m = values
	return nil
}
