package girdersim

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Job is a job as it was when asked for.
type Job struct {
	ID, Title, Type, Handler string
	UserID, ParentID, TaskID string // empty: none
	Status                   int
	Log                      []string // one entry for each update
	Progress                 *Progress
	Timestamps               []Change // every accepted change of the status
	Token, URL               string   // what a worker updates the job with
	Created, Updated         time.Time
}

// Progress is a job's progress; nil for what was never told.
type Progress struct {
	Total, Current *float64
	Message        *string
}

// Change is a status that a job took on.
type Change struct {
	Status int
	Time   time.Time
}

// Statuses are those that the job took on, in order.
func (j Job) Statuses() []int {
	var out []int
	for _, c := range j.Timestamps {
		out = append(out, c.Status)
	}
	return out
}

func (j *job) public() Job {
	out := Job{
		ID: j.ID, Title: j.Title, Type: j.Type, Handler: j.Handler, UserID: j.UserID, ParentID: j.ParentID,
		Status: j.Status, Log: slices.Clone(j.Log), Token: j.Token, URL: j.URL, Created: j.Created, Updated: j.Updated,
	}
	out.TaskID, _ = j.Extra["celeryTaskId"].(string)
	if p := j.Progress; p != nil {
		out.Progress = &Progress{(*float64)(p.Total), (*float64)(p.Current), p.Message}
	}
	for _, c := range j.Timestamps {
		out.Timestamps = append(out.Timestamps, Change(c))
	}
	return out
}

// JobSpec is a job to create.
type JobSpec struct {
	Title    string // empty: "job"
	Type     string // empty: "celery"
	Handler  string // empty: CeleryHandler
	TaskID   string // the task's id; empty: a random one. Without it no cancel would have an effect
	UserID   string // the owner; empty: none
	ParentID string // a parent job; empty: none
	Public   bool
	Status   int
	Args     []any
	Kwargs   map[string]any
	Other    map[string]any // any further field, wins over those above
}

// CreateJob makes a job as Girder's own code does when it sends out a task. The
// token in the result is the worker's.
func (s *Server) CreateJob(spec JobSpec) (Job, error) {
	fields, err := spec.fields()
	if err != nil {
		return Job{}, fmt.Errorf("create job %s: %w", spec.Title, err)
	}
	s.st.mu.Lock()
	defer s.st.mu.Unlock()
	j := &job{
		Title: orElse(spec.Title, "job"), Type: orElse(spec.Type, "celery"), Handler: orElse(spec.Handler, CeleryHandler),
		UserID: spec.UserID, ParentID: spec.ParentID, Public: spec.Public, Status: spec.Status,
	}
	if _, err := s.st.newJob(j, s.APIURL(), fields, nil); err != nil {
		return Job{}, fmt.Errorf("create job %s: %w", j.Title, err)
	}
	return j.public(), nil
}

// fields are those that Girder sets by name, as the interface would read them.
func (spec JobSpec) fields() (map[string]any, error) {
	fields := map[string]any{
		"celeryTaskId": orElse(spec.TaskID, randomUUID()), "args": spec.Args, "kwargs": spec.Kwargs,
	}
	if spec.Kwargs == nil {
		fields["kwargs"] = map[string]any{}
	}
	maps.Copy(fields, spec.Other)
	text, err := json.Marshal(fields)
	if err != nil {
		return nil, fmt.Errorf("encode fields: %w", err)
	}
	value, err := decodeJSON(text)
	if err != nil {
		return nil, fmt.Errorf("decode fields: %w", err)
	}
	return value.(map[string]any), nil
}

func orElse(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

// Job returns the job as it is now.
func (s *Server) Job(id string) (Job, error) {
	s.st.mu.Lock()
	defer s.st.mu.Unlock()
	j := s.st.jobs.get(id)
	if j == nil {
		return Job{}, fmt.Errorf("job %s: %w", id, ErrNotFound)
	}
	return j.public(), nil
}

// Jobs are all jobs, oldest first.
func (s *Server) Jobs() []Job {
	s.st.mu.Lock()
	defer s.st.mu.Unlock()
	var out []Job
	for _, j := range s.st.jobs.find(func(*job) bool { return true }) {
		out = append(out, j.public())
	}
	return out
}

// CancelJob cancels as the job's owner would. Without an error the job may
// still go on: look at the status of the result.
func (s *Server) CancelJob(id string) (Job, error) {
	s.st.mu.Lock()
	defer s.st.mu.Unlock()
	j := s.st.jobs.get(id)
	if j == nil {
		return Job{}, fmt.Errorf("cancel job %s: %w", id, ErrNotFound)
	}
	if _, err := s.st.cancel(j, nil); err != nil {
		return Job{}, fmt.Errorf("cancel job %s: %w", id, err)
	}
	return s.st.jobs.get(id).public(), nil
}

// SetJobStatus puts a status into the database, past all rules.
func (s *Server) SetJobStatus(id string, status int) error {
	s.st.mu.Lock()
	defer s.st.mu.Unlock()
	j := s.st.jobs.get(id)
	if j == nil {
		return fmt.Errorf("set status of job %s: %w", id, ErrNotFound)
	}
	changed := *j
	changed.Status = status
	return s.st.putJob(&changed)
}

// AwaitJob returns the job as soon as the condition holds. It looks whenever a
// job changes; the condition must not call the server.
func (s *Server) AwaitJob(ctx context.Context, id string, condition func(Job) bool) (Job, error) {
	for {
		s.st.mu.Lock()
		j, changed := s.st.jobs.get(id), s.st.jobChanged
		if j == nil {
			s.st.mu.Unlock()
			return Job{}, fmt.Errorf("await job %s: %w", id, ErrNotFound)
		}
		now := j.public()
		s.st.mu.Unlock()
		if condition(now) {
			return now, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return now, fmt.Errorf("await job %s in status %d: %w", id, now.Status, context.Cause(ctx))
		}
	}
}
