package slicer

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// named are the references that XML knows without a declaration.
var named = map[string]rune{"lt": '<', "gt": '>', "amp": '&', "quot": '"', "apos": '\''}

// unescape resolves the references in XML text. What is none stays as it is.
func unescape(text string) string {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(text, "&")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		name, after, ended := strings.Cut(rest, ";")
		char, known := resolve(name)
		if !ended || !known {
			out.WriteByte('&')
			text = rest
			continue
		}
		out.WriteRune(char)
		text = after
	}
}

// resolve returns the character that a reference stands for.
func resolve(name string) (rune, bool) {
	digits, numeric := strings.CutPrefix(name, "#")
	if !numeric {
		char, known := named[name]
		return char, known
	}
	base := 10
	if hex, found := strings.CutPrefix(digits, "x"); found {
		digits, base = hex, 16
	}
	code, err := strconv.ParseUint(digits, base, 32)
	if err != nil || code == 0 || !utf8.ValidRune(rune(code)) {
		return 0, false
	}
	return rune(code), true
}
