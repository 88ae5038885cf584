package contracts

import (
	"errors"
	"strings"
)

var (
	errOpenQuote  = errors.New("a quotation is not closed")
	errOpenEscape = errors.New("nothing follows the last backslash")
)

// splitWords splits a line as Python's shlex.split does, which docker-py uses:
// quotes and backslashes as in a shell, and no operator has a meaning.
func splitWords(line string) ([]string, error) {
	words := []string{}
	for rest := strings.TrimLeft(line, wordSpace); rest != ""; rest = strings.TrimLeft(rest, wordSpace) {
		word, after, err := cutWord(rest)
		if err != nil {
			return nil, err
		}
		words, rest = append(words, word), after
	}
	return words, nil
}

const wordSpace = " \t\r\n"

// cutWord returns the word that s starts with, and what follows it.
func cutWord(s string) (word, after string, err error) {
	var text strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case strings.IndexByte(wordSpace, c) >= 0:
			return text.String(), s[i:], nil
		case c == '\'' || c == '"':
			quoted, length, err := cutQuoted(s[i:])
			if err != nil {
				return "", "", err
			}
			text.WriteString(quoted)
			i += length - 1
		case c == '\\':
			if i++; i == len(s) {
				return "", "", errOpenEscape
			}
			text.WriteByte(s[i])
		default:
			text.WriteByte(c)
		}
	}
	return text.String(), "", nil
}

// cutQuoted returns what the quotation at the start of s says, and its length
// with both quotes. In double quotes a backslash escapes a quote and itself.
func cutQuoted(s string) (text string, length int, err error) {
	var quoted strings.Builder
	quote := s[0]
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == quote:
			return quoted.String(), i + 1, nil
		case quote == '"' && s[i] == '\\' && i+1 < len(s) && (s[i+1] == '"' || s[i+1] == '\\'):
			i++
		}
		quoted.WriteByte(s[i])
	}
	return "", 0, errOpenQuote
}
