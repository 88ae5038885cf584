package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/image"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// Image returns a present image by reference or ID.
func (e *Engine) Image(ctx context.Context, ref string) (engine.Image, error) {
	call, cancel := e.bounded(ctx)
	defer cancel()
	found, err := e.api().ImageInspect(call, ref)
	if err != nil {
		return engine.Image{}, e.wrapAs(ctx, "find", "image "+ref, err, func(err error) error {
			if errdefs.IsNotFound(err) {
				return engine.ErrImageNotFound
			}
			return kindOf(err)
		})
	}
	img := engine.Image{ID: found.ID, Digest: digestFor(ref, found.RepoDigests)}
	if found.Config != nil {
		img.Labels, img.StopSignal = found.Config.Labels, found.Config.StopSignal
	}
	return img, nil
}

// digestFor picks the digest that the image has in the repository it was asked
// for by; the same image may have come from several.
func digestFor(ref string, repoDigests []string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ""
	}
	for _, rd := range repoDigests {
		have, err := reference.ParseNormalizedNamed(rd)
		if err != nil || have.Name() != named.Name() {
			continue
		}
		if d, ok := have.(reference.Digested); ok {
			return d.Digest().String()
		}
	}
	return ""
}

// Pull fetches an image from its registry.
func (e *Engine) Pull(ctx context.Context, ref string, progress func(engine.PullProgress)) error {
	subject := "image " + ref
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return &engine.Error{Op: "pull", Subject: subject, Kind: engine.ErrRefused, Detail: err.Error()}
	}
	auth, authErr := e.creds.forImage(named)
	body, err := e.api().ImagePull(ctx, reference.TagNameOnly(named).String(), image.PullOptions{RegistryAuth: auth})
	if err == nil {
		err = follow(body, progress)
		_ = body.Close() // only read from
	}
	err = e.wrapAs(ctx, "pull", subject, err, pullKind)

	// Unreadable credentials do not keep a public image from being pulled, but
	// they are the likely reason when the registry says no.
	if failed := (*engine.Error)(nil); authErr != nil && errors.As(err, &failed) && failed.Kind == engine.ErrPullDenied {
		failed.Detail += " (" + authErr.Error() + ")"
	}
	return err
}

// pullMessage is one line of the engine's answer to a pull.
type pullMessage struct {
	ID       string `json:"id"`
	Status   string `json:"status"`
	Progress struct {
		Current int64 `json:"current"`
		Total   int64 `json:"total"`
	} `json:"progressDetail"`
	Error string `json:"error"`
}

// follow reads the engine's answer to its end and returns the error in it.
func follow(body io.Reader, progress func(engine.PullProgress)) error {
	sums := layers{}
	dec := json.NewDecoder(body)
	for {
		var m pullMessage
		err := dec.Decode(&m)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read the engine's answer: %w", err)
		case m.Error != "":
			return errors.New("Error response from daemon: " + m.Error)
		}
		done, total := sums.add(m)
		progress(engine.PullProgress{Done: done, Total: total, Layer: m.ID, Status: m.Status})
	}
}

// layers keeps the bytes of each layer that were downloaded.
type layers map[string]*struct{ done, total int64 }

// add takes a message in and returns the sums over all layers.
func (l layers) add(m pullMessage) (done, total int64) {
	layer := l[m.ID]
	if layer == nil {
		layer = &struct{ done, total int64 }{}
		l[m.ID] = layer
	}
	switch {
	case m.Status == "Downloading":
		layer.done, layer.total = m.Progress.Current, max(m.Progress.Total, m.Progress.Current)
	case m.Status == "Download complete", strings.HasPrefix(m.Status, "Pull complete"):
		layer.done = layer.total
	}
	for _, one := range l {
		done, total = done+one.done, total+one.total
	}
	return done, total
}
