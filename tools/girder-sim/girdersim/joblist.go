package girdersim

import (
	"fmt"
	"maps"
	"slices"
)

// jobFilter says which jobs a list shows.
type jobFilter struct {
	statuses, types, handlers []any
	parentID                  string
	byOwner                   bool
	owner                     string // empty: jobs without an owner
}

func (q *request) jobFilter() (jobFilter, error) {
	f := jobFilter{parentID: q.p.text("parentId")}
	var err error
	if f.statuses, err = q.p.array("statuses"); err != nil {
		return f, err
	}
	if f.types, err = q.p.array("types"); err != nil {
		return f, err
	}
	f.handlers, err = q.p.array("handlers")
	return f, err
}

func (f jobFilter) matches(j *job) bool {
	return (f.statuses == nil || containsText(f.statuses, j.Status)) &&
		(f.types == nil || containsText(f.types, j.Type)) &&
		(f.handlers == nil || containsText(f.handlers, j.Handler)) &&
		(f.parentID == "" || f.parentID == j.ParentID) &&
		(!f.byOwner || f.owner == j.UserID)
}

func containsText(values []any, wanted any) bool {
	return slices.ContainsFunc(values, func(v any) bool { return fmt.Sprint(v) == fmt.Sprint(wanted) })
}

// listJobs lists the jobs of a user, by default the caller's; for a caller who
// is nobody, those without an owner.
func listJobs(q *request) (any, error) {
	f, err := q.jobFilter()
	if err != nil {
		return nil, err
	}
	f.byOwner = true
	userID, given := q.p.optional("userId")
	switch {
	case given && userID == "None":
	case given && userID != "":
		if q.st.users.get(userID) == nil {
			return nil, invalidID("user", userID)
		}
		f.owner = userID
	case q.user != nil:
		f.owner = q.user.ID
	}
	return q.pageOfJobs(f)
}

func listAllJobs(q *request) (any, error) {
	f, err := q.jobFilter()
	if err != nil {
		return nil, err
	}
	return q.pageOfJobs(f)
}

func (q *request) pageOfJobs(f jobFilter) (any, error) {
	pg, err := q.p.page("created", true)
	if err != nil {
		return nil, err
	}
	found := q.st.jobs.find(func(j *job) bool { return f.matches(j) && j.level(q.user) >= read })
	return pg.cut(views(found, func(j *job) map[string]any { return j.view(q.user) })), nil
}

// typesAndStatuses tells what kinds of jobs the caller has.
func typesAndStatuses(q *request) (any, error) {
	types, statuses := map[string]bool{}, map[int]bool{}
	for _, j := range q.st.jobs.find(func(j *job) bool { return j.UserID == q.user.ID }) {
		types[j.Type], statuses[j.Status] = true, true
	}
	return map[string]any{
		"types":    slices.Sorted(maps.Keys(types)),
		"statuses": slices.Sorted(maps.Keys(statuses)),
	}, nil
}
