package girdersim

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const jobTokenLife = 7 * 24 * time.Hour

// job is a task's record in Girder.
type job struct {
	ID, Title, Type string
	Handler         string // empty: none
	Public          bool
	UserID          string // empty: no owner
	ParentID        string
	Status          int
	Args            any
	Kwargs          any
	Log             []string `json:"-"` // see logFiles
	Progress        *progress
	Timestamps      []change
	Token, URL      string
	Asynchronous    bool
	Interval        any
	Extra           map[string]any // other fields, among them celeryTaskId

	Created, Updated, When time.Time
}

type progress struct {
	Total, Current *number
	Message        *string
}

// change is an accepted change of the status.
type change struct {
	Status int
	Time   time.Time
}

func jobScope(id string) string { return "jobs.job_" + id }

func (j *job) hasTask() bool { return j.Extra["celeryTaskId"] != nil && j.Extra["celeryTaskId"] != "" }

func (j *job) level(u *user) int {
	shared := map[string]int{}
	if j.UserID != "" {
		shared[j.UserID] = admin
	}
	return levelOf(u, shared, j.Public)
}

// view is the job as u sees it, without its log. Only admins see what it runs.
func (j *job) view(u *user) map[string]any {
	doc := map[string]any{
		"_accessLevel": j.level(u), "_id": j.ID, "_modelType": "job", "asynchronous": j.Asynchronous,
		"created": iso(j.Created), "handler": orNull(j.Handler), "interval": j.Interval,
		"jobInfoSpec": map[string]any{
			"method": http.MethodPut, "url": j.URL, "reference": j.ID,
			"headers": map[string]any{"Girder-Token": j.Token}, "logPrint": true,
		},
		"meta": map[string]any{}, "parentId": orNull(j.ParentID), "progress": j.Progress.view(), "public": j.Public,
		"status": j.Status, "timestamps": timestamps(j.Timestamps), "title": j.Title, "type": j.Type,
		"updated": iso(j.Updated), "when": iso(j.When),
	}
	if u == nil || !u.Admin {
		return doc
	}
	doc["args"], doc["kwargs"] = j.Args, j.Kwargs
	for _, field := range []string{"celeryTaskId", "celeryQueue"} {
		if value, ok := j.Extra[field]; ok {
			doc[field] = value
		}
	}
	return doc
}

// fullView is the view with the log.
func (j *job) fullView(u *user) map[string]any {
	doc := j.view(u)
	doc["log"] = slices.Clip(j.Log)
	return doc
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func timestamps(list []change) []any {
	out := make([]any, len(list))
	for i, c := range list {
		out[i] = map[string]any{"status": c.Status, "time": iso(c.Time)}
	}
	return out
}

func (p *progress) view() any {
	if p == nil {
		return nil
	}
	doc := map[string]any{"total": nil, "current": nil, "message": nil}
	if p.Total != nil {
		doc["total"] = *p.Total
	}
	if p.Current != nil {
		doc["current"] = *p.Current
	}
	if p.Message != nil {
		doc["message"] = *p.Message
	}
	return doc
}

// newJob stores a job with its token and shows it as created to u. The other
// fields may set any field of the job.
func (st *store) newJob(j *job, apiURL string, other map[string]any, u *user) (map[string]any, error) {
	j.ID, j.Interval, j.Log, j.Extra = st.ids.next(), 0, []string{}, map[string]any{}
	j.Created = stamp()
	j.When = j.Created
	for field, value := range other {
		if err := st.setField(j, field, value); err != nil {
			return nil, err
		}
	}
	t, err := st.newToken("", "", jobTokenLife, jobScope(j.ID))
	if err != nil {
		return nil, err
	}
	j.Token, j.URL = t.Value, apiURL+"/job/"+j.ID
	j.Updated = stamp()
	view := j.fullView(u)
	return view, st.putJob(j)
}

func (st *store) setField(j *job, field string, value any) error {
	text, _ := value.(string)
	switch field {
	case "title":
		j.Title = text
	case "type":
		j.Type = text
	case "handler":
		j.Handler = text
	case "parentId":
		j.ParentID = text
	case "public":
		j.Public, _ = value.(bool)
	case "asynchronous":
		j.Asynchronous, _ = value.(bool)
	case "args":
		j.Args = value
	case "kwargs":
		j.Kwargs = value
	case "status":
		return j.setStatus(fmt.Sprint(value))
	case "celeryParentTaskId":
		parent := st.jobs.first(func(p *job) bool { return text != "" && p.Extra["celeryTaskId"] == text })
		if parent == nil {
			return internalError()
		}
		j.ParentID = parent.ID
	}
	j.Extra[field] = value
	return nil
}

// setStatus sets a known status without asking for the way to it.
func (j *job) setStatus(text string) error {
	status, err := parseStatus(text)
	if err == nil {
		j.Status = status
	}
	return err
}

func parseStatus(text string) (int, error) {
	status, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil || !knownStatus(status) {
		return 0, validationError("status", "Invalid job status %s.", text)
	}
	return status, nil
}

// changeStatus is the only way from one status to another.
func (j *job) changeStatus(to int, now time.Time) error {
	if to == j.Status {
		return nil
	}
	if err := checkChange(j.Handler, j.Status, to); err != nil {
		return err
	}
	j.Status, j.Updated = to, now
	j.Timestamps = append(slices.Clip(j.Timestamps), change{to, now})
	return nil
}

func createJob(q *request) (any, error) {
	title, err := q.p.required("title")
	if err != nil {
		return nil, err
	}
	kind, err := q.p.required("type")
	if err != nil {
		return nil, err
	}
	j := &job{Title: title, Type: kind, Handler: q.p.text("handler"), Public: q.p.boolean("public", false), Kwargs: map[string]any{}}
	args, err := q.p.array("args")
	if err != nil {
		return nil, err
	}
	if args != nil {
		j.Args = args
	}
	kwargs, err := q.p.object("kwargs")
	if err != nil {
		return nil, err
	}
	if kwargs != nil {
		j.Kwargs = kwargs
	}
	other, err := q.p.object("otherFields")
	if err != nil {
		return nil, err
	}
	if id := q.p.text("parentId"); id != "" {
		parent, err := q.jobFor(id)
		if err != nil {
			return nil, err
		}
		j.ParentID = parent.ID
	}
	if q.user != nil {
		j.UserID = q.user.ID
	}
	scheme := "http://"
	if q.r.TLS != nil {
		scheme = "https://"
	}
	return q.st.newJob(j, scheme+q.r.Host+apiRoot, other, q.user)
}

// accessJob lets a user with enough access or the job's own token pass.
func (q *request) accessJob(id string, needed int) (*job, error) {
	j, err := q.jobFor(id)
	if err != nil {
		return nil, err
	}
	if needed == read && j.Public {
		return j, nil
	}
	if q.user != nil {
		return j, requireLevel(q.user, "job", j.ID, j.level(q.user), needed)
	}
	return j, q.ensureScope(jobScope(j.ID))
}

func getJob(q *request) (any, error) {
	j, err := q.accessJob(q.id, read)
	if err != nil {
		return nil, err
	}
	return j.fullView(q.user), nil
}

func updateJob(q *request) (any, error) {
	j, err := q.accessJob(q.id, write)
	if err != nil {
		return nil, err
	}
	changed := *j
	if err := changed.apply(q.p); err != nil {
		return nil, err
	}
	view := changed.view(q.user)
	return view, q.st.putJob(&changed)
}

// apply makes all changes of one update, or none with an error.
func (j *job) apply(p *params) error {
	now := stamp()
	total, err := p.float("progressTotal")
	if err != nil {
		return err
	}
	current, err := p.float("progressCurrent")
	if err != nil {
		return err
	}
	if text, ok := p.optional("status"); ok {
		status, err := parseStatus(text)
		if err != nil {
			return err
		}
		if err := j.changeStatus(status, now); err != nil {
			return err
		}
	}
	if text, ok := p.optional("log"); ok {
		j.addLog(text, p.boolean("overwrite", false), now)
	}
	message, hasMessage := p.optional("progressMessage")
	if total != nil || current != nil || hasMessage {
		j.addProgress(total, current, message, hasMessage)
		j.Updated = now
	}
	return nil
}

func (j *job) addLog(text string, overwrite bool, now time.Time) {
	switch {
	case overwrite:
		j.Log = []string{text}
	case text == "":
		return
	default:
		j.Log = appendLog(j.Log, text, utf8.RuneCountInString(text))
	}
	j.Updated = now
}

func (j *job) addProgress(total, current *number, message string, hasMessage bool) {
	var p progress
	if j.Progress != nil {
		p = *j.Progress
	}
	if total != nil {
		p.Total = total
	}
	if current != nil {
		p.Current = current
	}
	if hasMessage {
		p.Message = &message
	}
	j.Progress = &p
}

func cancelJob(q *request) (any, error) {
	j, err := q.jobFor(q.id)
	if err != nil {
		return nil, err
	}
	if err := requireLevel(q.user, "job", j.ID, j.level(q.user), write); err != nil {
		return nil, err
	}
	return q.st.cancel(j, q.user)
}

// cancel asks for the job's end and shows the job to u. What that means, if
// anything, depends on its handler.
func (st *store) cancel(j *job, u *user) (map[string]any, error) {
	target, ok := cancelTarget(j.Handler, j.hasTask(), j.Status)
	if !ok {
		return j.view(u), nil
	}
	changed := *j
	if err := changed.changeStatus(target, stamp()); err != nil {
		return nil, err
	}
	view := changed.view(u)
	return view, st.putJob(&changed)
}

func deleteJob(q *request) (any, error) {
	j, err := q.jobFor(q.id)
	if err != nil {
		return nil, err
	}
	if err := requireLevel(q.user, "job", j.ID, j.level(q.user), admin); err != nil {
		return nil, err
	}
	return nil, q.st.removeJob(j)
}
