package cache

import (
	"crypto/sha256"
	"fmt"
)

// Key is what a file of Girder is known by. A file that gets new contents gets
// another one.
type Key struct {
	Girder  string // which one: its API URL, and how it is reached where that is not the usual way
	File    string // its id
	Size    int64
	Created string
	Updated string
	SHA512  string // empty where Girder does not tell
}

// ID is a short form, different for each key.
type ID [sha256.Size]byte

// ID returns the key's.
func (k Key) ID() ID {
	return sha256.Sum256(fmt.Appendf(nil, "%q %q %d %q %q %q", k.Girder, k.File, k.Size, k.Created, k.Updated, k.SHA512))
}
