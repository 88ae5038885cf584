package faultproxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

// answer is one that is passed on, or made up.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// raw is the answer as it goes over the connection, where it says that its body has so many bytes.
func (a answer) raw(length int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", a.status, http.StatusText(a.status))
	header := a.header.Clone()
	header.Set("Content-Length", strconv.Itoa(length))
	_ = header.Write(&b) // to memory
	b.WriteString("\r\n")
	b.Write(a.body)
	return b.Bytes()
}

// refusals are what is answered in Girder's place.
var refusals = map[Kind]answer{
	ServerError: {500, http.Header{"Content-Type": {"application/json"}},
		[]byte(`{"message": "An unexpected error occurred on the server.", "type": "internal", "uid": "0"}`)},
	BadGateway: {502, http.Header{"Content-Type": {"text/html"}},
		[]byte("<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center></body></html>")},
	RateLimited: {429, http.Header{"Content-Type": {"text/plain"}, "Retry-After": {"1"}}, []byte("slow down")},
	Page:        {200, http.Header{"Content-Type": {"text/html"}}, []byte("<html><body><h1>Please sign in</h1></body></html>")},
}

// spoiled returns bytes of which one is another.
func spoiled(data []byte, at float64) []byte {
	if len(data) == 0 {
		return data
	}
	data = bytes.Clone(data)
	data[int(at*float64(len(data)))] ^= 0x5a
	return data
}

// blotted returns bytes with a block of zeros in them, which is JSON nowhere.
func blotted(data []byte, at float64, size int) []byte {
	data = bytes.Clone(data)
	from := int(at * float64(len(data)))
	clear(data[from:min(from+size, len(data))])
	return data
}

// errBroken ends a body that is to be passed on in part.
var errBroken = errors.New("broken by the proxy")

// broken reads some bytes, and then an error.
func broken(data []byte) io.Reader { return io.MultiReader(bytes.NewReader(data), failing{}) }

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errBroken }
