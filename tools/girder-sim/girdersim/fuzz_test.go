package girdersim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzParseRange gives it any header, and a plain range whose meaning is known.
func FuzzParseRange(f *testing.F) {
	for _, header := range []string{"", "bytes=0-4", "bytes=7-", "bytes=-3", "bytes=0-1,4-5", "bytes=50-60", "bytes=abc", "items=0-1", "bytes=3-1", "bytes=--5", "bytes=-0", "bytes=9223372036854775807-"} {
		f.Add(header, int64(2), int64(5), int64(13))
	}
	f.Fuzz(func(t *testing.T, header string, first, last, size int64) {
		first, last, size = max(0, first), max(0, last), max(0, size)
		if s, ok, err := parseRange(header, size); ok && (err != nil || s.start < 0) {
			t.Fatalf("%q of %d: %v, %v", header, size, s, err)
		}
		plain := fmt.Sprintf("bytes=%d-%d", first, last)
		s, ok, err := parseRange(plain, size)
		if err != nil || ok != (first < size && first <= last) {
			t.Fatalf("%s of %d: %v, %v", plain, size, ok, err)
		}
		if ok && (s.start != first || min(s.end, size) != min(last, size-1)+1) {
			t.Fatalf("%s of %d: %v", plain, size, s)
		}
	})
}

// FuzzQuery compares with the standard parser wherever that one agrees about
// what a query is.
func FuzzQuery(f *testing.F) {
	for _, query := range []string{"a=1&b=2", "a=%C3%BC+x", "a=1&a=2", "a=x;b=y", "a=%zz", "a=%FF", "=x", "a", "%", "a=%4"} {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL.RawQuery = query
		p, err := readParams(r)
		want, parseErr := url.ParseQuery(query)
		if err != nil || parseErr != nil || strings.Contains(query, ";") {
			return
		}
		for name, values := range want {
			if got, ok := p.optional(name); !ok || got != values[len(values)-1] {
				t.Fatalf("%q: %q is %q, want %q", query, name, got, values)
			}
			if len(values) > 1 && p.repeated == "" {
				t.Fatalf("%q: nothing noticed as repeated", query)
			}
		}
		if len(p.values) != len(want) {
			t.Fatalf("%q: %v, want %v", query, p.values, want)
		}
	})
}

func FuzzForm(f *testing.F) {
	f.Add("log=x&status=2", "application/x-www-form-urlencoded")
	f.Add("log=caf%E9", "application/x-www-form-urlencoded; charset=iso-8859-1")
	f.Add("--BB\r\nContent-Disposition: form-data; name=\"log\"\r\n\r\ntext\r\n--BB--\r\n", "multipart/form-data; boundary=BB")
	f.Fuzz(func(t *testing.T, body, contentType string) {
		r := httptest.NewRequest(http.MethodPut, "/", strings.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		p, err := readParams(r)
		if err != nil || strings.HasPrefix(contentType, "multipart/") {
			return
		}
		for name, value := range p.values {
			if !utf8.ValidString(name) || !utf8.ValidString(value) {
				t.Fatalf("%q: %q=%q is not UTF-8", body, name, value)
			}
		}
	})
}

// FuzzPythonJSON reads what we write with the standard parser.
func FuzzPythonJSON(f *testing.F) {
	for _, text := range []string{`{"b": [1, 2.5, 1e300, null], "a": "ü\u0000🚀\"\\"}`, `[]`, `{}`, `"\u2028"`, `-0.0`, `1e-7`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		value, err := decodeJSON([]byte(text))
		if err != nil {
			return
		}
		for _, indent := range []int{0, 4} {
			encoded, err := encodePython(value, indent)
			if err != nil {
				return // a number that is too large for a float
			}
			var got, want any
			if err := json.Unmarshal([]byte(encoded), &got); err != nil {
				t.Fatalf("%s: %v", encoded, err)
			}
			if json.Unmarshal([]byte(text), &want) == nil && !reflect.DeepEqual(got, want) {
				t.Fatalf("%s became %s", text, encoded)
			}
		}
	})
}

func TestContentDisposition(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"plain.txt":  `attachment; filename="plain.txt"`,
		"Łódź.txt":   `attachment; filename="odz.txt"; filename*=UTF-8''%C5%81%C3%B3d%C5%BA.txt`,
		"ｆｕｌｌ.txt":   `attachment; filename="full.txt"; filename*=UTF-8''%EF%BD%86%EF%BD%95%EF%BD%8C%EF%BD%8C.txt`,
		"tab\there":  `attachment; filename="tabhere"`,
		`q"b\s`:      `attachment; filename="q\"b\\s"`,
		"Štěpán.csv": `attachment; filename="Stepan.csv"; filename*=UTF-8''%C5%A0t%C4%9Bp%C3%A1n.csv`,
	} {
		if got, err := contentDisposition(name, ""); err != nil || got != want {
			t.Errorf("%q: %s, %v, want %s", name, got, err, want)
		}
	}
	for _, name := range []string{"20°C", "ß", "©"} {
		if got, err := contentDisposition(name, ""); err == nil {
			t.Errorf("%q: %s", name, got)
		}
	}
}
