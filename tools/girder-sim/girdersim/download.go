package girdersim

import (
	"errors"
	"fmt"
	"html"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"strings"
)

// span is the part of a file that is sent. It is as odd as the request was: it
// may begin before or behind the file.
type span struct{ start, end int64 }

// parseRange reads a Range header. Of several ranges the first counts, the unit
// does not matter. ok is false where the header asks for nothing that can be
// sent: then the whole file is. A malformed header is an error.
func parseRange(header string, size int64) (s span, ok bool, err error) {
	if header == "" {
		return span{}, false, nil
	}
	_, ranges, found := strings.Cut(header, "=")
	if !found {
		return span{}, false, fmt.Errorf("parse range %q: no unit", header)
	}
	for one := range strings.SplitSeq(ranges, ",") {
		first, last, found := strings.Cut(one, "-")
		if !found {
			return span{}, false, fmt.Errorf("parse range %q: no dash", header)
		}
		s, ok, stop, err := parseOneRange(strings.TrimSpace(first), strings.TrimSpace(last), size)
		if ok || stop || err != nil {
			return s, ok, err
		}
	}
	return span{}, false, nil
}

// parseOneRange reads one range; stop means that the header counts as absent.
func parseOneRange(first, last string, size int64) (s span, ok, stop bool, err error) {
	if first == "" {
		if last == "" {
			return s, false, true, nil
		}
		n, err := strconv.ParseInt(last, 10, 64)
		if err != nil {
			return s, false, true, fmt.Errorf("parse range end: %w", err)
		}
		return span{size - min(n, size), size}, true, true, nil
	}
	s.end = size
	if s.start, err = strconv.ParseInt(first, 10, 64); err != nil {
		return s, false, true, fmt.Errorf("parse range start: %w", err)
	}
	if last != "" {
		n, err := strconv.ParseInt(last, 10, 64)
		if err != nil {
			return s, false, true, fmt.Errorf("parse range end: %w", err)
		}
		s.end = min(n, size) + 1
	}
	switch {
	case s.start >= size:
		return s, false, false, nil
	case s.end <= s.start:
		return s, false, true, nil
	}
	return s, true, true, nil
}

// spanOf reads what part of a file a request wants. The header wins over the
// query.
func (q *request) spanOf(size int64) (span, error) {
	offset, _, err := q.p.integer("offset", 0)
	if err != nil {
		return span{}, err
	}
	end, _, err := q.p.integer("endByte", size)
	if err != nil {
		return span{}, err
	}
	s, ok, err := parseRange(q.r.Header.Get("Range"), size)
	if err != nil {
		return span{}, internalError()
	}
	if !ok {
		s = span{offset, end}
	}
	s.end = min(s.end, size)
	return s, nil
}

func downloadFile(q *request) (any, error) {
	q.st.mu.Lock()
	f, err := q.fileFor(q.id, read)
	q.st.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return q.send(f)
}

// send answers with a file's bytes or with the place that it links to.
func (q *request) send(f *file) (any, error) {
	if f.LinkURL != "" {
		return q.redirect(http.StatusSeeOther, f.LinkURL)
	}
	if q.options.ObjectStore != nil && f.length() > 0 {
		return q.sendElsewhere(f)
	}
	s, err := q.spanOf(f.length())
	if err != nil {
		return nil, err
	}
	content, err := q.st.bytes.open(f.SHA512)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, girderError("utility.filesystem_assetstore_adapter.file-does-not-exist", "File %s does not exist.", publicPath(f.SHA512))
	}
	if err != nil {
		return nil, fmt.Errorf("open bytes of file %s: %w", f.ID, err)
	}
	defer content.Close()
	q.w.Header().Set("Accept-Ranges", "bytes")
	disposition, err := contentDisposition(f.Name, q.p.text("contentDisposition"))
	if err != nil {
		return nil, internalError()
	}
	return streamed{}, q.sendBytes(f, content, disposition, s)
}

func (q *request) sendBytes(f *file, content *os.File, disposition string, s span) error {
	h := q.w.Header()
	h.Set("Content-Disposition", disposition)
	h.Set("Content-Type", withCharset(f.mimeType()))
	h.Set("Content-Length", strconv.FormatInt(max(0, s.end-s.start), 10))
	status := http.StatusOK
	if f.length() > 0 && (s.start != 0 || s.end < f.length() || q.r.Header.Get("Range") != "") {
		status = http.StatusPartialContent
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", s.start, s.end-1, f.length()))
	}
	q.w.WriteHeader(status)
	if q.r.Method == http.MethodHead || s.end <= s.start {
		return nil
	}
	from := max(0, s.start)
	if _, err := content.Seek(from, io.SeekStart); err != nil {
		return fmt.Errorf("seek in file %s: %w", f.ID, err)
	}
	_, err := io.Copy(q.w, io.LimitReader(content, s.end-from))
	return err
}

// sendElsewhere answers with the place of the bytes in the object store, without
// a look at the part that is asked for.
func (q *request) sendElsewhere(f *file) (any, error) {
	disposition, err := contentDisposition(f.Name, q.p.text("contentDisposition"))
	if err != nil {
		return nil, internalError()
	}
	return q.redirect(q.options.ObjectStore.Status, q.signed.url(f.SHA512, disposition, f.mimeType()))
}

func (q *request) redirect(status int, target string) (any, error) {
	text := html.EscapeString(target)
	body := fmt.Sprintf("This resource can be found at <a href=%q>%s</a>.", text, text)
	h := q.w.Header()
	h.Set("Location", target)
	h.Set("Content-Type", "text/html;charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	q.w.WriteHeader(status)
	_, err := io.WriteString(q.w, body)
	return streamed{}, err
}

func withCharset(mimeType string) string {
	if strings.HasPrefix(mimeType, "text/") && !strings.Contains(mimeType, "charset") {
		return mimeType + ";charset=utf-8"
	}
	return mimeType
}
