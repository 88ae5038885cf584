package girdersim

import (
	"fmt"
	"net/http"
	"strings"
)

// apiError is an answer other than success, in one of Girder's shapes.
type apiError struct {
	status     int
	kind       string // the "type" of the body; empty: HTML text
	message    string
	field      string
	identifier string
	jsonType   bool // HTML text under a JSON content type
	noOptions  bool // there is not even a resource to ask for options
}

func (e *apiError) Error() string { return e.message }

// body is the error as Girder's JSON document.
func (e *apiError) body() map[string]any {
	doc := map[string]any{"type": e.kind, "message": e.message}
	if e.field != "" {
		doc["field"] = e.field
	}
	if e.identifier != "" {
		doc["identifier"] = e.identifier
	}
	if e.kind == "internal" {
		doc["uid"] = randomUUID()
	}
	return doc
}

// html is the page that Girder's web server makes of an error raised outside of
// its own handling. Short pages of some statuses are padded for old browsers.
func (e *apiError) html() string {
	page := fmt.Sprintf("<h2>%d %s</h2>\n<p>%s</p>\n<p><i>Powered by <a href=\"https://girder.readthedocs.io\">Girder</a></i></p>\n",
		e.status, http.StatusText(e.status), e.message)
	switch e.status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusInternalServerError:
		const friendly = 513
		return page + strings.Repeat(" ", max(0, friendly-len(page)))
	}
	return page
}

func restError(format string, args ...any) *apiError {
	return &apiError{status: http.StatusBadRequest, kind: "rest", message: fmt.Sprintf(format, args...)}
}

func validationError(field, format string, args ...any) *apiError {
	return &apiError{status: http.StatusBadRequest, kind: "validation", field: field, message: fmt.Sprintf(format, args...)}
}

// accessError refuses access: 401 where no user could be determined, else 403.
func accessError(u *user, format string, args ...any) *apiError {
	status := http.StatusUnauthorized
	if u != nil {
		status = http.StatusForbidden
	}
	return &apiError{status: status, kind: "access", message: fmt.Sprintf(format, args...)}
}

// internalError is what Girder answers to a failure that it did not foresee.
func internalError() *apiError {
	return &apiError{status: http.StatusInternalServerError, kind: "internal", message: "An unexpected error occurred on the server."}
}

func girderError(identifier, format string, args ...any) *apiError {
	return &apiError{
		status: http.StatusInternalServerError, kind: "girder",
		identifier: "girder." + identifier, message: fmt.Sprintf(format, args...),
	}
}

func htmlError(status int, message string) *apiError {
	return &apiError{status: status, message: message}
}

// unreadable is the page for a document that cannot be written as JSON.
func unreadable() *apiError {
	return &apiError{
		status: http.StatusInternalServerError, jsonType: true,
		message: "The server encountered an unexpected condition which prevented it from fulfilling the request.",
	}
}

func noRoute(method, path string) *apiError {
	return restError("No matching route for \"%s %s\"", method, path)
}

func invalidID(model, id string) *apiError { return restError("Invalid %s id (%s).", model, id) }

func noSuch(model, id string) *apiError { return validationError("id", "No such %s: %s", model, id) }
