package stream

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
)

var (
	// ErrIncomplete means that Girder sends another number of bytes than the file's document says.
	ErrIncomplete = errors.New("the bytes that Girder sends are not the whole file")
	// ErrChecksum means that the bytes are not those that Girder has the checksum of.
	ErrChecksum = errors.New("the bytes that Girder sent do not match its checksum")
	// ErrChanged means that the file in Girder got other contents while it was streamed.
	ErrChanged = errors.New("the file in Girder changed while it was streamed")
	// ErrBadURL refuses what is no URL to send something to.
	ErrBadURL = errors.New("not an http or https URL")
	// ErrNoSpace means that the node has no room for what has to be kept until its size is known.
	ErrNoSpace = errors.New("the disk of the work folder has no room for all that the container wrote; it is kept there until its size is known")
)

// Refused is an answer that ends a stream: no success, or a success that came
// before everything was sent.
type Refused struct {
	Where  string // host and path of the URL
	Status int
	Early  bool   // there was more to send
	Says   string // the beginning of the answer
}

// Error names the place, the status and what the server says.
func (r *Refused) Error() string {
	text := fmt.Sprintf("POST %s: %d %s", r.Where, r.Status, http.StatusText(r.Status))
	switch {
	case r.Status/100 == 3:
		text += ": redirects are not followed, name the URL that it leads to"
	case r.Status/100 == 2 && r.Early:
		text += ": the server answered before it had everything"
	}
	if r.Says != "" {
		text += ": " + r.Says
	}
	return text
}

// IsFailure reports whether an error is the task's own, or that of a server
// that the task names. Every other error may go away without a change of the
// task, as a file that is replaced while it is read: to stream it again gives the
// right one. Errors of Girder are not looked at.
func IsFailure(err error) bool {
	var refused *Refused
	var certificate *tls.CertificateVerificationError
	return errors.Is(err, ErrBadURL) || errors.As(err, &refused) || errors.As(err, &certificate)
}

// isWrong reports whether what was streamed is not the file.
func isWrong(err error) bool {
	return errors.Is(err, ErrIncomplete) || errors.Is(err, ErrChecksum) || errors.Is(err, ErrChanged)
}
