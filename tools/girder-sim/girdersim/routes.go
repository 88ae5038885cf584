package girdersim

import (
	"net/http"
	"strings"
)

// need is what a route asks of the token.
type need int

const (
	needsNothing need = iota // also nobody may call; the handler decides
	needsUser                // a user, through a token with the route's scope
	needsToken               // any token
	needsScope               // a token that carries the route's scope itself
)

// route is one way to call the interface.
type route struct {
	method  string
	pattern []string // names; ":id" stands for any name
	needs   need
	scope   string // which scope a token needs to stand for its user; empty: ScopeUser
	cookie  bool   // the token may come as a cookie
	streams bool   // the handler does its own locking, others hold the store's lock
	extra   bool   // only where the options ask for artifacts
	handler func(*request) (any, error)
}

// routes are all ways, by their first name. Fixed names come before ":id".
var routes = byResource(
	get("system/version", needsNothing, "", systemVersion),
	get("system/uploads", needsUser, "", listUploads),
	get("user/authentication", needsNothing, "", login),
	get("user/me", needsNothing, scopeUserRead, currentUser),
	get("token/current", needsNothing, "", currentToken),
	call(http.MethodPost, "api_key/token", needsNothing, "", exchangeAPIKey),
	call(http.MethodPost, "api_key", needsUser, "", createAPIKey),

	get("job/all", needsUser, ScopeListJob, listAllJobs),
	get("job/typeandstatus", needsUser, ScopeListJob, typesAndStatuses),
	get("job", needsNothing, ScopeListJob, listJobs),
	get("job/:id", needsNothing, "", getJob),
	call(http.MethodPost, "job", needsScope, ScopeCreateJob, createJob),
	call(http.MethodPut, "job/:id", needsToken, "", updateJob),
	call(http.MethodPut, "job/:id/cancel", needsUser, "", cancelJob),
	call(http.MethodDelete, "job/:id", needsUser, "", deleteJob),
	optional(stream(http.MethodPost, "job/:id/artifact", createArtifact), needsToken),
	optional(get("job/:id/artifact", needsNothing, ScopeDataRead, listArtifacts), needsNothing),

	get("folder", needsNothing, ScopeDataRead, listFolders),
	get("folder/:id", needsNothing, ScopeDataRead, getFolder),
	get("folder/:id/details", needsNothing, ScopeDataRead, folderDetails),
	call(http.MethodPost, "folder", needsUser, ScopeDataWrite, createFolder),

	get("item", needsNothing, ScopeDataRead, listItems),
	get("item/:id", needsNothing, ScopeDataRead, getItem),
	get("item/:id/files", needsNothing, ScopeDataRead, listItemFiles),
	download("item/:id/download", downloadItem),
	call(http.MethodPost, "item", needsUser, ScopeDataWrite, createItem),
	call(http.MethodPut, "item/:id/metadata", needsUser, ScopeDataWrite, putMetadata),
	call(http.MethodDelete, "item/:id", needsUser, ScopeDataWrite, deleteItem),

	stream(http.MethodGet, "file/offset", uploadOffset),
	stream(http.MethodPost, "file/chunk", readChunk),
	stream(http.MethodPost, "file/completion", completeUpload),
	stream(http.MethodPost, "file", createFile),
	call(http.MethodDelete, "file/upload/:id", needsUser, ScopeDataWrite, cancelUpload),
	get("file/:id", needsNothing, ScopeDataRead, getFile),
	download("file/:id/download", downloadFile),
	download("file/:id/download/:name", downloadFile),
	call(http.MethodPut, "file/:id", needsUser, ScopeDataWrite, renameFile),
	call(http.MethodPut, "file/:id/contents", needsUser, ScopeDataWrite, replaceContents),
	call(http.MethodDelete, "file/:id", needsUser, ScopeDataWrite, deleteFile),

	get("resource/lookup", needsNothing, ScopeDataRead, lookup),
	download("resource/download", downloadResources),

	get("worker/status", needsUser, "", workerStatus),
)

func call(method, path string, needs need, scope string, handler func(*request) (any, error)) *route {
	return &route{method: method, pattern: strings.Split(path, "/"), needs: needs, scope: scope, handler: handler}
}

func get(path string, needs need, scope string, handler func(*request) (any, error)) *route {
	return call(http.MethodGet, path, needs, scope, handler)
}

func download(path string, handler func(*request) (any, error)) *route {
	r := get(path, needsNothing, ScopeDataRead, handler)
	r.cookie, r.streams = true, true
	return r
}

func stream(method, path string, handler func(*request) (any, error)) *route {
	r := call(method, path, needsUser, ScopeDataWrite, handler)
	r.streams = true
	return r
}

// optional is a route that no release of Girder has.
func optional(r *route, needs need) *route {
	r.extra, r.needs = true, needs
	return r
}

func byResource(all ...*route) map[string][]*route {
	table := map[string][]*route{}
	for _, r := range all {
		resource := r.pattern[0]
		r.pattern = r.pattern[1:]
		table[resource] = append(table[resource], r)
	}
	return table
}

// match compares the names behind the resource and picks the id from them.
func (r *route) match(method string, names []string) (id string, ok bool) {
	if r.method != method || len(r.pattern) != len(names) {
		return "", false
	}
	for i, part := range r.pattern {
		switch {
		case part == ":id":
			id = names[i]
		case !strings.HasPrefix(part, ":") && part != names[i]:
			return "", false
		}
	}
	return id, true
}

// release is the version of Girder that the simulator follows.
const release = "5.0.14"

func systemVersion(q *request) (any, error) {
	return map[string]any{"release": release, "serverStartDate": iso(q.started)}, nil
}

// workerStatus is what Girder says when no worker is connected to its broker.
func workerStatus(*request) (any, error) {
	return map[string]any{"report": nil, "stats": nil, "ping": nil, "active": map[string]any{}, "reserved": map[string]any{}}, nil
}
