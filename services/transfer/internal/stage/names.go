package stage

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// maxName is the longest name that Linux file systems have, in bytes.
const maxName = 255

// unservable are the characters of Latin-1 that have no plainer form. Girder
// answers every download of a file with one of them in its name with status 500.
const unservable = "¡¢£¤¥¦§©«¬®°±¶·»¿ÆÐ×ØÞßæð÷øþ"

// localName makes one name on disk of a name in Girder, the way that Girder's
// own client does it. What that client would then fail with, an empty name, a
// NUL and a name over 255 bytes, is made possible too.
func localName(name string) string {
	if name == "." || name == ".." || name == "" {
		return "_" + name
	}
	name = strings.ReplaceAll(name, "/", "_")
	if rest := strings.TrimLeft(name, `\`); rest != name {
		name = "_" + rest
	}
	return cut(strings.ReplaceAll(name, "\x00", "_"))
}

// localNames makes a name on disk of each of the names in one folder. Where two
// are the same there, the first keeps it and the others get a number, as Girder
// gives one to an item whose name is taken.
func localNames(names []string, same sameness) []string {
	local := make([]string, len(names))
	for i, name := range names {
		local[i] = localName(name)
	}
	return distinct(local, map[string]bool{}, same)
}

// sameness gives one text to all names that are one for a folder.
type sameness func(name string) string

// exactly is how Linux tells names apart.
func exactly(name string) string { return name }

// loosely is how a volume does it that looks neither at the case of letters nor
// at how they are composed.
func loosely(name string) string {
	return norm.NFD.String(cases.Fold().String(norm.NFD.String(name)))
}

// distinct numbers those of the names that are taken, or the same as one before.
func distinct(names []string, taken map[string]bool, same sameness) []string {
	told := make([]string, len(names))
	for i, name := range names {
		if key := same(name); !taken[key] {
			told[i], taken[key] = name, true
		}
	}
	numbers := map[string]int{}
	for i, name := range names {
		key := same(name)
		for told[i] == "" {
			numbers[key]++
			if numbered := number(name, numbers[key]); !taken[same(numbered)] {
				told[i], taken[same(numbered)] = numbered, true
			}
		}
	}
	return told
}

// validName makes a name in Girder of one on disk, which may be no UTF-8.
func validName(name string) string { return strings.ToValidUTF8(name, "\uFFFD") }

// validNames makes a name in Girder of each of the names in one folder. Where two
// become equal, a name that is UTF-8 is kept, and others get a number.
func validNames(names []string) []string {
	isBad := func(name string) bool { return !utf8.ValidString(name) }
	if !slices.ContainsFunc(names, isBad) {
		return names
	}
	all := slices.Clone(names)
	kept := map[string]bool{}
	var bad []int
	var made []string
	for i, name := range names {
		if isBad(name) {
			bad, made = append(bad, i), append(made, validName(name))
			continue
		}
		kept[name] = true
	}
	for i, name := range distinct(made, kept, exactly) {
		all[bad[i]] = name
	}
	return all
}

// number puts a number before a name's extension: "a (1).txt".
func number(name string, n int) string {
	ext := extension(name)
	mark := fmt.Sprintf(" (%d)%s", n, ext)
	return shorten(strings.TrimSuffix(name, ext), maxName-len(mark)) + mark
}

// extension is what a name keeps when it is shortened.
func extension(name string) string {
	ext := filepath.Ext(name)
	if len(ext) > 32 || ext == name || ext == "." {
		return ""
	}
	return ext
}

// shorten keeps the begin of a text, and no part of a character.
func shorten(text string, length int) string {
	if len(text) <= length {
		return text
	}
	for range utf8.UTFMax - 1 {
		if !utf8.RuneStart(text[length]) {
			length--
		}
	}
	return text[:length]
}

// cut shortens a name that is too long and leaves its extension.
func cut(name string) string {
	if len(name) <= maxName {
		return name
	}
	ext := extension(name)
	return shorten(name, maxName-len(ext)) + ext
}

// checkPath wants a relative path to something on a volume.
func checkPath(path string) error {
	if !filepath.IsLocal(path) {
		return fmt.Errorf("%q: %w", path, ErrLeavesVolume)
	}
	return nil
}
