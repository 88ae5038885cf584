package stage

import (
	"fmt"
	"path/filepath"
	"strings"
	"unicode/utf8"
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

// cut shortens a name that is too long and leaves its extension.
func cut(name string) string {
	if len(name) <= maxName {
		return name
	}
	ext := filepath.Ext(name)
	if len(ext) > 32 {
		ext = ""
	}
	end := maxName - len(ext)
	for range utf8.UTFMax - 1 { // not inside a character
		if !utf8.RuneStart(name[end]) {
			end--
		}
	}
	return name[:end] + ext
}

// checkPath wants a relative path to something on a volume.
func checkPath(path string) error {
	if !filepath.IsLocal(path) {
		return fmt.Errorf("%q: %w", path, ErrLeavesVolume)
	}
	return nil
}
