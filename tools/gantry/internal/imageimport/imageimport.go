// Package imageimport makes a Docker image out of one static program, as FROM
// scratch would, through the Docker engine's HTTP interface: one request, no
// registry, no build. The demo needs nothing more of Docker.
package imageimport

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// ErrNoEngine is returned where no Docker engine answers.
var ErrNoEngine = errors.New("no Docker engine answers")

// defaultHost is where an engine is looked for that nothing names.
const defaultHost = "unix:///var/run/docker.sock"

// Engine is a Docker engine.
type Engine struct {
	host   string
	client *http.Client
}

// New returns the engine at a host as in DOCKER_HOST, the standard socket if
// empty.
func New(host string) (*Engine, error) {
	if host == "" {
		host = defaultHost
	}
	network, address, _ := strings.Cut(host, "://")
	if network == "http" {
		network = "tcp"
	}
	if network != "unix" && network != "tcp" || address == "" {
		return nil, fmt.Errorf("DOCKER_HOST is %q: it must start with unix:// or tcp://", host)
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	return &Engine{host: host, client: &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}, nil
}

// Host is where the engine is, as in DOCKER_HOST.
func (e *Engine) Host() string { return e.host }

// Ping asks the engine for any answer.
func (e *Engine) Ping(ctx context.Context) error {
	_, err := e.call(ctx, http.MethodGet, "/_ping", nil, nil)
	return err
}

// Version returns the engine's version.
func (e *Engine) Version(ctx context.Context) (string, error) {
	body, err := e.call(ctx, http.MethodGet, "/version", nil, nil)
	if err != nil {
		return "", err
	}
	var version struct{ Version string }
	if err := json.Unmarshal(body, &version); err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", e.host, err)
	}
	return version.Version, nil
}

// Import makes the image ref, a name with a tag, whose only file is the program
// and which runs it.
func (e *Engine) Import(ctx context.Context, ref string, program []byte) error {
	const path = "program"
	name, tag, _ := strings.Cut(ref, ":")
	layer, err := tarOf(path, program)
	if err != nil {
		return fmt.Errorf("import %s: %w", ref, err)
	}
	query := url.Values{"fromSrc": {"-"}, "repo": {name}, "tag": {tag}, "changes": {`ENTRYPOINT ["/` + path + `"]`}}
	body, err := e.call(ctx, http.MethodPost, "/images/create", query, layer)
	if err != nil {
		return fmt.Errorf("import %s: %w", ref, err)
	}
	return importError(ref, body)
}

// importError finds an error in the stream of messages that answers an import
// with status 200.
func importError(ref string, body []byte) error {
	for decoder := json.NewDecoder(bytes.NewReader(body)); ; {
		var message struct{ Error string }
		err := decoder.Decode(&message)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("import %s: read the engine's answer: %w", ref, err)
		}
		if message.Error != "" {
			return fmt.Errorf("import %s: %s", ref, message.Error)
		}
	}
}

// Remove removes an image; one that is not there is no error.
func (e *Engine) Remove(ctx context.Context, ref string) error {
	_, err := e.call(ctx, http.MethodDelete, "/images/"+ref, nil, nil)
	var refused *statusError
	if errors.As(err, &refused) && refused.status == http.StatusNotFound {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", ref, err)
	}
	return nil
}

// statusError is an answer that is none of the good ones.
type statusError struct {
	status  int
	message string
}

func (e *statusError) Error() string { return fmt.Sprintf("%s (status %d)", e.message, e.status) }

func (e *Engine) call(ctx context.Context, method, path string, query url.Values, body []byte) ([]byte, error) {
	target := url.URL{Scheme: "http", Host: "docker", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w at %s: %w", ErrNoEngine, e.host, err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read from
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", e.host, err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		refused := &statusError{status: resp.StatusCode, message: strings.TrimSpace(string(answer))}
		var text struct{ Message string }
		if json.Unmarshal(answer, &text) == nil && text.Message != "" {
			refused.message = text.Message
		}
		return nil, refused
	}
	return answer, nil
}

func tarOf(name string, data []byte) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(data))}); err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	return out.Bytes(), w.Close()
}
