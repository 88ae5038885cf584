package stage

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// NotedPath is a path on a volume, of any bytes, in what is remembered. As text
// one that is no UTF-8 is quoted behind a slash, which no path on a volume
// begins with; every other is as it is.
type NotedPath string

// MarshalText writes the path so that UnmarshalText gives the same bytes.
func (p NotedPath) MarshalText() ([]byte, error) {
	path := string(p)
	if utf8.ValidString(path) && !strings.HasPrefix(path, "/") {
		return []byte(path), nil
	}
	return []byte("/" + strconv.QuoteToASCII(path)), nil
}

// UnmarshalText reads what MarshalText wrote.
func (p *NotedPath) UnmarshalText(text []byte) error {
	path := string(text)
	if quoted, ok := strings.CutPrefix(path, `/"`); ok {
		raw, err := strconv.Unquote(`"` + quoted)
		if err != nil {
			return err
		}
		path = raw
	}
	*p = NotedPath(path)
	return nil
}
