package girder

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
)

// Artifact is a file to attach to a job.
type Artifact struct {
	Name     string
	Size     int64
	MIMEType string // empty: it cannot be told
}

// UploadArtifact attaches a file to a job, all of it in one request. No release
// of Girder has this endpoint ([ErrNoRoute]), only some installations do. It is
// sent once: after an unknown finish [Client.JobArtifacts] says what is there.
func (c *Client) UploadArtifact(ctx context.Context, id JobID, a Artifact, body io.Reader) (File, error) {
	if err := checkID("job", string(id)); err != nil {
		return File{}, err
	}
	req := c.call(http.MethodPost, "job/"+string(id)+"/artifact")
	req.query = url.Values{"name": {a.Name}, "size": {strconv.FormatInt(a.Size, 10)}}
	if a.MIMEType != "" {
		req.query.Set("mimeType", a.MIMEType)
	}
	if a.Size > 0 {
		req.body, req.length = body, a.Size
	}
	return ask[File](ctx, c.s, req)
}

// JobArtifacts lists the files that are attached to a job.
func (c *Client) JobArtifacts(ctx context.Context, id JobID) ([]File, error) {
	if err := checkID("job", string(id)); err != nil {
		return nil, err
	}
	req := c.call(http.MethodGet, "job/"+string(id)+"/artifact")
	req.query = url.Values{"limit": {"0"}}
	return ask[[]File](ctx, c.s, req)
}
