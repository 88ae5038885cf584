package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// girder asks a Girder over its REST interface, as a browser would.
type girder struct {
	apiURL, token string
}

// girderJob is a Girder job as the interface shows it.
type girderJob struct {
	ID         string `json:"_id"`
	Title      string
	Status     int
	Timestamps []struct {
		Status int
		Time   string
	}
	Log      []string
	Progress *struct {
		Current, Total *float64
	}
}

// girderFile is a file of an item.
type girderFile struct {
	ID   string `json:"_id"`
	Name string
	Size int64
}

func (g girder) job(ctx context.Context, id string) (job girderJob, err error) {
	return job, g.get(ctx, "/job/"+id, &job)
}

func (g girder) files(ctx context.Context, itemID string) (files []girderFile, err error) {
	return files, g.get(ctx, "/item/"+itemID+"/files", &files)
}

func (g girder) download(ctx context.Context, fileID string) ([]byte, error) {
	return g.read(ctx, "/file/"+fileID+"/download")
}

func (g girder) get(ctx context.Context, path string, into any) error {
	body, err := g.read(ctx, path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("get %s: %w", path, err)
	}
	return nil
}

func (g girder) read(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.apiURL+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Girder-Token", g.token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // only read from
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("get %s: %s: %s", path, resp.Status, body)
	}
	return body, err
}
