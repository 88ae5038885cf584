package faultproxy

import (
	"net/http"
	"strings"
)

// Kind is a way for a request to go wrong.
type Kind string

// The kinds of faults.
const (
	CutRequest Kind = "request cut"     // the connection breaks in the body, of which Girder gets a part
	CutAnswer  Kind = "answer cut"      // the connection breaks in the answer, maybe in its header
	Stall      Kind = "stalled"         // the answer stands still, before its first byte or later
	LostAnswer Kind = "answer lost"     // Girder does it, and the connection breaks before an answer
	Duplicate  Kind = "delivered twice" // Girder gets the request twice; one of the answers is passed on
	IdleReset  Kind = "reset while idle"

	ServerError Kind = "status 500" // of Girder, which may have done it
	BadGateway  Kind = "status 502" // of a proxy, behind which Girder may have done it
	RateLimited Kind = "status 429" // with Retry-After

	LongLength  Kind = "length too long"  // Content-Length promises more bytes than come
	ShortLength Kind = "length too short" // and fewer
	ShortBody   Kind = "body shortened"   // Girder gets fewer bytes than were sent, with a length that agrees

	CorruptDownload Kind = "download corrupted"
	CorruptUpload   Kind = "upload corrupted"
	CorruptDocument Kind = "document corrupted" // a block of zeros in JSON
	Page            Kind = "page for an answer" // HTML with status 200, as from a portal
)

// Kinds are all kinds of faults.
var Kinds = []Kind{
	CutRequest, CutAnswer, Stall, LostAnswer, Duplicate, IdleReset, ServerError, BadGateway, RateLimited,
	LongLength, ShortLength, ShortBody, CorruptDownload, CorruptUpload, CorruptDocument, Page,
}

// Route is what a request is for.
type Route string

// The routes.
const (
	Document Route = "document" // whatever is not one of the others
	Download Route = "download"
	Begin    Route = "begin"    // of an upload
	Empty    Route = "empty"    // a file without bytes is made, or emptied
	Chunk    Route = "chunk"    // of an upload
	Artifact Route = "artifact" // a file is attached to a job, all in one request
	Cancel   Route = "cancel"   // of an upload
)

func routeOf(r *http.Request) Route {
	_, path, _ := strings.Cut(r.URL.Path, "/api/v1/")
	begins := r.Method == http.MethodPost && path == "file" || r.Method == http.MethodPut && strings.HasSuffix(path, "/contents")
	switch {
	case begins && r.URL.Query().Get("size") == "0":
		return Empty
	case begins:
		return Begin
	case r.Method == http.MethodGet && strings.HasSuffix(path, "/download"):
		return Download
	case r.Method == http.MethodPost && path == "file/chunk":
		return Chunk
	case r.Method == http.MethodPost && strings.HasSuffix(path, "/artifact"):
		return Artifact
	case r.Method == http.MethodDelete && strings.HasPrefix(path, "file/upload/"):
		return Cancel
	}
	return Document
}

// suits reports whether a fault of that kind can happen to a request.
func (k Kind) suits(route Route, hasBody bool) bool {
	bytes := hasBody && (route == Chunk || route == Artifact)
	switch k {
	case CutRequest:
		return hasBody
	case ShortBody, CorruptUpload:
		return bytes
	case CorruptDownload:
		return route == Download
	case CorruptDocument:
		return route != Download
	}
	return true
}
