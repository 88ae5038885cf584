package girdersim

import (
	"errors"
	"html"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// request is one call of the REST interface on its way through a handler.
type request struct {
	options Options
	started time.Time // the server's
	st      *store
	signed  *signatures
	w       http.ResponseWriter
	r       *http.Request
	route   *route
	id      string // the :id of the path
	p       *params
	token   *token // nil: none, unknown or expired
	user    *user  // nil: nobody, as far as this route is concerned
}

// streamed is what a handler returns that has written the answer itself.
type streamed struct{}

// answer carries a request out. Errors that are no part of Girder's interface
// become its "internal" ones.
func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Allow", "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT")
	q := &request{options: s.options, started: s.started, st: s.st, signed: &s.signed, w: w, r: r}
	value, err := q.handle()
	if _, done := value.(streamed); done {
		if err != nil {
			panic(http.ErrAbortHandler) // too late to tell the client otherwise
		}
		return
	}
	if err == nil && s.options.Hashsums {
		s.st.addSums(value)
	}
	if err == nil {
		err = q.writeJSON(http.StatusOK, value)
	}
	if err == nil {
		return
	}
	var api *apiError
	if !errors.As(err, &api) {
		s.options.Log.Error().Err(err).Str("method", r.Method).Str("path", r.URL.Path).Msg("request failed")
		api = internalError()
	}
	q.writeError(api)
}

func (q *request) handle() (any, error) {
	if (q.r.Method == http.MethodPost || q.r.Method == http.MethodPut) &&
		q.r.Header.Get("Content-Length") == "" && len(q.r.TransferEncoding) == 0 {
		return nil, htmlError(http.StatusLengthRequired, "Client must specify Content-Length")
	}
	names, err := pathNames(q.r.URL)
	if err != nil {
		return nil, err
	}
	if q.p, err = readParams(q.r); err != nil {
		return nil, err
	}
	if err := q.findRoute(names); err != nil {
		return nil, err
	}
	if q.p.repeated != "" {
		return nil, restError("Parameter \"%s\" must not be specified multiple times.", q.p.repeated)
	}
	if q.route.streams {
		if err := q.lockedAuthorize(); err != nil {
			return nil, err
		}
		return q.route.handler(q)
	}
	q.st.mu.Lock()
	defer q.st.mu.Unlock()
	if err := q.authorize(); err != nil {
		return nil, err
	}
	return q.route.handler(q)
}

func (q *request) lockedAuthorize() error {
	q.st.mu.Lock()
	defer q.st.mu.Unlock()
	return q.authorize()
}

// pathNames are the parts of the path below the interface's root. Doubled and
// trailing slashes do not matter.
func pathNames(u *url.URL) ([]string, error) {
	notFound := &apiError{status: http.StatusNotFound, message: "Nothing matches the given URI", noOptions: true}
	rest, ok := strings.CutPrefix(u.EscapedPath(), apiRoot+"/")
	if !ok {
		return nil, notFound
	}
	var names []string
	for part := range strings.SplitSeq(rest, "/") {
		if part == "" {
			continue
		}
		name, err := url.PathUnescape(part)
		if err != nil {
			return nil, notFound
		}
		names = append(names, name)
	}
	if len(names) == 0 || routes[names[0]] == nil {
		return nil, notFound
	}
	return names, nil
}

func (q *request) findRoute(names []string) error {
	method := q.r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	for _, candidate := range routes[names[0]] {
		if id, ok := candidate.match(method, names[1:]); ok && (!candidate.extra || q.options.Artifacts) {
			q.route, q.id = candidate, id
			return nil
		}
	}
	return noRoute(q.r.Method, strings.Join(names[1:], "/"))
}

func (q *request) writeJSON(status int, value any) error {
	asPage := wantsHTML(q.r.Header.Get("Accept"))
	indent, contentType := 0, "application/json"
	if asPage {
		indent, contentType = 4, "text/html;charset=utf-8"
	}
	text, err := encodePython(value, indent)
	if err != nil {
		return unreadable()
	}
	if asPage {
		text = strings.NewReplacer(" ", "&nbsp;", "\n", "<br />").Replace(strings.ReplaceAll(html.EscapeString(text), "&#34;", "&quot;"))
		text = `<div style="font-family:monospace;">` + text + "</div>"
	}
	q.write(status, contentType, text)
	return nil
}

func (q *request) writeError(e *apiError) {
	if e.noOptions {
		q.w.Header().Set("Allow", "DELETE, GET, HEAD, PATCH, POST, PUT")
	}
	if e.kind != "" && q.writeJSON(e.status, e.body()) == nil {
		return
	}
	contentType := "text/html"
	if e.jsonType {
		contentType = "application/json"
	}
	q.write(e.status, contentType, e.html())
}

// write sends the answer. A client that went away notices nothing of an error.
func (q *request) write(status int, contentType, text string) {
	h := q.w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(text)))
	q.w.WriteHeader(status)
	io.WriteString(q.w, text)
}

// wantsHTML reports whether a page is asked for before JSON.
func wantsHTML(accept string) bool {
	for one := range strings.SplitSeq(accept, ",") {
		kind, _, _ := strings.Cut(one, ";")
		switch strings.TrimSpace(kind) {
		case "application/json":
			return false
		case "text/html":
			return true
		}
	}
	return false
}
