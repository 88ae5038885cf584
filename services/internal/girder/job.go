package girder

import (
	"context"
	"encoding/json"
	"math"
	"net/http"
	"net/url"
	"strconv"

	"github.com/gantry-worker/gantry/contracts"
)

// Job is Girder's document of a job.
type Job struct {
	ID         JobID                  `json:"_id"`
	Title      string                 `json:"title"`
	Type       string                 `json:"type"`
	Handler    string                 `json:"handler"`
	Status     contracts.GirderStatus `json:"status"`
	Log        JobLog                 `json:"log"` // only where a single job is read
	Progress   *Progress              `json:"progress"`
	Timestamps []StatusTime           `json:"timestamps"`
	ParentID   JobID                  `json:"parentId"`
	UserID     UserID                 `json:"userId"`
	Public     bool                   `json:"public"`
	Updated    string                 `json:"updated"`
	TaskID     string                 `json:"celeryTaskId"` // shown to site admins only
	Meta       json.RawMessage        `json:"meta"`
	Spec       *JobSpec               `json:"jobInfoSpec"`
}

// StatusTime is an entry of a job's status history. Time is as Girder writes
// it, whose form differs between answers: not to be compared as text.
type StatusTime struct {
	Status contracts.GirderStatus `json:"status"`
	Time   string                 `json:"time"`
}

// JobSpec is what Girder hands out so that a worker can report on one job. Its headers are secret.
type JobSpec struct {
	Method    string            `json:"method"`
	URL       string            `json:"url"`
	Reference string            `json:"reference"`
	Headers   map[string]string `json:"headers"`
	LogPrint  bool              `json:"logPrint"`
}

// JobLog is a job's log, an entry for each update that appended to it.
type JobLog []string

// UnmarshalJSON also takes the single text that old jobs have, and null.
func (l *JobLog) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) == nil {
		*l = nil
		if text != "" {
			*l = JobLog{text}
		}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(l))
}

// Progress of a job. In an update only the fields that are set change, and
// what is not a finite number is left out, since Girder would store it and
// could then no longer show the job.
type Progress struct {
	Total   *float64 `json:"total"`
	Current *float64 `json:"current"`
	Message *string  `json:"message"`
}

// JobUpdate is one atomic change of a job: Girder stores all of it, or, where
// the status change is refused, nothing. The zero value changes nothing and
// reads the job without its log.
type JobUpdate struct {
	Log       string                  // appended as one entry; at most 64 KiB, see the contracts
	Overwrite bool                    // Log replaces the log instead
	Status    *contracts.GirderStatus // nil: unchanged
	Progress  Progress

	// Retry lets the update be sent again after an unknown finish. Only for
	// updates that may happen twice: those that do not append to the log.
	Retry bool
}

func (u JobUpdate) form() url.Values {
	form := url.Values{}
	if u.Log != "" || u.Overwrite {
		form.Set("log", u.Log)
	}
	if u.Overwrite {
		form.Set("overwrite", "true")
	}
	if u.Status != nil {
		form.Set("status", strconv.Itoa(int(*u.Status)))
	}
	setNumber(form, "progressTotal", u.Progress.Total)
	setNumber(form, "progressCurrent", u.Progress.Current)
	if u.Progress.Message != nil {
		form.Set("progressMessage", *u.Progress.Message)
	}
	return form
}

func setNumber(form url.Values, name string, value *float64) {
	if value == nil || math.IsNaN(*value) || math.IsInf(*value, 0) {
		return
	}
	form.Set(name, strconv.FormatFloat(*value, 'g', -1, 64))
}

// NewJob asks for a new Girder job. The token must carry the scope jobs.rest.create_job.
type NewJob struct {
	Title       string
	Type        string
	Handler     string
	Public      bool
	ParentID    JobID           // optional
	Args        json.RawMessage // a JSON array, optional
	Kwargs      json.RawMessage // a JSON object, optional
	OtherFields json.RawMessage // a JSON object, optional; celeryTaskId makes the job cancelable
}

func (n NewJob) form() url.Values {
	form := url.Values{"title": {n.Title}, "type": {n.Type}, "public": {strconv.FormatBool(n.Public)}}
	for name, value := range map[string]string{
		"handler": n.Handler, "parentId": string(n.ParentID),
		"args": string(n.Args), "kwargs": string(n.Kwargs), "otherFields": string(n.OtherFields),
	} {
		if value != "" {
			form.Set(name, value)
		}
	}
	return form
}

// CreateJob makes a job. It is sent once: after an unknown finish there may be a job or not.
func (c *Client) CreateJob(ctx context.Context, n NewJob) (Job, error) {
	req := c.call(http.MethodPost, "job")
	req.form = n.form()
	return ask[Job](ctx, c.s, req)
}

// GetJob reads a job with its log.
func (c *Client) GetJob(ctx context.Context, id JobID) (Job, error) {
	if err := checkID("job", string(id)); err != nil {
		return Job{}, err
	}
	return ask[Job](ctx, c.s, c.call(http.MethodGet, "job/"+string(id)))
}

// UpdateJob changes a job and returns it, without its log.
func (c *Client) UpdateJob(ctx context.Context, id JobID, u JobUpdate) (Job, error) {
	if err := checkID("job", string(id)); err != nil {
		return Job{}, err
	}
	req := c.call(http.MethodPut, "job/"+string(id))
	req.form, req.again = u.form(), u.Retry
	return ask[Job](ctx, c.s, req)
}
