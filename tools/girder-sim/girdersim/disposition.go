package girdersim

import (
	"errors"
	"fmt"
	"strings"
)

// errHeader is returned for a name that Girder cannot put into a header; the
// download then fails there, and so it does here.
var errHeader = errors.New("name does not fit into a header")

// contentDisposition is the header that names a download. Letters lose their
// accents or are dropped, and the true name follows in a second form.
func contentDisposition(name, kind string) (string, error) {
	if kind != "inline" {
		kind = "attachment"
	}
	safe, err := safeName(name)
	if err != nil {
		return "", err
	}
	value := kind + `; filename="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(safe) + `"`
	if safe != name {
		value += "; filename*=UTF-8''" + quoteName(name)
	}
	return strings.Map(dropControl, value), nil
}

func dropControl(r rune) rune {
	if r < 0x20 || r == 0x7f {
		return -1
	}
	return r
}

// safeName reduces a name to ASCII as far as it is of letters that decompose
// into ASCII and marks. A Latin-1 character that does not is an error.
func safeName(name string) (string, error) {
	var b strings.Builder
	for _, r := range name {
		switch {
		case r < 0x80:
			b.WriteRune(r)
		case r <= 0xff:
			plain, ok := latin1Plain[r]
			if !ok {
				return "", fmt.Errorf("%w: %q", errHeader, r)
			}
			b.WriteString(plain)
		case r >= 0x100 && r <= 0x17f:
			b.WriteString(strings.TrimSpace(extendedPlain[r-0x100 : r-0x100+1]))
		case r >= 0xff01 && r <= 0xff5e: // full-width forms
			b.WriteRune(r - 0xfee0)
		}
	}
	return b.String(), nil
}

// latin1Plain is what is left of the Latin-1 characters that decompose.
var latin1Plain = latinTable(map[string]string{
	"ÀÁÂÃÄÅ": "A", "Ç": "C", "ÈÉÊË": "E", "ÌÍÎÏ": "I", "Ñ": "N", "ÒÓÔÕÖ": "O", "ÙÚÛÜ": "U", "Ý": "Y",
	"àáâãäå": "a", "ç": "c", "èéêë": "e", "ìíîï": "i", "ñ": "n", "òóôõö": "o", "ùúûü": "u", "ýÿ": "y",
	"\u00a0¨¯´¸": " ", "ª": "a", "º": "o", "²": "2", "³": "3", "¹": "1", "µ": "", "¼": "14", "½": "12", "¾": "34",
})

// extendedPlain holds the base letter of each character from U+0100 to U+017F,
// a space where there is none.
const extendedPlain = "AaAaAaCcCcCcCcDd" + "  EeEeEeEeEeGgGg" + "GgGgHh  IiIiIiIi" + "I   JjKk LlLlLl " +
	"   NnNnNn   OoOo" + "Oo  RrRrRrSsSsSs" + "SsTtTt  UuUuUuUu" + "UuUuWwYyYZzZzZzs"

func latinTable(groups map[string]string) map[rune]string {
	table := map[rune]string{}
	for letters, plain := range groups {
		for _, r := range letters {
			table[r] = plain
		}
	}
	return table
}

// quoteName percent-encodes as Python does: letters, digits, and _.-~/ stay.
func quoteName(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("_.-~/", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
