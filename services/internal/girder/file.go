package girder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// File is Girder's document of a file.
type File struct {
	ID       FileID `json:"_id"`
	Name     string `json:"name"`
	ItemID   ItemID `json:"itemId"`
	Size     *int64 `json:"size"` // nil for a link that came without one
	MIMEType string `json:"mimeType"`
	LinkURL  string `json:"linkUrl"`
	SHA512   string `json:"sha512"` // not every assetstore has it
	Created  string `json:"created"`
	Updated  string `json:"updated"`
}

// SameContents compares with a later document of the same file: new contents are
// a new time of creation to Girder, and a new name or new metadata are not.
func (f File) SameContents(now File) bool {
	same := now.Created == f.Created && now.SHA512 == f.SHA512 && (now.Size == nil) == (f.Size == nil)
	return same && (now.Size == nil || *now.Size == *f.Size)
}

// GetFile reads a file's document.
func (c *Client) GetFile(ctx context.Context, id FileID) (File, error) {
	if err := checkID("file", string(id)); err != nil {
		return File{}, err
	}
	return ask[File](ctx, c.s, c.call(http.MethodGet, "file/"+string(id)))
}

// Download is the rest of a file's bytes, from an offset on. A connection that
// breaks ends Read with an error for which [IsTemporary] holds; the caller goes
// on with a new download behind what it has. The caller closes it.
type Download struct {
	io.ReadCloser
	Size int64 // of the whole file, -1 if the server does not say
}

// ErrOtherRange means that a server answered with bytes other than those asked
// for. Something on the way may have done that, so it is temporary.
var ErrOtherRange = errors.New("the server sent another part of the file than asked for")

// DownloadFile opens a file's bytes behind offset. The offset is asked for twice:
// in Girder's own way, and in that of HTTP, which is the only one that an object
// store knows to which Girder redirects. Either may answer with more than was
// asked for, even with the whole file; what arrives is checked, and what the
// caller has already is passed over.
func (c *Client) DownloadFile(ctx context.Context, id FileID, offset int64) (*Download, error) {
	if err := checkID("file", string(id)); err != nil {
		return nil, err
	}
	req := c.call(http.MethodGet, "file/"+string(id)+"/download")
	req.accept = "*/*"
	if offset > 0 {
		req.query = url.Values{"offset": {strconv.FormatInt(offset, 10)}}
		req.from = offset
	}
	resp, err := c.s.open(ctx, req)
	if err != nil {
		return beyondEnd(err, offset)
	}
	d, err := download(resp, offset)
	if errors.Is(err, ErrOtherRange) {
		err = &Unreachable{Method: req.method, Path: req.path, Host: c.s.elsewhere(resp.Request.URL), Err: c.s.hide(err)}
	}
	if err != nil {
		return nil, errors.Join(err, resp.Body.Close())
	}
	return d, nil
}

// beyondEnd makes an empty download of the refusal of a range that begins where
// the file ends. Girder itself does not refuse those.
func beyondEnd(err error, offset int64) (*Download, error) {
	var refusal *Error
	if offset == 0 || !errors.As(err, &refusal) || refusal.Status != http.StatusRequestedRangeNotSatisfiable || refusal.Size != offset {
		return nil, err
	}
	return &Download{ReadCloser: http.NoBody, Size: offset}, nil
}

func download(resp *http.Response, offset int64) (*Download, error) {
	start, size := int64(0), resp.ContentLength
	if resp.StatusCode == http.StatusPartialContent {
		header := resp.Header.Get("Content-Range")
		var err error
		if start, size, err = contentRange(header); err != nil {
			return nil, err
		}
		if start > offset || resp.ContentLength >= 0 && resp.ContentLength != max(size-start, 0) {
			return nil, fmt.Errorf("%w: asked for %d-, got %s with %d bytes", ErrOtherRange, offset, header, resp.ContentLength)
		}
	}
	if _, err := io.CopyN(io.Discard, resp.Body, offset-start); err != nil {
		if err == io.EOF {
			return nil, fmt.Errorf("%w: asked for %d-, but the file is shorter than that", ErrOtherRange, offset)
		}
		return nil, err
	}
	return &Download{ReadCloser: resp.Body, Size: size}, nil
}

// contentRange reads "bytes 7-12/13". The middle number is not looked at: past
// the end Girder gives one that is smaller than the first.
func contentRange(header string) (start, size int64, err error) {
	rest, ok := strings.CutPrefix(header, "bytes ")
	span, total, cut := strings.Cut(rest, "/")
	first, _, dash := strings.Cut(span, "-")
	start, startErr := strconv.ParseInt(first, 10, 64)
	size, sizeErr := strconv.ParseInt(total, 10, 64)
	if !ok || !cut || !dash || startErr != nil || sizeErr != nil || start < 0 || size < 0 {
		return 0, 0, fmt.Errorf("%w: Content-Range %q", ErrOtherRange, header)
	}
	return start, size, nil
}

// sizeOf reads "bytes */13", with which a range is refused.
func sizeOf(header string) int64 {
	size, err := strconv.ParseInt(strings.TrimPrefix(header, "bytes */"), 10, 64)
	if err != nil {
		return 0
	}
	return size
}
