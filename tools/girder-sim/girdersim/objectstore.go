package girdersim

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ObjectStore makes the bytes of files come from a server of its own, as with an
// assetstore on S3: Girder answers downloads with a redirect to a signed URL. The
// store knows Range and neither offset nor endByte, and refuses requests that
// bring Girder's token along. Empty files are answered by Girder itself, and
// uploads go through it as ever.
type ObjectStore struct {
	Addr   string        // host:port to listen on, also the host of the URLs; empty: 127.0.0.1:0
	Status int           // of the redirects; 0: 303, which Girder answers
	Life   time.Duration // of a signed URL; 0: an hour
}

const bucket = "/girder-assetstore/"

func (o *ObjectStore) withDefaults() *ObjectStore {
	if o == nil {
		return nil
	}
	filled := *o
	if filled.Addr == "" {
		filled.Addr = "127.0.0.1:0"
	}
	if filled.Status == 0 {
		filled.Status = http.StatusSeeOther
	}
	if filled.Life == 0 {
		filled.Life = time.Hour
	}
	return &filled
}

// signatures are those of an object store's URLs.
type signatures struct {
	mu   sync.Mutex
	base string // of the URLs
	life time.Duration
	key  []byte
}

func (s *signatures) renew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key = make([]byte, sha256.Size)
	rand.Read(s.key) //nolint:errcheck // it never fails
}

// url is where the bytes of that checksum are for a while.
func (s *signatures) url(sum, name, mimeType string) string {
	expires := strconv.FormatInt(time.Now().Add(s.life).Unix(), 10)
	path := bucket + sum[:2] + "/" + sum[2:4] + "/" + sum
	query := url.Values{
		"response-content-disposition": {name}, "response-content-type": {mimeType},
		"Expires": {expires}, "Signature": {s.sign(path, expires)},
	}
	return s.base + path + "?" + query.Encode()
}

func (s *signatures) sign(path, expires string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	mac := hmac.New(sha256.New, s.key)
	fmt.Fprintf(mac, "%s\n%s", path, expires)
	return hex.EncodeToString(mac.Sum(nil))
}

// check returns the code and the message of a refusal, empty for none.
func (s *signatures) check(r *http.Request) (code, message string) {
	expires := r.URL.Query().Get("Expires")
	at, err := strconv.ParseInt(expires, 10, 64)
	switch {
	case err != nil || !hmac.Equal([]byte(s.sign(r.URL.Path, expires)), []byte(r.URL.Query().Get("Signature"))):
		return "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided."
	case time.Now().Unix() > at:
		return "AccessDenied", "Request has expired"
	}
	return "", ""
}

// ExpireURLs makes all signed URLs useless that were given out so far.
func (s *Server) ExpireURLs() { s.signed.renew() }

// ObjectStoreURL is the address of the object store, without a path; empty if
// there is none.
func (s *Server) ObjectStoreURL() string { return s.signed.base }

// serveObject answers as the object store.
func (s *Server) serveObject(w http.ResponseWriter, r *http.Request) {
	if leaked(r) {
		refuseObject(w, http.StatusBadRequest, "InvalidArgument", "Only one auth mechanism allowed")
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		refuseObject(w, http.StatusMethodNotAllowed, "MethodNotAllowed", "The specified method is not allowed against this resource.")
		return
	}
	if code, message := s.signed.check(r); code != "" {
		refuseObject(w, http.StatusForbidden, code, message)
		return
	}
	sum := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	content, err := s.st.bytes.open(sum)
	if errors.Is(err, fs.ErrNotExist) {
		refuseObject(w, http.StatusNotFound, "NoSuchKey", "The specified key does not exist.")
		return
	}
	if err != nil {
		s.options.Log.Error().Err(err).Str("path", r.URL.Path).Msg("object cannot be opened")
		refuseObject(w, http.StatusInternalServerError, "InternalError", "We encountered an internal error. Please try again.")
		return
	}
	defer content.Close()
	info, err := content.Stat()
	if err != nil {
		s.options.Log.Error().Err(err).Str("path", r.URL.Path).Msg("object cannot be read")
		refuseObject(w, http.StatusInternalServerError, "InternalError", "We encountered an internal error. Please try again.")
		return
	}
	h := w.Header()
	h.Set("Content-Disposition", r.URL.Query().Get("response-content-disposition"))
	h.Set("Content-Type", r.URL.Query().Get("response-content-type"))
	h.Set("ETag", `"`+sum[:32]+`"`)
	http.ServeContent(w, r, "", info.ModTime(), content)
}

// leaked reports whether a request has what is meant for Girder alone.
func leaked(r *http.Request) bool {
	_, err := r.Cookie("girderToken")
	return err == nil || r.Header.Get("Girder-Token") != "" || r.Header.Get("Authorization") != "" || r.URL.Query().Has("token")
}

func refuseObject(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>%s</Code><Message>%s</Message></Error>", code, message)
}
