package girdersim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"
)

// params are the parameters of a request, from its query and its form together.
type params struct {
	values   map[string]string
	repeated string // the first name that was given twice
}

func (p *params) add(name, value string) {
	if _, there := p.values[name]; there && p.repeated == "" {
		p.repeated = name
	}
	p.values[name] = value
}

// readParams reads the query and, of requests that carry one, the form. Other
// bodies are left for the handler.
func readParams(r *http.Request) (*params, error) {
	p := &params{values: map[string]string{}}
	if !p.addForm(r.URL.RawQuery, decodeUTF8) {
		return nil, htmlError(http.StatusNotFound, "The given query string could not be processed. Query strings for this resource must be encoded with 'utf8'.")
	}
	if !hasBody(r.Method) {
		return p, nil
	}
	kind, attributes, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case err != nil:
		return p, nil
	case kind == "application/x-www-form-urlencoded":
		return p, p.readForm(r.Body, attributes["charset"])
	case strings.HasPrefix(kind, "multipart/"):
		return p, p.readMultipart(r.Body, attributes["boundary"])
	}
	return p, nil
}

func hasBody(method string) bool {
	return method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch
}

func (p *params) readForm(body io.Reader, charset string) error {
	text, err := io.ReadAll(body)
	if err != nil {
		return fmt.Errorf("read form: %w", err)
	}
	decode := decodeUTF8
	switch strings.ToLower(charset) {
	case "":
		charset = "utf-8"
	case "iso-8859-1", "latin-1", "latin1":
		decode = decodeLatin1
	}
	if !p.addForm(string(text), decode) {
		return htmlError(http.StatusBadRequest, "The request entity could not be decoded. The following charsets were attempted: ['"+charset+"']")
	}
	return nil
}

func (p *params) readMultipart(body io.Reader, boundary string) error {
	parts := multipart.NewReader(body, boundary)
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return htmlError(http.StatusBadRequest, "The request entity is not valid multipart data.")
		}
		text, err := io.ReadAll(part)
		if err != nil {
			return fmt.Errorf("read form part %s: %w", part.FormName(), err)
		}
		if part.FormName() != "" {
			p.add(part.FormName(), string(text))
		}
	}
}

// addForm adds encoded pairs; a semicolon separates them as well as an
// ampersand. It reports whether the text could be decoded.
func (p *params) addForm(encoded string, decode func([]byte) (string, bool)) bool {
	for pair := range strings.FieldsFuncSeq(encoded, func(r rune) bool { return r == '&' || r == ';' }) {
		name, value, _ := strings.Cut(pair, "=")
		n, ok := decode(unquote(name))
		if !ok {
			return false
		}
		v, ok := decode(unquote(value))
		if !ok {
			return false
		}
		p.add(n, v)
	}
	return true
}

// unquote undoes percent encoding; what is no valid escape stays as it is.
func unquote(s string) []byte {
	if !strings.ContainsAny(s, "%+") {
		return []byte(s)
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '+':
			out = append(out, ' ')
		case s[i] == '%' && i+2 < len(s):
			b, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				out = append(out, '%')
				continue
			}
			out = append(out, byte(b))
			i += 2
		default:
			out = append(out, s[i])
		}
	}
	return out
}

func decodeUTF8(b []byte) (string, bool) { return string(b), utf8.Valid(b) }

func decodeLatin1(b []byte) (string, bool) {
	runes := make([]rune, len(b))
	for i, c := range b {
		runes[i] = rune(c)
	}
	return string(runes), true
}

// text is the value of a parameter, empty if it was not given.
func (p *params) text(name string) string { return p.values[name] }

func (p *params) optional(name string) (string, bool) {
	v, ok := p.values[name]
	return v, ok
}

func (p *params) required(name string) (string, error) {
	v, ok := p.values[name]
	if !ok {
		return "", restError("Parameter \"%s\" is required.", name)
	}
	return v, nil
}

func (p *params) enum(name string, allowed ...string) (string, error) {
	v, err := p.required(name)
	if err != nil {
		return "", err
	}
	for _, a := range allowed {
		if v == a {
			return v, nil
		}
	}
	return "", restError("Invalid value for %s: \"%s\". Allowed values: %s.", name, v, strings.Join(allowed, ", "))
}

func (p *params) boolean(name string, fallback bool) bool {
	v, ok := p.values[name]
	if !ok {
		return fallback
	}
	switch strings.ToLower(strings.TrimSpace(v)) {
	case "true", "on", "1", "yes":
		return true
	}
	return false
}

// integer reads a whole number; ok tells whether it was given.
func (p *params) integer(name string, fallback int64) (value int64, ok bool, err error) {
	v, ok := p.values[name]
	if !ok {
		return fallback, false, nil
	}
	value, err = strconv.ParseInt(strings.TrimSpace(v), 10, 64)
	if err != nil {
		return 0, true, restError("Invalid value for integer parameter %s: %s.", name, v)
	}
	return value, true, nil
}

// float reads a number; nil if it was not given.
func (p *params) float(name string) (*number, error) {
	v, ok := p.values[name]
	if !ok {
		return nil, nil
	}
	f, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return nil, restError("Invalid value for numeric parameter %s: %s.", name, v)
	}
	n := number(f)
	return &n, nil
}

func (p *params) array(name string) ([]any, error) {
	v, err := p.json(name)
	if v == nil || err != nil {
		return nil, err
	}
	a, ok := v.([]any)
	if !ok {
		return nil, restError("Parameter %s must be a JSON array.", name)
	}
	return a, nil
}

func (p *params) object(name string) (map[string]any, error) {
	v, err := p.json(name)
	if v == nil || err != nil {
		return nil, err
	}
	o, ok := v.(map[string]any)
	if !ok {
		return nil, restError("Parameter %s must be a JSON object.", name)
	}
	return o, nil
}

func (p *params) json(name string) (any, error) {
	text, ok := p.values[name]
	if !ok {
		return nil, nil
	}
	v, err := decodeJSON([]byte(text))
	if err != nil {
		return nil, restError("Parameter %s must be valid JSON.", name)
	}
	return fromExtended(v), nil
}

// decodeJSON reads exactly one JSON value and keeps numbers as they are written.
func decodeJSON(text []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("text after the JSON value")
	}
	return v, nil
}

// fromExtended resolves MongoDB's extended JSON, such as {"$oid": "…"}.
func fromExtended(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = fromExtended(v[i])
		}
	case map[string]any:
		if id, ok := v["$oid"].(string); ok && len(v) == 1 && isID(id) {
			return id
		}
		for key := range v {
			v[key] = fromExtended(v[key])
		}
	}
	return v
}
