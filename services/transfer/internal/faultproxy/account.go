package faultproxy

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"path"
	"slices"
	"sync"
)

// Upload is one that Girder began at the request of a client.
type Upload struct {
	ID   string
	Told bool // the answer that has the id was passed on whole, to a client that may have given up
	Used bool // the client has named the id since
}

// account is what came of the requests.
type account struct {
	mu       sync.Mutex
	counts   map[Kind]int
	uploads  map[string]*Upload
	twice    []string
	attached int
	story    []string
}

func newAccount() *account { return &account{counts: map[Kind]int{}, uploads: map[string]*Upload{}} }

func (a *account) count(q *asked) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counts[q.kind]++
	a.story = append(a.story, fmt.Sprintf("  %s %s: %s", q.Method, q.URL.Path, q.kind))
}

// came takes in which upload a request names.
func (a *account) came(r *http.Request, route Route) {
	id := r.URL.Query().Get("uploadId")
	if route == Cancel {
		id = path.Base(r.URL.Path)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.story = append(a.story, fmt.Sprintf("%s %s", r.Method, r.URL.RequestURI()))
	if up := a.uploads[id]; up != nil {
		up.Used = true
	}
}

// begun takes in the upload that an answer of Girder began, and returns its id.
func (a *account) begun(got answer) string {
	var doc struct {
		ID    string `json:"_id"`
		Model string `json:"_modelType"`
	}
	if got.status/100 != 2 || json.Unmarshal(got.body, &doc) != nil || doc.Model == "file" || doc.ID == "" {
		return ""
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.uploads[doc.ID] = &Upload{ID: doc.ID}
	return doc.ID
}

func (a *account) told(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if up := a.uploads[id]; up != nil {
		up.Told = true
	}
}

func (a *account) madeTwice(r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.twice = append(a.twice, r.URL.Query().Get("name"))
}

func (a *account) partAttached() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.attached++
}

// Counts says how often each kind of fault did happen.
func (p *Proxy) Counts() map[Kind]int {
	p.account.mu.Lock()
	defer p.account.mu.Unlock()
	return maps.Clone(p.account.counts)
}

// answered takes in what Girder answered to a request.
func (a *account) answered(r *http.Request, got answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.story = append(a.story, fmt.Sprintf("  %s %s: Girder says %d", r.Method, r.URL.Path, got.status))
}

// Story is what happened, in order: requests, Girder's answers, and faults.
func (p *Proxy) Story() []string {
	p.account.mu.Lock()
	defer p.account.mu.Unlock()
	return slices.Clone(p.account.story)
}

// Uploads are all uploads that Girder began through the proxy.
func (p *Proxy) Uploads() []Upload {
	p.account.mu.Lock()
	defer p.account.mu.Unlock()
	var all []Upload
	for _, id := range slices.Sorted(maps.Keys(p.account.uploads)) {
		all = append(all, *p.account.uploads[id])
	}
	return all
}

// Twice are the names of the files that a request for one made twice, or made
// when its client had given up, and may have asked again.
func (p *Proxy) Twice() []string {
	p.account.mu.Lock()
	defer p.account.mu.Unlock()
	return slices.Clone(p.account.twice)
}

// PartsAttached is how many artifacts Girder got a part of. Each may have left
// an upload, whose id nobody is told.
func (p *Proxy) PartsAttached() int {
	p.account.mu.Lock()
	defer p.account.mu.Unlock()
	return p.account.attached
}
